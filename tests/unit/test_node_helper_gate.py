"""Attempts and the ending of helpers exclude each other, whatever the order in which they come."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raygrid.errors import UnavailableError
from raygrid.node.helpers.gate import HelperGate
from raygrid.settings.pricer import Pricer
from tests.support.lone_agent import wait_until

PRICER = Pricer(command=("sh", "{input}"))
WINE = Pricer(command=("wine", "a.exe"))
P = frozenset(("p",))


@contextmanager
def starting(gate: HelperGate, name: str = "p", pricer: Pricer = PRICER) -> Iterator[threading.Event]:
    """An attempt that starts in a thread; the event is set once it may."""
    started = threading.Event()

    def start() -> None:
        gate.begin(name, pricer)
        started.set()

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    yield started
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_the_gate_of_a_pricer_in_use_does_not_close() -> None:
    """An attempt that has registered, though its process is not there yet, keeps its helpers alive."""
    gate = HelperGate(10)
    gate.begin("p", PRICER)
    assert not gate.close(P, 0)
    gate.end("p", PRICER)
    assert gate.close(P, 0)


def test_an_attempt_waits_until_the_helpers_are_gone() -> None:
    """It begins as soon as the gate opens, and attempts of other pricers do not wait."""
    gate = HelperGate(10)
    assert gate.close(P, 0)
    with starting(gate) as started:
        gate.begin("q", PRICER)
        assert not started.wait(0.2)
        gate.open(P)
        assert started.wait(5)
    assert gate.idle_s()["p"] == 0.0


def test_a_pricer_that_shares_the_helpers_waits_too() -> None:
    """Both run under wine: the server that ends is the one that the other would connect to."""
    gate = HelperGate(10)
    gate.begin("p", WINE)
    gate.end("p", WINE)
    assert gate.sharing(P) == {"p"}
    assert gate.close(P, 0)
    with starting(gate, "q", WINE) as started:
        assert not started.wait(0.2)
        gate.open(P)
        assert started.wait(5)
    assert gate.sharing(P) == {"p", "q"}


def test_the_linger_begins_anew_with_each_attempt() -> None:
    """An attempt between the decision and the gate keeps the helpers for another linger."""
    gate = HelperGate(10)
    gate.begin("p", PRICER)
    gate.end("p", PRICER)
    assert not gate.close(P, 60)
    assert gate.close(P, 0)


def test_helpers_that_do_not_end_cost_an_attempt_and_not_a_slot() -> None:
    """After a bounded wait the attempt fails for the node's reasons, and runs again elsewhere."""
    gate = HelperGate(0.1)
    assert gate.close(P, 0)
    with pytest.raises(UnavailableError, match="pricer 'p' left behind were killed and do not end"):
        gate.begin("p", PRICER)


def test_new_attempts_wait_for_running_ones() -> None:
    """The gate is closed once the last of them has ended; a warm process that is loaded for one does not wait."""
    gate = HelperGate(10)
    gate.begin("p", PRICER)
    held: list[bool] = []
    asked = threading.Event()
    holding = threading.Thread(target=lambda: held.append(gate.hold(P, 10, asked.set)), daemon=True)
    holding.start()
    assert asked.wait(5)
    with starting(gate) as started:
        assert not started.wait(0.2)
        gate.begin("p", PRICER, waits=False)
        gate.end("p", PRICER)
        assert holding.is_alive()
        gate.end("p", PRICER)
        wait_until(lambda: held == [True])
        assert not started.is_set()
        gate.open(P)
        assert started.wait(5)


def test_an_attempt_that_runs_on_is_waited_for_only_for_a_bounded_time() -> None:
    """Then the gate opens again: slots must not stand still for a helper that is merely old."""
    gate = HelperGate(10)
    gate.begin("p", PRICER)
    assert not gate.hold(P, 0.1, lambda: None)
    gate.begin("p", PRICER)


def test_attempts_under_older_settings_keep_their_helpers() -> None:
    """A deployment that forbids helpers holds for new attempts; those that still run need what they use."""
    gate = HelperGate(10)
    strict = PRICER.model_copy(update={"helpers": ()})
    gate.begin("p", PRICER)
    gate.begin("p", strict)
    assert set(gate.rules("p")) == {None, ()}
    gate.end("p", PRICER)
    assert gate.rules("p") == [()]
    gate.end("p", strict)
    assert gate.rules("p") == [()]
    assert gate.rules("unknown") == []


def test_a_look_gives_the_attempts_that_ran_since_the_last_one() -> None:
    """Also one that began and ended in between: an orphan without a mark may be its."""
    gate = HelperGate(10)
    gate.begin("p", PRICER)
    assert gate.ran_lately() == {"p": True}
    assert gate.ran_lately() == {"p": True}
    gate.end("p", PRICER)
    assert gate.ran_lately() == {"p": True}
    assert gate.ran_lately() == {"p": False}


@pytest.mark.parametrize(
    "program", ["wine", "/usr/bin/wine-stable", "wine64", "wine64-stable", "/opt/wine-staging/bin/wine"]
)
def test_wine_is_known_by_every_name_that_packages_give_it(program: str) -> None:
    """Debian's `/usr/bin/wine` is a link to `wine-stable`."""
    assert HelperGate(10).runs_under_wine(Pricer(command=(program, "pricer.exe", "{input}")))


def test_a_native_definition_does_not_run_under_wine_because_an_earlier_one_did() -> None:
    """Helpers of the earlier one may still run, so they are shared; the new attempts are native."""
    gate = HelperGate(10)
    gate.begin("p", WINE)
    gate.end("p", WINE)
    gate.begin("p", PRICER)
    assert gate.has_used_wine("p")
    assert not gate.runs_under_wine(PRICER)


def test_a_program_is_one_for_windows_by_its_content(tmp_path: Path) -> None:
    """If the kernel hands Windows programs to wine, the command does not name it; `.exe` alone proves nothing."""
    gate = HelperGate(10)
    for name, content in (("windows", b"MZ\x90"), ("linux", b"\x7fELF")):
        (tmp_path / f"{name}.exe").write_bytes(content)
        gate.begin(name, Pricer(command=(f"{tmp_path}/{name}.exe", "{input}")))
    gate.begin("wine", WINE)
    assert [gate.has_used_wine(name) for name in ("windows", "linux", "wine")] == [True, False, True]
    assert gate.sharing(frozenset(("windows",))) == {"windows", "wine"}
