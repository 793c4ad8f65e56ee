"""The OpenAPI description, which needs an API key like every route, and a page to read it and to try requests.

The page (`docs.html`) is one file that loads only the description, so that it works without access to other networks.
It contains no data of the grid and needs no key, because a browser cannot send one when it opens a page; the page asks
for the key and loads the description with it.
"""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse

# FastAPI's own routes ignore dependencies, and its pages load scripts from other servers. They are turned off, and
# `install` replaces them.
OFF: dict[str, Any] = {"openapi_url": None, "docs_url": None, "redoc_url": None}
_INLINE = re.compile(r"<(?P<tag>style|script)>(?P<content>.*?)</(?P=tag)>", re.DOTALL)


def install(app: FastAPI, guarded: APIRouter) -> None:
    """Add the description to a router that requires a key, and the page to the application."""
    page = files("raygrid.parent.http").joinpath("docs.html").read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": policy_of(page), "Referrer-Policy": "no-referrer"}

    @guarded.get("/openapi.json", include_in_schema=False)
    async def description() -> dict[str, Any]:
        return app.openapi()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)


def policy_of(page: str) -> str:
    """The content security policy of a page: only its own style and script run, and only its own grid is reached."""
    allowed: dict[str, list[str]] = {"style": [], "script": []}
    for match in _INLINE.finditer(page):
        digest = base64.b64encode(sha256(match["content"].encode()).digest()).decode()
        allowed[match["tag"]].append(f"'sha256-{digest}'")
    return (
        f"default-src 'none'; connect-src 'self'; style-src {' '.join(allowed['style'])}; "
        f"script-src {' '.join(allowed['script'])}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
