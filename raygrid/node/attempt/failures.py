"""Reports of attempts that an error ended before their pricer had a result."""

from __future__ import annotations

from raygrid.errors import BlobNotFoundError, DefinitionLostError, SettingsError, UnavailableError
from raygrid.models import AttemptId, AttemptReport, Outcome
from raygrid.node.attempt.workspace import Workspace
from raygrid.node.limits.disk import NO_ROOM, DiskWatch


class CannotRunError(Exception):
    """A job cannot run, on this node or on any."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class NodeFaultError(Exception):
    """The node failed an attempt; `cause` is the disk error behind it, if any."""

    def __init__(self, message: str, cause: OSError | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class Failures:
    """Turns errors into reports; paths of the node's directories are removed from messages."""

    def __init__(self, node_id: str, workspace: Workspace, disk: DiskWatch) -> None:
        self._node_id = node_id
        self._workspace = workspace
        self._disk = disk

    def report(self, attempt: AttemptId, error: Exception) -> AttemptReport:
        """The report of an attempt that an error ended."""
        if isinstance(error, CannotRunError):
            return AttemptReport(attempt, error.outcome, message=self._workspace.without_paths(str(error)))
        if isinstance(error, BlobNotFoundError):  # the node is sound, so this does not count against it
            return AttemptReport(attempt, Outcome.INPUT_LOST, message=str(error))
        if isinstance(error, DefinitionLostError):
            return AttemptReport(attempt, Outcome.DEFINITION_LOST, message=str(error))
        cause = error.cause if isinstance(error, NodeFaultError) else error
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            return self._disk.no_room(attempt, cause)
        what = self._workspace.without_paths(_description(error))
        return AttemptReport(
            attempt, Outcome.INFRASTRUCTURE, message=f"node {self._node_id} failed the attempt: {what}"
        )


def _description(error: Exception) -> str:
    if isinstance(error, NodeFaultError | SettingsError | UnavailableError):
        return str(error)
    unexpected = "" if isinstance(error, OSError) else "unexpected "
    return f"{unexpected}{type(error).__name__}: {error}"
