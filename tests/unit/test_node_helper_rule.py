"""Which of the processes that jobs left behind must end: the rule, without processes and clock."""

from __future__ import annotations

from typing import Any

import pytest

from raygrid.node.helpers.rule import (
    MOST_HELPERS,
    HelperActions,
    LeftBehind,
    decide,
    is_allowed,
    shared_through,
    sharing_with,
)
from raygrid.settings.pricer import Pricer

LINGER_S, AGE_S = 3.0, 100.0
SERVER, LOADER = "/usr/lib/wine/wineserver64", "/usr/lib/wine/wine64-preloader"


def helper(pid: int = 1, *pricers: str, **more: Any) -> LeftBehind:
    values = {"started": 7, "age_s": 1.0, "allowed": True, "in_job": False, **more}
    return LeftBehind(pid, pricers=frozenset(pricers or ("p",)), **values)


def decided(*left: LeftBehind, **idle_s: float) -> HelperActions:
    return decide(left, idle_s, linger_s=LINGER_S, age_s=AGE_S)


def group(*names: str) -> tuple[frozenset[str], ...]:
    return (frozenset(names),)


def test_a_helper_lives_while_an_attempt_of_its_pricer_runs() -> None:
    """It lives long after its own job; another pricer that runs does not keep it."""
    assert decided(helper(), p=0.0) == HelperActions()
    assert decided(helper(), p=LINGER_S, q=0.0) == HelperActions(clear=group("p"))


def test_a_helper_lingers_after_the_last_attempt() -> None:
    """It ends once its pricer has been idle for the linger, not before."""
    assert decided(helper(), p=LINGER_S - 0.01) == HelperActions()
    assert decided(helper(), p=LINGER_S) == HelperActions(clear=group("p"))


def test_all_helpers_of_a_pricer_end_together() -> None:
    """A server and its services are never ended apart from one another."""
    actions = decided(helper(1), helper(2), helper(3, age_s=AGE_S), p=LINGER_S)
    assert actions == HelperActions(clear=group("p"))


def test_a_helper_of_unknown_origin_waits_for_both_pricers() -> None:
    """It may belong to any pricer that ran when it was first seen."""
    assert decided(helper(1, "p", "q"), p=60.0, q=0.0) == HelperActions()
    assert decided(helper(1, "p", "q"), p=60.0, q=LINGER_S) == HelperActions(clear=group("p", "q"))


def test_groups_that_overlap_are_cleared_behind_one_gate() -> None:
    """No attempt of either pricer may start while a process that may be of both is ended."""
    actions = decided(helper(1, "p"), helper(2, "p", "q"), helper(3, "r"), p=9.0, q=9.0, r=9.0)
    assert set(actions.clear) == {frozenset("pq"), frozenset("r")}


def test_a_helper_at_its_age_is_renewed_while_its_pricer_is_in_use() -> None:
    """If its pricer is idle, it is only ended."""
    assert decided(helper(age_s=AGE_S), p=0.0) == HelperActions(renew=group("p"))
    assert decided(helper(age_s=AGE_S - 1), p=0.0) == HelperActions()


def test_jobs_that_each_leave_a_process_do_not_fill_the_machine() -> None:
    """A pricer with too many helpers loses them between two attempts, though it is never idle."""
    many = [helper(pid) for pid in range(MOST_HELPERS + 1)]
    assert decided(*many[1:], p=0.0) == HelperActions()
    assert decided(*many, p=0.0) == HelperActions(renew=group("p"))


def test_a_helper_that_is_not_allowed_ends_with_its_job() -> None:
    """It lives while an attempt that may have started it runs, without a linger."""
    running, ended = helper(1, allowed=False, in_job=True), helper(2, allowed=False)
    assert decided(running, ended, p=0.0) == HelperActions(kill=(ended,))


def test_an_orphan_that_no_pricer_can_have_left_is_killed() -> None:
    """It appeared though nothing ran, so it belongs to no job."""
    stray = LeftBehind(1, 7, 1.0, frozenset(), allowed=True, in_job=False)
    assert decided(stray, p=0.0) == HelperActions(kill=(stray,))


@pytest.mark.parametrize(
    ("setting", "executable", "name", "allowed"),
    [
        (None, "/bin/anything", "anything", True),
        (None, "", "", True),
        ("forbid", SERVER, "wineserver64", False),
        (["gpg-agent"], "/usr/bin/gpg-agent", "gpg-agent", True),
        (["gpg-agent"], "/tmp/sleeper", "gpg-agent", False),  # it chose the name
        (["/opt/licd"], "/opt/licd", "licd", True),
        (["/opt/licd"], "/tmp/licd", "licd", False),
        (["gpg-agent"], "", "gpg-agent", False),
        (["wineserver64"], SERVER, "wineserver64", True),
        (["wineserver64"], LOADER, "services.exe", True),
        (["wine"], LOADER, "winedevice.exe", True),
        (["services.exe"], LOADER, "services.exe", True),
        (["services.exe"], "/tmp/services.exe", "services.exe", True),
        (["services.exe"], "/tmp/sleeper", "services.exe", False),
        (["services.exe"], LOADER, "winedevice.exe", False),
        (["winemenubuilder.exe"], LOADER, "winemenubuilder", True),  # the kernel keeps 15 bytes
        (["gpg-agent"], SERVER, "wineserver64", False),
    ],
)
def test_a_program_is_identified_by_its_executable(
    setting: object, executable: str, name: str, *, allowed: bool
) -> None:
    """A process can choose its name and not its executable; what wine runs is known by both."""
    programs = Pricer(command=("x",), helpers=setting).helpers
    assert is_allowed(programs, executable, name) == allowed


@pytest.mark.parametrize(
    ("command", "setting", "through"),
    [
        (("sh", "{input}"), None, set()),
        (("wine", "/opt/a.exe", "{input}"), None, {"wine"}),
        (("env", "X=1", "/usr/bin/wine64", "a.exe"), None, {"wine"}),
        (("/opt/a.exe", "{input}"), None, set()),  # the name proves little: its content makes it a Windows program
        (("sh", "{input}"), ["wineserver64"], {"wine"}),
        (("sh", "{input}"), ["/usr/bin/gpg-agent", "ssh"], {"gpg-agent", "ssh"}),
        (("sh", "{input}"), "forbid", set()),
    ],
)
def test_pricers_share_helpers_through_wine_and_what_they_list(
    command: tuple[str, ...], setting: object, through: set[str]
) -> None:
    """Two Windows pricers of one user have one wineserver, whichever of them started it."""
    pricer = Pricer(command=command, helpers=setting)
    assert shared_through(pricer.command, pricer.helpers) == through
    assert shared_through(pricer.command, pricer.helpers, is_windows=True) == through | {"wine"}


def test_sharing_is_transitive() -> None:
    """If a shares with b and b with c, a helper of a may be used by c."""
    through = {
        "a": frozenset("x"),
        "b": frozenset("xy"),
        "c": frozenset("y"),
        "d": frozenset("z"),
        "e": frozenset[str](),
    }
    assert sharing_with("a", through) == {"a", "b", "c"}
    assert sharing_with("d", through) == {"d"}
    assert sharing_with("e", through) == {"e"}
    assert sharing_with("unknown", through) == {"unknown"}


@pytest.mark.parametrize("wrong", ["sleep", ["bin/licd"], [""], ["a\0b"]])
def test_a_setting_that_names_no_program_is_refused(wrong: object) -> None:
    """A relative path could be any program, and a bare word other than `forbid` is a mistake."""
    with pytest.raises(ValueError, match="helpers"):
        Pricer(command=("x",), helpers=wrong)
