"""A parent's own HTTP listener, for a grid on one machine, which does not use Serve's proxy.

The proxy would cost more CPU than the parent itself, and would buffer answers for slow readers. Several parents on one
machine listen on the same port, and the kernel distributes connections among them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from raygrid.parent.audit import AuditLog
from raygrid.parent.http.connection import KEEP_ALIVE_S, MOST_CONNECTIONS, SPARE_CONNECTIONS, LimitedConnection
from raygrid.parent.http.open_files import BACKLOG, make_room
from raygrid.system.peers import Peers

GRACE_S = 5
_TICKS = 10  # of 0.1 s, between two checks of the connections


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the owner of the process."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Check the connections; uvicorn calls this ten times per second."""
        if counter % _TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, LimitedConnection):
                    connection.enforce_time_limits(now)
        return await super().on_tick(counter)


class Listener:
    """Serves an application over HTTP. The owner opens and closes it.

    With `own_user_only`, requests of other users of this machine without an API key are refused; `audit` records them.

    Raises:
        OSError: the users of connections cannot be found out.
    """

    def __init__(
        self, app: FastAPI, host: str, port: int, *, own_user_only: bool = False, audit: AuditLog | None = None
    ) -> None:
        self._address = (host, port)
        self._peers = Peers() if own_user_only else None
        room = make_room(MOST_CONNECTIONS, SPARE_CONNECTIONS)
        self._server = _Server(
            uvicorn.Config(
                app,
                http=type(
                    "Connection",
                    (LimitedConnection,),
                    {"room": room.connections, "peers": self._peers, "audit": audit},
                ),
                backlog=room.backlog,
                ws="none",
                lifespan="off",  # Serve opens the application
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=int(KEEP_ALIVE_S),
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen; returns once connections are accepted.

        Raises:
            OSError: the address cannot be used.
        """
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        listening = socket.create_server(self._address, family=family, reuse_port=True, backlog=BACKLOG)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve([listening]), name="listener")

    async def close(self) -> None:
        """Accept no new requests, and wait a few seconds for pending ones."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        if self._peers is not None:
            self._peers.close()
