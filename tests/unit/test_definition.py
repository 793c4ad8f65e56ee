"""What is pinned when a job is submitted, and what runs within the limits of later settings."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from raygrid.errors import SettingsError
from raygrid.settings.definition import LIMITS, PINNED, define, pricer_of, same_definition
from raygrid.settings.pricer import Pricer

SECRET = "hunter2"
FULL = Pricer.model_validate(
    {
        "command": "price --fast",
        "mode": "warm",
        "env": {"TOKEN": SECRET},
        "expect": ["prices.csv", "*.log"],
        "helpers": ["wineserver64"],
        "version": "7",
        "recycle_after": 9,
        "recycle_memory": "64MB",
        "result": "stdout",
        "timeout_s": 5,
        "memory": "1GB",
        "processes": 100,
        "output": "1MB",
        "retry_exit_codes": [75, 3],
        "straggler": {"factor": 2.0, "min_s": 1.0},
        "reuse": "content",
        "reuse_across_owners": True,
        "sandbox": "strict",
        "sandbox_required": True,
        "sandbox_user": "pricing",
        "read": ["/opt/market"],
        "write": ["~/cache"],
        "network": True,
    }
)
PLAIN = Pricer(command=("price", "{input}"))


def test_every_setting_of_a_pricer_is_declared() -> None:
    """A new setting has to be declared as part of what runs or as a limit; none is both."""
    assert set(Pricer.model_fields) == PINNED | LIMITS
    assert PINNED.isdisjoint(LIMITS)


@pytest.mark.parametrize("pricer", [FULL, PLAIN], ids=["full", "plain"])
def test_a_definition_is_read_back_as_the_pricer_it_was_made_of(pricer: Pricer) -> None:
    """Within the same limits the same settings come back; without any, equal ones."""
    definition = define("p", pricer)
    assert pricer_of(definition, pricer) is pricer
    assert pricer_of(definition, None) == pricer


def test_a_definition_runs_within_current_limits() -> None:
    """Of newer settings only the limits count for a job that was submitted before."""
    now = FULL.model_copy(update={"command": ("other",), "env": {}, "version": "8", "timeout_s": 99.0, "memory": None})
    runs = pricer_of(define("p", FULL), now)
    assert (runs.command, runs.env, runs.version) == (FULL.command, FULL.env, "7")
    assert (runs.timeout_s, runs.memory) == (99.0, None)
    assert same_definition(runs, FULL)
    assert not same_definition(runs, now)


@pytest.mark.parametrize("name", sorted(PINNED))
def test_every_part_of_a_definition_changes_its_digest(name: str) -> None:
    """No two things that run differently have one digest."""
    other = {"command": ("x",), "mode": "cold", "version": "8", "recycle_after": 1}
    changed = FULL.model_copy(update={name: other.get(name, Pricer.model_fields[name].default)})
    assert define("p", changed).digest != define("p", FULL).digest


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_limits_do_not_change_the_digest(name: str) -> None:
    """Jobs before and after a change of limits run the same."""
    changed = FULL.model_copy(update={name: Pricer.model_fields[name].get_default()})
    assert getattr(changed, name) != getattr(FULL, name)
    assert define("p", changed).digest == define("p", FULL).digest


def test_a_removed_pricer_keeps_its_sandbox_but_never_runs_without_one() -> None:
    """Otherwise a job in the queue would run without protection that no setting switches off any more."""
    strict = pricer_of(define("p", FULL), None)
    assert (strict.sandbox_mode, strict.read, strict.network) == ("strict", ("/opt/market",), True)
    off = define("p", FULL.model_copy(update={"sandbox": "off"}))
    assert pricer_of(off, FULL.model_copy(update={"sandbox": "off"})).sandbox_mode == "off"
    assert pricer_of(off, None).sandbox_mode == "protect"


def test_two_pricers_that_run_the_same_have_definitions_of_their_own() -> None:
    """Their limits, kept beside the definition, may differ."""
    assert define("a", PLAIN).digest != define("b", PLAIN).digest


def test_a_definition_shows_no_value_of_a_variable() -> None:
    """Neither its text nor the errors that it causes contain one."""
    definition = define("p", FULL)
    assert SECRET not in repr(definition)
    assert SECRET not in definition.limits
    damaged = replace(definition, body=json.dumps({**json.loads(definition.body), "env": {"TOKEN": [SECRET]}}))
    with pytest.raises(SettingsError, match=r"definition .* of pricer 'p' is damaged: TOKEN") as caught:
        pricer_of(damaged, None)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_definition_of_a_newer_release_is_refused() -> None:
    """A setting that this release does not know may change what runs, so it must not be ignored."""
    definition = define("p", PLAIN)
    newer = replace(definition, body=json.dumps({**json.loads(definition.body), "isolation": True}))
    with pytest.raises(SettingsError, match="'isolation', which this release of raygrid does not know"):
        pricer_of(newer, PLAIN)


def test_a_setting_that_an_older_release_did_not_know_has_no_effect() -> None:
    """Its default counts, not the current setting."""
    body = json.loads(define("p", PLAIN).body)
    del body["env"]
    older = replace(define("p", PLAIN), body=json.dumps(body))
    assert pricer_of(older, PLAIN.model_copy(update={"env": {"NEW": "1"}})).env == {}


def test_a_stored_definition_is_not_checked_again() -> None:
    """It was valid when it was taken; combined with later limits it need not be one that could be configured."""
    odd = replace(define("p", FULL), body=define("p", FULL).body.replace("--fast", "{input}"))
    assert pricer_of(odd, FULL).command == ("price", "{input}")
    assert pricer_of(define("p", FULL), FULL.model_copy(update={"memory": 1})).recycle_memory == 64 * 1024**2
