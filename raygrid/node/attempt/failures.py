"""Attempts that ended without a result of their pricer: which report follows from which error."""

from __future__ import annotations

from raygrid.errors import BlobNotFoundError, DefinitionLostError, SettingsError, UnavailableError
from raygrid.models import AttemptId, AttemptReport, Outcome
from raygrid.node.attempt.workspace import Workspace
from raygrid.node.limits.disk import NO_ROOM, DiskWatch


class CannotRunError(Exception):
    """A job cannot run as it is, on this node or on any."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class NodeFaultError(Exception):
    """The node could not do its part; `cause` is the error of the disk that this follows from, if any."""

    def __init__(self, message: str, cause: OSError | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class Failures:
    """Turns errors into reports.

    Args:
        node_id: the node, for messages.
        workspace: its directories, whose paths are left out of messages.
        disk: reports attempts that found the disk full.
    """

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
        what = self._workspace.without_paths(_words_of(error))
        return AttemptReport(
            attempt, Outcome.INFRASTRUCTURE, message=f"node {self._node_id} failed the attempt: {what}"
        )


def _words_of(error: Exception) -> str:
    if isinstance(error, NodeFaultError | SettingsError | UnavailableError):
        return str(error)
    unexpected = "" if isinstance(error, OSError) else "unexpected "
    return f"{unexpected}{type(error).__name__}: {error}"
