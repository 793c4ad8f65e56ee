"""Pricers that lay hands on what the node keeps beside their files: captures, directories, shared data.

Whatever they put there, the attempt gets its end, the slot goes on, and nothing outside of the job is read, published,
changed or removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raygrid.models import AttemptId, AttemptReport, Outcome
from raygrid.node.agent import NodeAgent
from raygrid.node.runner import Runner
from raygrid.node.workspace import Workspace
from tests.support.lone_agent import lone_agent, order, reports_of


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[NodeAgent]:
    made = lone_agent(tmp_path, slots=1)
    made.open()
    yield made
    made.close()


async def run(agent: NodeAgent, script: str, job_id: str = "job") -> AttemptReport:
    """Run a script to its end, and then another job in the same slot, which must go well."""
    agent.start(1, [order(job_id, script), order(f"after-{job_id}", "echo fine")])
    seen = {report.attempt.job_id: report for report in (await reports_of(agent, 2)).values()}
    assert seen[f"after-{job_id}"].exit_code == 0, seen[f"after-{job_id}"].message
    return seen[job_id]


# --- slots ----------------------------------------------------------------------------------------------------------


async def test_a_defect_of_the_node_costs_an_attempt_and_not_the_slot(
    agent: NodeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever escapes from an attempt is its report as infrastructure, and the slot takes the next one."""
    runs = Runner.run

    def breaks(self: Runner, given: object) -> object:
        if given.attempt.job_id == "job":  # type: ignore[attr-defined]  # an order
            raise RuntimeError("a defect")
        return runs(self, given)  # type: ignore[arg-type]  # likewise

    monkeypatch.setattr(Runner, "run", breaks)
    report = await run(agent, "true")
    assert report.outcome is Outcome.INFRASTRUCTURE
    assert "node-1" in (report.message or "")
    assert "RuntimeError: a defect" in (report.message or "")


async def test_a_directory_that_cannot_be_removed_costs_neither_answer_nor_slot(
    agent: NodeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk refuses while the node clears up has no say in how the job ended."""
    removes = Workspace.remove

    def refuses(self: Workspace, directory: object) -> None:
        removes(self, directory)  # type: ignore[arg-type]  # passed on
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Workspace, "remove", refuses)
    report = await run(agent, "echo x")
    assert (report.outcome, report.exit_code) == (Outcome.EXITED, 0)
    assert report.attempt == AttemptId("job", 1)
