"""The description of the interface, behind the same API key as everything else, and a page to read and try it.

The page (`docs.html`) is one file that loads nothing but the description, so that it works where no other network is
within reach. It says nothing of the grid, and a browser that opens it cannot send a key yet: so it is open to all, and
asks for the key with which it then loads the description.
"""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse

# FastAPI's own routes know no dependencies, and its pages load their programs from elsewhere: they are turned off, and
# `install` puts these in their place.
OFF: dict[str, Any] = {"openapi_url": None, "docs_url": None, "redoc_url": None}
_INLINE = re.compile(r"<(?P<tag>style|script)>(?P<content>.*?)</(?P=tag)>", re.DOTALL)


def install(app: FastAPI, guarded: APIRouter) -> None:
    """Add the description to a router that lets nobody in without a key, and the page to the application itself."""
    page = files("raygrid.parent.http").joinpath("docs.html").read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": policy_of(page), "Referrer-Policy": "no-referrer"}

    @guarded.get("/openapi.json", include_in_schema=False)
    async def description() -> dict[str, Any]:
        return app.openapi()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)


def policy_of(page: str) -> str:
    """The content security policy under which a page runs its own style and script, and talks to its own grid only."""
    allowed: dict[str, list[str]] = {"style": [], "script": []}
    for match in _INLINE.finditer(page):
        digest = base64.b64encode(sha256(match["content"].encode()).digest()).decode()
        allowed[match["tag"]].append(f"'sha256-{digest}'")
    return "; ".join(
        (
            "default-src 'none'",
            "connect-src 'self'",
            f"style-src {' '.join(allowed['style'])}",
            f"script-src {' '.join(allowed['script'])}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
