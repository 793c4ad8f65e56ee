"""Converts jobs between values and rows of the `jobs` table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from raygrid.core.attempt_counts import AttemptCounts
from raygrid.errors import InvalidRequestError
from raygrid.models import BlobSlice, JobSpec, JobState, JobUpdate, NewJob, QueuedJob, SharedData, StoredJob
from raygrid.store.tables import jobs


def no_such_cursor(after: str, what: str) -> InvalidRequestError:
    """The error of a listing whose cursor does not exist."""
    return InvalidRequestError(f"the cursor {after!r} is not a {what}; start again without a cursor")


HIDDEN = "*"  # `reused_from` of a job that reuses the result of another owner's job
UNLED = "cancelled while its group had no leader"  # the message of a job that `cancel_unled` ended

_STATES = {state.value: state for state in JobState}

# Without the inline input, which only leaders need, and the digests of chunks, which only large results need.
JOB_COLUMNS = [column for column in jobs.c if column.name not in ("inline", "result_chunks")]

# The columns that a leader needs.
HELD_COLUMNS = [
    jobs.c[name]
    for name in (
        *("job_id", "pricer", "version", "input_key", "input_offset", "input_size", "input_digest", "filename", "args"),
        *("priority", "timeout_s", "inline", "data", "attempts", "node_id", "state", "cancel_requested", "failures"),
        *("losses", "recalled", "unstarted", "definition", "owner"),
    )
]


def new_row(job: NewJob, revision: int, now: datetime) -> dict[str, Any]:
    """Make the row of a submitted job."""
    spec = job.spec
    return {
        "job_id": spec.job_id,
        "seq": revision,
        "revision": revision,
        "group_id": job.group_id,
        "state": JobState.QUEUED.value,
        "cancel_requested": False,
        "fingerprint": job.fingerprint,
        "pricer": spec.pricer,
        "version": spec.version,
        "args": json.dumps(spec.args) if spec.args else "[]",
        "priority": spec.priority,
        "affinity": job.affinity,
        "site": job.site,
        "timeout_s": spec.timeout_s,
        "filename": spec.filename,
        "data": json.dumps(spec.data) if spec.data else "[]",
        "input_key": spec.input.key,
        "input_offset": spec.input.offset,
        "input_size": spec.input.size,
        "input_digest": spec.input.digest,
        "inline": spec.inline,
        "attempts": 0,
        "failures": 0,
        "losses": 0,
        "recalled": 0,
        "unstarted": 0,
        "submitted_at": now,
        "definition": spec.definition or None,
        "owner": spec.owner,
    }


def reused_row(job: NewJob, source: Mapping[Any, Any], revision: int, now: datetime) -> dict[str, Any]:
    """Make the row of a submitted job that reuses the result of another job."""
    return {
        **new_row(job, revision, now),
        "state": JobState.DONE.value,
        "inline": None,  # the job will not run
        "content": source["content"],
        "reused_from": (source["reused_from"] or source["job_id"]) if source["owner"] == job.spec.owner else HIDDEN,
        "exit_code": source["exit_code"],
        "result_key": source["result_key"],
        "result_offset": source["result_offset"],
        "result_size": source["result_size"],
        "result_digest": source["result_digest"],
        "result_chunks": source["result_chunks"],
        "ended_at": now,
    }


def storable_text(value: str | None) -> str | None:
    """Replace what databases cannot store: NUL (PostgreSQL) and single surrogates."""
    if value is None:
        return None
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def update_values(update: JobUpdate, revision: int) -> dict[str, Any]:
    """Make the bind values (prefixed `new_`) of the statement that writes a leader's update."""
    report = update.report
    result = report.result if report else None
    started_at = report.started_at if report else None
    if update.state is JobState.RUNNING:
        started_at = update.at
    return {
        "the_job": update.job_id,
        "new_state": update.state.value,
        "new_attempts": update.counts.started,
        "new_failures": update.counts.failures,
        "new_losses": update.counts.losses,
        "new_recalled": update.counts.recalled,
        "new_unstarted": update.counts.unstarted,
        "new_node_id": update.node_id,
        "new_reason": update.reason,
        "new_message": storable_text(update.message),
        "new_exit_code": report.exit_code if report else None,
        "new_signal": report.signal if report else None,
        "new_stderr_tail": storable_text(report.stderr_tail) if report else None,
        "new_result_key": result.key if result else None,
        "new_result_offset": result.offset if result else None,
        "new_result_size": result.size if result else None,
        "new_result_digest": result.digest if result else None,
        "new_result_chunks": report.chunks if report else None,
        "new_started_at": started_at,
        "new_ended_at": update.at if update.state.is_terminal else None,
        "new_revision": revision,
        "new_content": reusable_content(update),
    }


def reusable_content(update: JobUpdate) -> str | None:
    """The content key under which a job's result can be reused; None unless the job succeeded."""
    report = update.report
    if update.state is not JobState.DONE or report is None or report.result is None or report.exit_code != 0:
        return None
    return report.content


def _args(text: str) -> tuple[str, ...]:
    return () if text == "[]" else tuple(json.loads(text))


def _shared(text: str) -> tuple[SharedData, ...]:
    return () if text == "[]" else tuple(SharedData(*entry) for entry in json.loads(text))


def job(row: Sequence[Any]) -> StoredJob:
    """Read a job from a row of `JOB_COLUMNS`, by position for speed: pages have thousands of rows."""
    (
        job_id,
        _seq,
        revision,
        group_id,
        state,
        cancel_requested,
        fingerprint,
        pricer,
        version,
        args,
        priority,
        affinity,
        site,
        timeout_s,
        filename,
        data,
        input_key,
        input_offset,
        input_size,
        input_digest,
        attempts,
        _failures,
        _losses,
        _recalled,
        unstarted,
        node_id,
        reason,
        message,
        exit_code,
        signal,
        stderr_tail,
        result_key,
        result_offset,
        result_size,
        result_digest,
        submitted_at,
        started_at,
        ended_at,
        purged_at,
        _content,
        reused_from,
        definition,
        owner,
        cancelled_by,
    ) = row
    return StoredJob(
        job_id,
        fingerprint,
        pricer,
        version,
        _args(args),
        priority,
        affinity,
        site,
        timeout_s,
        filename,
        BlobSlice(input_key, input_offset, input_size, input_digest),
        _shared(data),
        group_id,
        _STATES[state],
        attempts - unstarted,
        node_id,
        reason,
        message,
        exit_code,
        signal,
        stderr_tail,
        None if result_key is None else BlobSlice(result_key, result_offset, result_size, result_digest),
        cancel_requested,
        revision,
        submitted_at,
        started_at,
        ended_at,
        purged_at,
        reused_from,
        definition or "",
        owner,
        cancelled_by,
    )


def queued_job(row: Sequence[Any]) -> QueuedJob:
    """Read an unfinished job, as its leader needs it, from a row of `HELD_COLUMNS`, by position."""
    (
        job_id,
        pricer,
        version,
        input_key,
        input_offset,
        input_size,
        input_digest,
        filename,
        args,
        priority,
        timeout_s,
        inline,
        data,
        attempts,
        node_id,
        state,
        cancel_requested,
        failures,
        losses,
        recalled,
        unstarted,
        definition,
        owner,
    ) = row
    return QueuedJob(
        JobSpec(
            job_id,
            pricer,
            version,
            BlobSlice(input_key, input_offset, input_size, input_digest),
            filename,
            _args(args),
            priority,
            timeout_s,
            inline,
            _shared(data),
            definition or "",
            owner,
        ),
        AttemptCounts(attempts, failures, losses, recalled, unstarted),
        node_id,
        state == JobState.RUNNING.value,
        cancel_requested,
    )
