"""Gives each request an id, and writes those that concern the audit log into it."""

from __future__ import annotations

import re
from secrets import token_hex

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raygrid.core.access import Caller
from raygrid.parent.audit import AuditEntry, AuditLog
from raygrid.parent.http.naming import BATCH, JOB
from raygrid.parent.http.scope import CALLER, HIDDEN

REQUEST = "Raygrid-Request-Id"
REFUSED = frozenset({401, 403, 409, 429})
_FETCHES = re.compile(r"/result/[^/]+|/batches/[^/]+/results|/data/[^/]+")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_NAMED = {JOB.lower().encode(): "job", BATCH.lower().encode(): "batch"}


class Audited:
    """An application whose requests are recorded; without a log they only get their ids."""

    def __init__(self, app: ASGIApp, log: AuditLog | None) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = token_hex(8)

        async def recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (REQUEST.lower().encode(), request_id.encode())]
                if self._log is not None and _concerns(scope, message["status"]):
                    self._log.write(_entry(scope, message, request_id))
            await send(message)

        await self._app(scope, receive, recorded)


def _concerns(scope: Scope, status: int) -> bool:
    """Whether the audit log has the request."""
    if scope["method"] not in _READS or status in REFUSED or HIDDEN in scope:
        return True
    return bool(_FETCHES.fullmatch(scope["path"]))


def _entry(scope: Scope, message: Message, request_id: str) -> AuditEntry:
    caller: Caller | None = scope.get(CALLER)
    named = {_NAMED[name]: value.decode("latin-1") for name, value in message["headers"] if name in _NAMED}
    route = getattr(scope.get("route"), "path", scope["path"][:100])
    client = scope.get("client")
    address = client[0] if client else ""
    return AuditEntry(
        request_id, caller, address, f"{scope['method']} {route}", scope["path"], message["status"], **named
    )
