"""What a result depends on: which jobs share a key, and which do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raygrid.errors import SettingsError
from raygrid.models import AttemptReport, BlobSlice, JobSpec, SharedData
from raygrid.node.agent import NodeAgent
from raygrid.settings.content_key import ContentKeys
from raygrid.settings.model import load_settings
from raygrid.settings.pricer import Pricer
from tests.support.lone_agent import lone_agent, order, reports_of

BOOK = BlobSlice("inputs/2026-03-01/abc", 0, 7, "abc")
MARKET = SharedData("market", "m" * 64, 9)
CURVES = SharedData("curves", "c" * 64, 9)
SPEC = JobSpec("j1", "p", "1", BOOK, "book.csv", ("--fast",), data=(MARKET, CURVES))
SHELL: dict[str, Any] = {"command": ("sh", "{input}"), "reuse": "content"}


def pricer(**changes: Any) -> Pricer:
    return Pricer(**{**SHELL, "env": {"MODE": "a"}, **changes})


def key(spec: JobSpec = SPEC, **changes: Any) -> str | None:
    return ContentKeys().key(spec, pricer(**changes))


def test_options_that_cannot_change_the_answer_are_no_part_of_the_key() -> None:
    """Another job id, priority, limit, order of shared data or place of the input: the same key."""
    elsewhere = replace(
        SPEC, job_id="j2", priority=9, timeout_s=5.0, input=BlobSlice("", 0, 7, "abc"), inline=b"1234567"
    )
    assert key() == key(elsewhere) == key(replace(SPEC, data=(CURVES, MARKET)))
    assert key() == key(timeout_s=5, memory="1GB", output="1MB", retry_exit_codes={7}, result="stdout")
    assert key() == key(straggler={"factor": 3})


@pytest.mark.parametrize(
    "other",
    [
        {"input": BlobSlice("", 0, 7, "abe")},
        {"filename": "other.csv"},
        {"args": ("--slow",)},
        {"args": ()},
        {"data": (MARKET,)},
        {"data": (MARKET, CURVES._replace(digest="d" * 64))},
        {"data": (MARKET, CURVES._replace(name="rates"))},
        {"pricer": "q"},
    ],
)
def test_the_inputs_of_a_job_are_part_of_the_key(other: dict[str, Any]) -> None:
    """Another input, file name, args, shared data or pricer: another key."""
    assert key(replace(SPEC, **other)) != key()


@pytest.mark.parametrize("other", [{"version": "2"}, {"command": "sh -x {input}"}, {"env": {"MODE": "b"}}, {"env": {}}])
def test_the_pricers_definition_is_part_of_the_key(other: dict[str, Any]) -> None:
    """Another version, command or environment of the pricer: another key."""
    assert key(**other) != key()


def test_settings_that_are_replaced_make_other_keys() -> None:
    """Keys follow the settings that are given, not those seen first."""
    maker = ContentKeys()
    first, second = pricer(), pricer(version="2")
    keys = [maker.key(SPEC, each) for each in (first, second, first)]
    assert keys[0] == keys[2] != keys[1]


def test_without_reuse_there_is_no_key() -> None:
    """Reuse is off unless it is set; a pricer that is not known any more has no key either."""
    assert Pricer(command=("true",)).reuse == "off"
    assert key(reuse="off") is None
    assert ContentKeys().key(SPEC, None) is None


def test_a_command_that_names_the_job_cannot_be_reused() -> None:
    """The answers of such a pricer may differ by job, so the setting is refused."""
    with pytest.raises(SettingsError, match="job_id"):
        load_settings(None, pricers={"p": {"command": "price {input} --id={job_id}", "reuse": "content"}})
    load_settings(None, pricers={"p": {"command": "price {input} --id={job_id}"}})


# --- what a node reports of its results -----------------------------------------------------------------------------


async def reported(directory: Path, script: str, **changes: Any) -> AttemptReport:
    agent = agent_with(directory, Pricer(**{**SHELL, **changes}))
    try:
        agent.start(1, [order("j1", script)])
        [report] = (await reports_of(agent, 1)).values()
    finally:
        agent.close()
    return report


def agent_with(directory: Path, shell: Pricer) -> NodeAgent:
    agent = lone_agent(directory)
    agent.configure(1, {"shell": shell}, agent._settings, 1.0)
    agent.open()
    return agent


async def test_a_node_uses_the_settings_that_it_really_follows(tmp_path: Path) -> None:
    """A job taken under newer settings, run by a node with older ones, is not recorded under the newer ones."""
    run, spec = await reported(tmp_path, "echo 1", version="0.9"), order("j1", "echo 1").spec
    assert run.content == ContentKeys().key(spec, Pricer(**SHELL, version="0.9"))
    assert run.content != ContentKeys().key(spec, Pricer(**SHELL, version="1"))


async def test_a_failure_or_a_pricer_without_reuse_has_no_content(tmp_path: Path) -> None:
    """A failure, or a result made while reuse was off, is not reused."""
    assert (await reported(tmp_path / "a", "exit 3")).content is None
    assert (await reported(tmp_path / "b", "kill -9 $$")).content is None
    assert (await reported(tmp_path / "c", "echo 1", reuse="off")).content is None


def test_the_key_shows_nothing_of_the_environment() -> None:
    """Neither keys nor what is kept to make them contain the value of a variable."""
    keys = ContentKeys()
    made = keys.key(SPEC, pricer(env={"LICENCE": "s3cret-value"}))
    assert "s3cret-value" not in json.dumps([made, [digest for _, digest in keys._digests.values()]])
    assert "s3cret-value" not in repr(keys._digests)
