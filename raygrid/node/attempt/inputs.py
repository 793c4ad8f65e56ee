"""Puts a job's input and its shared inputs into the directory of an attempt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from raygrid.blobs import BlobStore
from raygrid.errors import BlobDamagedError
from raygrid.models import JobSpec
from raygrid.node.attempt.directory import JobDirectory
from raygrid.node.shared_data import DataLink, SharedDataCache
from raygrid.node.traffic import TrafficMeter


class Inputs:
    """The inputs of a node's attempts; thread-safe."""

    def __init__(self, blobs: BlobStore, shared: SharedDataCache, traffic: TrafficMeter) -> None:
        self._blobs = blobs
        self._shared = shared
        self._traffic = traffic

    def place(self, spec: JobSpec, directory: JobDirectory) -> list[DataLink]:
        """Put all inputs of a job into a directory; return its shared inputs, for `take_back`.

        Raises:
            BlobDamagedError: the inline input of the job does not have the recorded digest.
            BlobNotFoundError: the blob store does not have an input.
            OSError: the disk refuses it.
            UnavailableError: the blob store cannot be reached.
        """
        if spec.inline is None:
            directory.fetch_input(spec.filename, lambda path: self._blobs.fetch_now(spec.input, path))
            self._traffic.add(inputs=spec.input.size)
        elif hashlib.sha256(spec.inline).hexdigest() == spec.input.digest:
            directory.write_input(spec.filename, spec.inline)
        else:
            raise BlobDamagedError(
                f"the input of job {spec.job_id} in the job store is damaged (sha256 differs); submit it again "
                "under a new jobId"
            )
        if not spec.data:
            return []
        directory.data.mkdir()
        return [self._shared.link(data, directory.data) for data in spec.data]

    def take_back(self, links: Sequence[DataLink], directory: JobDirectory) -> bool:
        """Take the shared inputs out of a directory; return whether the pricer left them unchanged."""
        return not links or self._shared.release(links, directory.handle.descriptor)
