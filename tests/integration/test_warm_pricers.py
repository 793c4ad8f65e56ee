"""Warm pricers on a node agent: start-up is paid once, and whatever goes wrong costs the job at hand only."""

from __future__ import annotations

from pathlib import Path

from raygrid.models import Outcome
from tests.support.warm import RUNS_ITS_INPUT, WarmNode


async def test_start_up_is_paid_once(tmp_path: Path) -> None:
    """Twenty jobs in one slot are run by one process, each with its own files and output, and the manifest says so."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        script = "print('out', job.job_id); print('err', file=sys.stderr); open('prices.csv', 'w').write(job.job_id)"
        node.start(*((f"job-{number}", script) for number in range(20)))
        for number in range(20):
            done = await node.done(f"job-{number}")
            assert (done.report.outcome, done.report.exit_code) == (Outcome.EXITED, 0), done.stderr
            assert (done.stdout, done.stderr) == (f"out job-{number}\n", "err\n")
            assert done.files["prices.csv"] == f"job-{number}"
            assert (done.manifest["warm"], done.manifest["warm_job"]) == (True, number + 1)
        assert node.started == 1
    assert node.pids == []
