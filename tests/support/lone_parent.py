"""A parent in a process of its own, without Ray: its leader is in another process, and both see the same store.

Run as a script: `python -m tests.support.lone_parent STATE_DIR PORT HOST…`. It takes jobs and answers for all, under
any of its hosts; a leader over the same store finds them there.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvicorn

from raygrid.blobs import BlobStore
from raygrid.models import GroupCapacity
from raygrid.parent.http.app import build_app
from raygrid.parent.service import Parent
from raygrid.settings.model import load_settings
from raygrid.store import SqlStore
from raygrid.transport.ports import LeaderCalls, LeaderReply
from tests.support.calls import fake_of
from tests.support.small_grid import PRICERS

GROUP = "rack-a"


class FarLeader:
    """A leader that this process cannot reach, with room for jobs; it finds them in the store."""

    async def changes(self, epoch: str, after: int, wait_s: float) -> LeaderReply:
        """Report the room, and no change."""
        await asyncio.sleep(wait_s)
        return LeaderReply("far", 0, (), gap=True, capacity=GroupCapacity(GROUP, slots=2, running=0, queued=0))


class _Discovery:
    def __init__(self) -> None:
        self._leader = fake_of(LeaderCalls, FarLeader())

    async def groups(self) -> Mapping[str, Sequence[LeaderCalls]]:
        return {GROUP: [self._leader]}


class _NoCaches:
    async def results(self, address: str, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        return [None] * len(job_ids)


def main(state_dir: Path, port: int, hosts: Sequence[str]) -> None:
    listening = {"port": port, "hosts": hosts}  # on loopback, where it asks for no key
    settings = load_settings(None, name="small", pricers=PRICERS, storage={"state_dir": state_dir}, http=listening)
    blobs = BlobStore(settings.blobs_url, settings.storage.blob_options, retry_s=2.0)
    parent = Parent(settings, SqlStore(settings.database_url), blobs, _Discovery(), _NoCaches())
    uvicorn.run(build_app(parent), host="0.0.0.0", port=port, log_level="warning")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
