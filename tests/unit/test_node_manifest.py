"""The manifest of a result: what it states about the attempt."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, cast

from raygrid.core.sandbox_state import NO_SANDBOX, SandboxState
from raygrid.models import AttemptId, AttemptReport, BlobSlice, JobSpec, Outcome
from raygrid.node.attempt.directory import JobDirectory
from raygrid.node.attempt.jobs_directory import JobsDirectory
from raygrid.node.attempt.result_zip import build_zip
from raygrid.node.attempt.stages import CollectedAttempt, JudgedAttempt, PreparedAttempt
from raygrid.node.attempt.usage import Usage
from raygrid.node.limits.running import Running
from raygrid.node.sandbox.no_sandbox import NoSandbox
from raygrid.settings.pricer import Pricer


def manifest(sandbox: SandboxState = NO_SANDBOX) -> dict[str, Any]:
    """The manifest of an attempt that left no files; these are neither read nor written."""
    attempt = AttemptId("j", 1)
    spec = JobSpec("j", "p", "1", BlobSlice("", 0, 0, ""))
    directory, running = cast(JobDirectory, None), cast(Running, None)
    report = AttemptReport(attempt, Outcome.EXITED, exit_code=0)
    box = NoSandbox(JobsDirectory(Path("/"), Path("/j"), Path("/t")))
    box.state = sandbox
    judged = JudgedAttempt(
        PreparedAttempt(attempt, spec, Pricer(command=("true",)), 0, directory, box),
        running,
        Usage(0.0, 0.0, None),
        report,
    )
    made = build_zip(CollectedAttempt(judged, report, (), ()), "n1")
    assert made.data is not None
    found: dict[str, Any] = json.loads(zipfile.ZipFile(io.BytesIO(made.data)).read("manifest.json"))
    return found


def test_a_manifest_states_what_kept_the_attempt_from_harm() -> None:
    """Mode, active mechanisms and what stays open; of the attempt, not of the node."""
    sandbox = SandboxState("strict", ("landlock", "seccomp"), ("The network can be reached.",))
    assert manifest(sandbox=sandbox)["sandbox"] == {
        "mode": "strict",
        "active": ["landlock", "seccomp"],
        "open": ["The network can be reached."],
    }


def test_a_manifest_without_a_sandbox_states_that() -> None:
    """A reader need not guess whether the field is missing or the sandbox was off."""
    assert manifest()["sandbox"] == {"mode": "off", "active": [], "open": [*NO_SANDBOX.open]}
    assert NO_SANDBOX.open == ("there is no sandbox: programs can do what the grid's user can",)
