"""A machine without some mechanisms: what is shown of its sandboxes, what runs, and what they refuse all the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from raygrid.models import AttemptReport, Outcome
from raygrid.node.agent import NodeAgent
from raygrid.node.sandbox import sandboxes
from raygrid.node.sandbox.mechanisms import Mechanisms, probe
from raygrid.settings.pricer import Pricer
from raygrid.system.landlock import FILES_ABI
from tests.support.sandboxed import on_disk, printed, run_each, sandboxing_agent

HERE = probe()
NEEDS_LANDLOCK = pytest.mark.skipif(
    HERE.landlock < FILES_ABI or not HERE.seccomp,
    reason="this kernel has no Landlock with rules for files, or no seccomp",
)
pytestmark = pytest.mark.processes
NO_NAMESPACES = replace(HERE, mounts=False, network=False, ipc=False, why_no_mounts="not permitted")


@contextmanager
def agent_with(mechanisms: Mechanisms, monkeypatch: pytest.MonkeyPatch, **pricer: Any) -> Iterator[NodeAgent]:
    """An agent that finds these mechanisms, with a shell as its pricer."""
    monkeypatch.setattr(sandboxes, "probe", lambda: mechanisms)
    shell = Pricer.model_validate({"command": ["sh", "{input}"], **pricer})
    with sandboxing_agent(pricers={"shell": shell}) as agent:
        yield agent


async def only(agent: NodeAgent, script: str) -> AttemptReport:
    [report] = await run_each(agent, script)
    return report


@NEEDS_LANDLOCK
async def test_strict_without_namespaces_refuses_files_and_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Landlock and the filter of system calls take over; the job's own files and `read` work, and the message helps."""
    with on_disk() as other:
        (other / "eur.csv").write_text("eur\n")
        (other / "open").mkdir()
        (other / "open" / "eur.csv").write_text("open\n")
        settings = {"sandbox": "strict", "read": [f"{other}/open"]}
        with agent_with(NO_NAMESPACES, monkeypatch, **settings) as agent:
            done = await only(agent, f"echo a > $TMPDIR/b && mv $TMPDIR/b c && cat c {other}/open/eur.csv")
            assert printed(agent, done) == "a\nopen\n"
            refused = await only(agent, f"cat {other}/eur.csv")
            assert f"add `read: [{other}/eur.csv]`" in str(refused.message)
            refused = await only(agent, f"echo a > {other}/new.csv")
            assert f"add `write: [{other}]`" in str(refused.message)
            assert not (other / "new.csv").exists()
    with agent_with(NO_NAMESPACES, monkeypatch, sandbox="strict", command=[sys.executable, "{input}"]) as agent:
        refused = await only(agent, "import socket; socket.create_connection(('127.0.0.1', 1))")
        assert "add `network: true`" in str(refused.message)


@NEEDS_LANDLOCK
@pytest.mark.parametrize("mode", ["protect", "strict"])
async def test_what_stays_open_is_shown(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Only the mechanisms that there are count as active, and the missing one is explained."""
    with agent_with(NO_NAMESPACES, monkeypatch, sandbox=mode) as agent:
        state = agent._sandboxes.state(Pricer(command=("sh",), sandbox=mode))
        assert {"landlock", "seccomp", "no_new_privs"} <= set(state.active)
        assert not {"mount_namespace", "network_namespace", "ipc_namespace"} & set(state.active)
        assert any("there is no mount namespace (not permitted)" in each for each in state.open)
        # Landlock's file rules, which only `strict` has, refuse writes to /proc, too.
        assert any("through /proc" in each for each in state.open) is (mode == "protect")
        assert (await only(agent, "true")).exit_code == 0


@pytest.mark.parametrize("mode", ["protect", "strict"])
async def test_a_required_sandbox_does_not_run_with_less(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """The attempt cannot start there; the message names the mechanism, the node and what to do."""
    with agent_with(NO_NAMESPACES, monkeypatch, sandbox=mode, sandbox_required=True) as agent:
        report = await only(agent, "true")
        assert report.outcome is Outcome.CANNOT_START
        for part in (
            "node-1",
            "'shell'",
            f"({mode}) lacks mount_namespace",
            "user namespaces",
            "sandbox_required: false",
        ):
            assert part in str(report.message)


async def test_without_any_mechanism_jobs_run_unless_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old kernel is no reason to stop, and all of it is shown as open."""
    with agent_with(Mechanisms(), monkeypatch, sandbox="strict") as agent:
        assert printed(agent, await only(agent, "echo works")) == "works\n"
        state = agent._sandboxes.state(Pricer(command=("sh",), sandbox="strict"))
        assert state.active == ("no_new_privs",)
        assert len(state.open) == 7
    with agent_with(Mechanisms(), monkeypatch, sandbox="strict", sandbox_required=True) as agent:
        assert "lacks mount_namespace, landlock, seccomp, network_namespace" in str((await only(agent, "true")).message)
