"""The messages of direct calls: every declared call has one, and it carries values of the declared types only."""

from __future__ import annotations

import typing
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
import pytest

from raygrid import errors
from raygrid.core.attempt_counts import AttemptCounts
from raygrid.core.group.events import AttemptOrder
from raygrid.core.sandbox_state import SandboxState
from raygrid.errors import BusyError, JobFailedError, NotLeadingError, RaygridError, StaleTermError, UnavailableError
from raygrid.models import (
    AttemptId,
    AttemptReport,
    BlobSlice,
    Definition,
    DoneJob,
    GroupCapacity,
    JobSpec,
    JobState,
    NodeState,
    NodeTraffic,
    NodeView,
    Outcome,
    QueuedJob,
    SharedData,
)
from raygrid.transport import messages
from raygrid.transport.calls import call, calls_of, direct_calls
from raygrid.transport.messages import NoMessageError, messages_of
from raygrid.transport.ports import AgentCalls, JobChange, LeaderCalls, LeaderReply, NodeReply
from raygrid.transport.wire import FrameTooLargeError

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
SLICE = BlobSlice("pack-1", 10, 20, "d" * 64)
SPEC = JobSpec(
    "job-1", "lines", "2", SLICE, "in.csv", ("--curve", "é"), -3, 1.5, b"\x00\xff", (SharedData("m", "d", 7),), "d", "o"
)
ATTEMPT = AttemptId("job-1", 2)
REPORT = AttemptReport(
    ATTEMPT, Outcome.SIGNAL, None, 9, "killed", "\x1b[31m tail", SLICE, NOW, NOW, "content", True, b"\x01" * 32
)
STATE = NodeState(
    "a1", "x", 4, (ATTEMPT,), 1, False, "full", "10.0.0.1", "m", "/blobs", NodeTraffic(1, 2, 3, 4), 1e9, 7, ("d",),
    SandboxState("protect", ("seccomp",), ("network",)),
)  # fmt: skip
VIEW = NodeView("a1", "rack-a", 4, 1, "draining", "why", "10.0.0.1", NodeTraffic(9), NOW, SandboxState())
CAPACITY = GroupCapacity("rack-a", 4, 1, 10, (VIEW,), "tokyo", 0.25, 1, "leader-0", 3)
DONE = DoneJob("job-1", "rack-a", "a1", SLICE, 0, JobState.DONE, None, None, "tail", "other", NOW)
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "start": (3, [AttemptOrder(ATTEMPT, SPEC, "marker", True)], [Definition("d", "body", "{}")]),
    "stop": (3, [ATTEMPT], [AttemptId("job-2", 1)]),
    "reports": (3, 0, 0, 1.5),
    "enqueue": ([QueuedJob(SPEC, AttemptCounts(2, 1, 0, 0, 0), "a1", True, True)],),
    "forget": (["job-1"],),
    "cancel": (["job-1"],),
    "changes": ("epoch", 4, 0.0),
    "hand_over": (),
    "stand": (),
}
ANSWERS: dict[str, Any] = {
    "reports": NodeReply(STATE, (REPORT,), 5),
    "changes": LeaderReply("epoch", 9, (JobChange("job-1", JobState.DONE, DONE),), False, CAPACITY, 1.0, 3, "leader-0"),
}
CALLS = [(protocol, each.name) for protocol in (AgentCalls, LeaderCalls) for each in calls_of(protocol) if each.direct]


@pytest.mark.parametrize(("protocol", "name"), CALLS)
def test_every_direct_call_has_messages_for_its_arguments_and_its_answer(protocol: Any, name: str) -> None:
    """What arrives equals what was sent, in every field; sequences arrive as lists."""
    own, args, value = messages_of(protocol), ARGUMENTS[name], ANSWERS.get(name)
    asked = messages.read_request(messages.request(7, name, args))
    assert (asked.number, asked.method, own.args(asked)) == (7, name, args)
    answered = messages.read_answer(messages.answer(7, value))
    assert (answered.number, own.value(name, answered)) == (7, value)


def test_the_examples_fill_every_field() -> None:
    """Otherwise a field that is lost on its way would not be noticed."""
    for example in (SPEC, REPORT, STATE, VIEW, CAPACITY, DONE):
        hints = typing.get_type_hints(type(example))
        assert all(getattr(example, name) not in (None, "", (), 0) for name in hints if name not in LEFT_EMPTY)


LEFT_EMPTY = {"exit_code", "healthy", "reason", "message", "pricer"}


def test_default_arguments_may_be_left_out() -> None:
    """As in a call of the object itself."""
    asked = messages.read_request(messages.request(1, "stop", (3, [ATTEMPT])))
    assert messages_of(AgentCalls).args(asked) == (3, [ATTEMPT], ())


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("stop", ("three", [ATTEMPT])),
        ("stop", (3, [("job-1", "2")])),
        ("stop", (3,)),
        ("stop", (3, [], [], [])),
        ("forget", ([1],)),
        ("configure", (3, {})),
        ("results", ("key", [])),
        ("__class__", ()),
    ],
)
def test_arguments_of_other_types_and_other_calls_are_refused(name: str, args: tuple[Any, ...]) -> None:
    """Also calls that are declared, but not direct."""
    with pytest.raises(UnavailableError, match=name):
        messages_of(LeaderCalls if name == "forget" else AgentCalls).args(
            messages.read_request(messages.request(1, name, args))
        )


def test_an_answer_of_another_type_is_refused() -> None:
    with pytest.raises(UnavailableError, match="reports"):
        messages_of(AgentCalls).value("reports", messages.read_answer(messages.answer(1, [1, 2])))


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x93\x01", msgspec.msgpack.encode(["one", "two"]), b"\x80" * 100])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    for read in (messages.read_request, messages.read_answer):
        with pytest.raises(msgspec.MsgspecError):
            read(body)


def error_after(raised: BaseException) -> BaseException:
    """The error of a caller whose callee raised this."""
    with pytest.raises(Exception) as caught:
        messages_of(LeaderCalls).value("stand", messages.read_answer(messages.failure(1, raised)))
    return caught.value


def test_errors_of_the_grid_keep_their_class_and_text() -> None:
    found = error_after(BusyError("full", retry_after_s=7.5))
    assert (type(found), str(found), found.retry_after_s) == (BusyError, "full", 7.5)  # type: ignore[attr-defined]
    for kind in (StaleTermError, NotLeadingError, errors.GroupRefusedError, errors.NotFinishedError):
        assert type(error_after(kind("why"))) is kind


def test_every_error_of_the_grid_arrives_as_itself_or_as_a_base() -> None:
    """One that needs more than a text arrives as its nearest base."""
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, RaygridError)]
    for kind in kinds:
        raised = JobFailedError("why", job_id="job-1") if kind is JobFailedError else kind("why")
        found = error_after(raised)
        assert isinstance(raised, type(found))
        assert "why" in str(found)
        assert type(found) is kind or kind is JobFailedError


def test_an_error_of_another_module_arrives_as_its_base() -> None:
    class OwnError(StaleTermError):
        """Unknown to the caller."""

    assert type(error_after(OwnError("why"))) is StaleTermError


def test_any_other_error_means_that_the_outcome_is_unknown() -> None:
    found = error_after(KeyError("x"))
    assert type(found) is UnavailableError
    assert "KeyError('x')" in str(found)
    assert type(error_after(FrameTooLargeError("why"))) is FrameTooLargeError


class TextCalls(Protocol):
    """A call with any argument."""

    @call(1.0)
    async def note(self, text: Any, /) -> Any: ...


@pytest.mark.parametrize("value", ["half a \ud800 character", 1 << 70, object(), {"x": {1, object()}}])
def test_what_no_message_can_carry_is_not_sent(value: Any) -> None:
    """Such a call uses Ray."""
    with pytest.raises(NoMessageError):
        messages.request(1, "note", (value,))
    with pytest.raises(NoMessageError):
        messages.answer(1, value)
    assert isinstance(NoMessageError("why"), FrameTooLargeError)


def test_an_error_with_half_a_character_arrives() -> None:
    r"""It is written as an escape."""
    assert str(error_after(StaleTermError("file \udcff"))).startswith("file \\")


def test_every_declared_call_is_covered_here() -> None:
    """A new call needs an example."""
    assert {name for _, name in CALLS} == set(ARGUMENTS) == direct_calls(AgentCalls) | direct_calls(LeaderCalls)
