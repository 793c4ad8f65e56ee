"""Makes the result of an attempt from the files that were collected, and completes its report."""

from __future__ import annotations

from dataclasses import replace

from raygrid.models import Outcome
from raygrid.node.attempt.collect import cut, without_files
from raygrid.node.attempt.inputs import Inputs
from raygrid.node.attempt.result_zip import build_zip
from raygrid.node.attempt.safe_paths import BadOutputError
from raygrid.node.attempt.stages import CollectedAttempt, FinishedAttempt, ResultZip
from raygrid.node.limits.disk import NO_ROOM, DiskWatch
from raygrid.settings.content_key import ContentKeys


class Results:
    """Makes the results of one node."""

    def __init__(self, node_id: str, disk: DiskWatch, inputs: Inputs) -> None:
        self._node_id = node_id
        self._disk = disk
        self._inputs = inputs
        self._content_keys = ContentKeys()

    def finish(self, collected: CollectedAttempt) -> FinishedAttempt:
        """Put the files of an attempt into a ZIP and complete its report; OSError if the disk fails but is not full."""
        zipped: ResultZip | None = None
        while zipped is None:
            try:
                zipped = build_zip(collected, self._node_id)
            except (BadOutputError, OSError) as error:
                collected = self._reduced(collected, error)
                if collected.report.outcome is Outcome.DISK_FULL:
                    return FinishedAttempt(collected.report)
        prepared, running = collected.judged.prepared, collected.judged.running
        report = self._disk.judge_result(running, collected.report)
        if report.outcome is Outcome.DISK_FULL:
            return FinishedAttempt(report)
        unchanged = self._inputs.take_back(prepared.data_links, prepared.directory)
        if report.outcome is not Outcome.EXITED or report.exit_code != 0:
            report = replace(report, stderr_tail=prepared.directory.captures.stderr.tail())
        elif prepared.pricer.reuse == "content" and unchanged:
            report = replace(report, content=self._content_keys.key(prepared.spec, prepared.pricer))
        return FinishedAttempt(report, zipped)

    def _reduced(self, collected: CollectedAttempt, error: BadOutputError | OSError) -> CollectedAttempt:
        """The attempt with fewer files after an error; raises the same error if that would not help."""
        if not collected.files and not any(each.size for each in collected.captures):
            raise error
        if isinstance(error, BadOutputError | PermissionError | FileNotFoundError):
            return without_files(collected, error)
        if error.errno not in NO_ROOM or collected.report.outcome is Outcome.OUTPUT_LIMIT:
            raise error
        judged = collected.judged
        return cut(collected, self._disk.no_room_for_result(judged.running, judged.report, error))
