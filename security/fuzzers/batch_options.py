"""Options of a batch: the field `jobs` (JSON) before the first NUL, and options of the form, `NAME=VALUE`, after it."""

from __future__ import annotations

import json
from typing import Any

from raygrid.core.access import LOCAL
from raygrid.errors import RaygridError
from raygrid.models import BlobSlice
from raygrid.parent.http.batch_routes import overrides_of
from raygrid.parent.http.forms import ReceivedFile, ReceivedForm
from raygrid.parent.submission import checked_id, make_job, options_of_form, options_of_json
from raygrid.settings.model import GridSettings
from security.fuzzers.target import Target

SETTINGS = GridSettings.model_validate({"pricers": {"p": {"command": ["p", "{input}", "{args}"]}}})
MOST_FILES = 20


def _names(text: str) -> list[str]:
    """The jobs that the field names, so that inputs get beyond the check that each has a file."""
    try:
        parsed: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ["a"]
    return [*parsed][:MOST_FILES] if isinstance(parsed, dict) else ["a"]


def read(data: bytes) -> None:
    """Make the jobs of a batch."""
    jobs, *fields = data.decode(errors="replace").split("\0")
    form = ReceivedForm()
    form.files = [ReceivedFile(name, "in", BlobSlice("", 0, 1, "0"), b"x") for name in _names(jobs)]
    for each in fields:
        name, _, value = each.partition("=")
        form.options.setdefault(name, []).append(value)
    if jobs:
        form.options["jobs"] = [jobs]
    overrides = overrides_of(form)
    defaults = options_of_form(form.options)
    for file in form.files:
        job_id = checked_id(file.part)
        options = options_of_json(overrides.get(job_id, {}), defaults)
        job = make_job(SETTINGS, lambda _name: "d", LOCAL, job_id, file, options, {})
        for text in (*job.spec.args, job.affinity, job.site):
            assert text is None or "\0" not in text, "a database cannot store this text"
            (text or "").encode()


TARGET = Target(read, (RaygridError,))
