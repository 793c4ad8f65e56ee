"""The backlog: which jobs wait, which wait a while first, and which the window refuses."""

from __future__ import annotations

import pytest

from raygrid.core.group.backlog import Backlog


def test_a_delayed_job_comes_first_once_it_is_due() -> None:
    """A retry that was put off stands at the head of its priority once it is due, and not before."""
    backlog = Backlog(window=10)
    backlog.add("a", 0)
    backlog.add_later("retry", 0, due=5.0)
    backlog.release_due(4.9)
    assert (list(backlog), backlog.ready) == (["a", "retry"], 1)
    backlog.release_due(5.0)
    assert (list(backlog), backlog.ready) == (["retry", "a"], 2)


def test_a_removed_job_does_not_come_back_when_due() -> None:
    """A removed job stays removed when its time comes, also for an earlier time of the same job."""
    backlog = Backlog(window=10)
    backlog.add_later("gone", 0, due=1.0)
    backlog.remove("gone")
    backlog.add_later("moved", 0, due=1.0)
    backlog.remove("moved")
    backlog.add_later("moved", 0, due=9.0)
    backlog.release_due(2.0)
    assert (list(backlog), backlog.ready) == (["moved"], 0)
    with pytest.raises(IndexError):
        backlog.pop()


def test_no_job_overtakes_a_refused_one() -> None:
    """After a refusal, room alone lets in only what is more urgent, until a scan brings the rest in order."""
    backlog = Backlog(window=1)
    assert backlog.admits(0)
    backlog.add("a", 0)
    assert not backlog.admits(0)
    assert backlog.pop() == "a"
    assert not backlog.admits(0)
    assert backlog.admits(1)
    backlog.scanned()
    assert backlog.admits(0)


def test_an_urgent_refusal_keeps_out_everything_below_it() -> None:
    """The most urgent refusal counts, in whatever order they came."""
    backlog = Backlog(window=1)
    backlog.add("top", 9)
    assert not backlog.admits(5)
    assert not backlog.admits(2)
    backlog.pop()
    assert (backlog.admits(5), backlog.admits(6)) == (False, True)
