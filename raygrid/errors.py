"""Every error that raygrid raises on purpose.

    RaygridError
    ├── SettingsError            a setting is wrong or missing; names it and what to write
    ├── InvalidRequestError      the request itself is wrong; sending it again does not help
    │   ├── UnknownPricerError
    │   ├── UnknownDataError
    │   ├── UnknownSiteError
    │   └── TooLargeError
    ├── ConflictError            the jobId exists with another input, pricer or args, or is another owner's
    ├── NotAuthorizedError       no API key, or a wrong one
    │   └── ForbiddenError       the key, the user or the site of the request may not do this
    ├── JobNotFoundError
    ├── DataNotFoundError
    ├── KeyNotFoundError
    ├── NodeNotFoundError
    ├── GroupNotFoundError
    ├── NotFinishedError         the job has not ended yet
    ├── ResultExpiredError       the result was removed when its retention ended
    ├── JobFailedError           the pricer failed, or the job could not be run
    ├── JobCancelledError
    ├── HandOverError            no other candidate can lead the group
    ├── BusyError                a queue is full, or no group can take the job now; try again later
    │   └── UnavailableError     a part of the grid cannot be reached now
    │       ├── UnreachableError its process is gone, or the connection to it broke
    │       │   └── ProcessEndedError  Ray reports that its process has ended
    │       └── NotLeadingError  that candidate does not lead its group now
    ├── GroupRefusedError        a group has no node that takes jobs; another group may
    ├── DamagedResultError       the result's bytes are damaged; run the job again, or fetch the result again
    ├── MismatchedResponseError  a client got the answer for another job or batch
    ├── WaitTimeoutError         the wait ended before the job did; the job goes on
    ├── ConnectionFailedError    the grid did not answer the client
    ├── StaleTermError           a leader of an old term tried to write
    ├── DefinitionLostError      the job store has lost the definition of a job
    └── BlobNotFoundError        the blob store lacks bytes that a job refers to
        └── BlobDamagedError     the blob store has other bytes than those that were stored

Each message states what happened, to which job, node or group, and what to do.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from raygrid.system.control_characters import escape_control_characters


class RaygridError(Exception):
    """Base of all errors of raygrid.

    Its text may quote a pricer or another client. Control characters are escaped in it, because a traceback, a log or a
    notebook shows it as it is.

    Attributes:
        hides: whether it conceals from a caller that something of another owner exists; parents record that.
    """

    hides = False

    def __str__(self) -> str:
        r"""The text, with control characters as escapes such as `\x1b`."""
        return escape_control_characters(super().__str__())


class SettingsError(RaygridError):
    """A setting is wrong or missing."""


class InvalidRequestError(RaygridError):
    """The request is invalid; sending it again does not help."""


class UnknownPricerError(InvalidRequestError):
    """No pricer of that name is configured."""


class UnknownDataError(InvalidRequestError):
    """No shared data of that name was stored."""


class UnknownSiteError(InvalidRequestError):
    """No group is at a site of that name, but some are at other sites."""


class TooLargeError(InvalidRequestError):
    """A body, a batch or an option exceeds its limit."""


class ConflictError(RaygridError):
    """Another job has this jobId; its input, pricer, args or shared data differ. Or the name is another owner's."""


class NotAuthorizedError(RaygridError):
    """The API key is missing or not valid for this grid."""


class ForbiddenError(NotAuthorizedError):
    """The key may not do this, the grid does not accept this client, or a page of another site makes the request."""


class JobNotFoundError(RaygridError):
    """The grid has no job or batch with that id."""


class DataNotFoundError(RaygridError):
    """The grid has no shared data of that name."""


class KeyNotFoundError(RaygridError):
    """The grid has no valid API key with that id."""


class NodeNotFoundError(RaygridError):
    """The grid has no node of that name."""


class GroupNotFoundError(RaygridError):
    """The grid has no group of that name."""


class HandOverError(RaygridError):
    """The lead of a group cannot be handed over: it has no other candidate, or none took over in time."""


class NotFinishedError(RaygridError):
    """The job has not ended yet, so there is no result; `state` is `queued` or `running`, if known."""

    def __init__(self, message: str, *, state: str | None = None) -> None:
        super().__init__(message)
        self.state = state


class ResultExpiredError(RaygridError):
    """The result was removed when its retention ended, or is gone from the blob store."""


class JobFailedError(RaygridError):
    """The job failed; `reason` names the cause.

    If a client raises it, its text is the message and the last lines of the pricer's stderr.

    Attributes:
        message: what happened, without stderr.
        job_id: the job.
        reason: stable word for the cause, such as `exit_code` or `timeout`.
        exit_code: the pricer's exit code, if it exited.
        stderr_tail: the end of the pricer's stderr, with all its control characters.
        has_result: whether the job's files can be fetched with `even_if_failed`.
    """

    def __init__(
        self,
        message: str,
        *,
        job_id: str,
        reason: str | None = None,
        exit_code: int | None = None,
        stderr_tail: str | None = None,
        text: str | None = None,
        has_result: bool = False,
    ) -> None:
        super().__init__(text or message)
        self.message = message
        self.job_id = job_id
        self.reason = reason
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail
        self.has_result = has_result

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all attributes."""
        return partial(type(self), job_id=self.job_id), self.args, self.__dict__


class JobCancelledError(RaygridError):
    """The job was cancelled, so it has no result."""


class BusyError(RaygridError):
    """The grid cannot take the job now; try again after `retry_after_s` seconds (`Retry-After`)."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(BusyError):
    """A part of the grid cannot be reached now; whether it acted on the call is unknown."""


class UnreachableError(UnavailableError):
    """The called process is gone, or the connection to it broke; a process that is only slow does not count."""


class ProcessEndedError(UnreachableError):
    """Ray reports that the called process has ended; this may be wrong if its machine is cut off from Ray's head."""


class NotLeadingError(UnavailableError):
    """The called candidate does not lead its group now; another candidate may."""


class GroupRefusedError(RaygridError):
    """A group has no node that takes jobs now; its leader keeps the jobs until they are moved to another group."""


class DamagedResultError(RaygridError):
    """The bytes of a result are damaged, and no other copy exists; submit the input under a new jobId."""


class MismatchedResponseError(RaygridError):
    """A client got the answer to another call and discarded it."""


class WaitTimeoutError(RaygridError):
    """The wait ended before the job did. The job goes on, and waiting again is safe."""


class ConnectionFailedError(RaygridError):
    """The grid did not answer, despite retries."""


class StaleTermError(RaygridError):
    """A leader wrote with a term that is no longer the group's; it must step down."""


class DefinitionLostError(RaygridError):
    """The job store has lost the pricer definition of a job; the job must be submitted again."""


class BlobNotFoundError(RaygridError):
    """The blob store lacks bytes that a job refers to."""


class BlobDamagedError(BlobNotFoundError):
    """The blob store has other bytes than those that were stored, or only a part of them."""


PROBLEM_PREFIX = "urn:raygrid:problem:"
PROBLEMS: dict[str, tuple[type[RaygridError], int]] = {
    # Derived errors come before their bases.
    "unknown-pricer": (UnknownPricerError, 422),
    "unknown-data": (UnknownDataError, 422),
    "unknown-site": (UnknownSiteError, 422),
    "too-large": (TooLargeError, 413),
    "invalid-request": (InvalidRequestError, 422),
    "conflict": (ConflictError, 409),
    "forbidden": (ForbiddenError, 403),
    "unauthorized": (NotAuthorizedError, 401),
    "job-not-found": (JobNotFoundError, 404),
    "data-not-found": (DataNotFoundError, 404),
    "key-not-found": (KeyNotFoundError, 404),
    "node-not-found": (NodeNotFoundError, 404),
    "group-not-found": (GroupNotFoundError, 404),
    "hand-over": (HandOverError, 409),
    "not-finished": (NotFinishedError, 404),
    "result-expired": (ResultExpiredError, 410),
    # Not 502 to 504, because clients and proxies repeat such requests, and the stored bytes do not change.
    "damaged-result": (DamagedResultError, 500),
    "job-failed": (JobFailedError, 422),
    "job-cancelled": (JobCancelledError, 409),
    "unavailable": (UnavailableError, 503),
    "busy": (BusyError, 429),
}
"""The errors that travel over HTTP: type of the problem document (after `PROBLEM_PREFIX`) to class and status."""
