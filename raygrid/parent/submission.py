"""Reads and checks the options of a submit, and makes a job of them and the input."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raygrid.core.access import Caller
from raygrid.errors import ForbiddenError, InvalidRequestError, UnknownDataError, UnknownPricerError, UnknownSiteError
from raygrid.models import JobSpec, NewJob, SharedData
from raygrid.parent.http.forms import ReceivedFile
from raygrid.settings.model import GridSettings
from raygrid.settings.pricer import Pricer

JOB_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
MOST_ID = 128
ID_PATTERN = r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$"
"""What `checked_id` accepts, with at most `MOST_ID` characters, for the OpenAPI description."""
MOST_ARGS = 256
MOST_ARGS_BYTES = 64 * 1024
MOST_KEY = 256
MOST_DATA = 64
PRIORITIES = range(-1_000_000, 1_000_001)
MOST_TIMEOUT_S = 31 * 24 * 3600.0

OPTIONS = frozenset({"pricer", "args", "priority", "affinity", "site", "timeout_s", "data"})


def checked_id(value: str, what: str = "jobId") -> str:
    """An id that a client chose, unchanged.

    Raises:
        InvalidRequestError: it is not an id; names what is allowed.
    """
    if JOB_ID.fullmatch(value) is None or not value.strip("."):
        raise InvalidRequestError(
            f"{value[:140]!r} is not a {what}: use 1 to 128 letters, digits, '.', '_' or '-', and not only dots"
        )
    return value


@dataclass(frozen=True, slots=True)
class SubmissionOptions:
    """How to run a job: the options that the client set."""

    pricer: str | None = None
    args: tuple[str, ...] = ()
    priority: int = 0
    affinity: str | None = None
    site: str | None = None
    timeout_s: float | None = None
    data: tuple[str, ...] = ()


def options_of_form(fields: Mapping[str, Sequence[str]], also: frozenset[str] = frozenset()) -> SubmissionOptions:
    """Read the options of a form, all of them optional.

    Raises:
        InvalidRequestError: an option is unknown, given twice or invalid; names it.
    """
    unknown = fields.keys() - OPTIONS - also
    if unknown:
        known = ", ".join(sorted(OPTIONS | also))
        raise InvalidRequestError(
            f"unknown option {sorted(unknown)[0]!r}; known are {known}, and files need a filename"
        )
    single = {}
    for name in ("pricer", "priority", "affinity", "site", "timeout_s"):
        values = fields.get(name, ())
        if len(values) > 1:
            raise InvalidRequestError(f"the option {name!r} is given {len(values)} times; give it once")
        if values and values[0] != "":
            single[name] = values[0]
    return options_of_json({**single, "args": list(fields.get("args", ())), "data": list(fields.get("data", ()))})


def options_of_json(values: Mapping[str, Any], base: SubmissionOptions = SubmissionOptions()) -> SubmissionOptions:
    """Read options from plain values (texts of a form, or JSON), over those of `base`."""
    unknown = values.keys() - OPTIONS
    if unknown:
        raise InvalidRequestError(f"unknown option {sorted(unknown)[0]!r}; known are {', '.join(sorted(OPTIONS))}")
    changes: dict[str, Any] = {}
    for name in ("pricer", "affinity", "site"):
        if values.get(name) is not None:
            changes[name] = _text(name, values[name])
    if values.get("priority") is not None:
        changes["priority"] = _priority(values["priority"])
    if values.get("timeout_s") is not None:
        changes["timeout_s"] = _timeout(values["timeout_s"])
    if values.get("args") is not None:
        changes["args"] = _texts("args", values["args"], MOST_ARGS)
        if sum(len(arg.encode()) for arg in changes["args"]) > MOST_ARGS_BYTES:
            raise InvalidRequestError(f"args are longer than {MOST_ARGS_BYTES} bytes together; put them into the input")
    if values.get("data") is not None:
        changes["data"] = _texts("data", values["data"], MOST_DATA)
    return replace(base, **changes)


def _text(name: str, value: Any) -> str:
    if not _is_text(value) or not 0 < len(value) <= MOST_KEY:
        raise InvalidRequestError(f"{name} must be a text of 1 to {MOST_KEY} characters without NUL")
    assert isinstance(value, str)
    return value


def _is_text(value: Any) -> bool:
    """Whether a value is a text that can be stored and passed on: without NUL and single surrogates."""
    if not isinstance(value, str) or "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _texts(name: str, value: Any, most: int) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(_is_text(each) for each in value):
        raise InvalidRequestError(f"{name} must be a list of texts without NUL")
    if len(value) > most:
        raise InvalidRequestError(f"{name} has {len(value)} entries; at most {most} are allowed")
    return tuple(value)


def _priority(value: Any) -> int:
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or number not in PRIORITIES:
        raise InvalidRequestError(
            f"priority must be a whole number from {PRIORITIES[0]} to {PRIORITIES[-1]}, not {str(value)[:40]!r}"
        )
    return number


def _timeout(value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number <= MOST_TIMEOUT_S:
        raise InvalidRequestError(
            f"timeout_s must be a number of seconds above 0 and at most {MOST_TIMEOUT_S:g}, not {str(value)[:40]!r}"
        )
    return number


def pricer_for(settings: GridSettings, name: str | None) -> tuple[str, Pricer]:
    """The pricer of a submit: the named one, or the default.

    Raises:
        UnknownPricerError: there is no pricer of that name; or none is named and there is no default.
    """
    chosen = name or settings.chosen_default_pricer
    pricer = settings.pricers.get(chosen) if chosen is not None else None
    if chosen is not None and pricer is not None:
        return chosen, pricer
    known = ", ".join(sorted(settings.pricers)) or "none"
    if chosen is None:
        raise UnknownPricerError(f"name a pricer: the grid has {known}")
    raise UnknownPricerError(f"there is no pricer {chosen!r}; the grid has {known}")


def make_job(
    settings: GridSettings,
    definition: Callable[[str], str],
    caller: Caller,
    job_id: str,
    file: ReceivedFile,
    options: SubmissionOptions,
    data: Mapping[str, SharedData],
) -> NewJob:
    """The job for a file and its options; its group is chosen later.

    `definition` gives the digest of a pricer's definition, which is pinned to the job; `data` has the stored shared
    data that the options may name.

    Raises:
        ForbiddenError: the caller may not use the pricer.
        InvalidRequestError: the file is empty, or the pricer takes no args.
        UnknownPricerError: see `pricer_for`.
        UnknownDataError: an option names shared data that was never stored.
        UnknownSiteError: an option names an unknown site, which may be a typing error. If no group has a site, sites
            are ignored.
    """
    name, pricer = pricer_for(settings, options.pricer)
    if not caller.may_use(name):
        allowed = ", ".join(sorted(caller.pricers or ())) or "none"
        raise ForbiddenError(f"job {job_id}: the key {caller.key} may use {allowed}, not the pricer {name!r}")
    if file.blob.size == 0:
        raise InvalidRequestError(f"job {job_id}: the file {file.filename!r} is empty")
    if options.args and not pricer.takes_args:
        raise InvalidRequestError(f"job {job_id}: pricer {name!r} takes no args (its command has no {{args}})")
    if options.site is not None and (sites := settings.known_sites) and options.site not in sites:
        raise UnknownSiteError(
            f"job {job_id}: no group is at a site {options.site!r}; the sites are {', '.join(sorted(sites))}"
        )
    missing = [each for each in options.data if each not in data]
    if missing:
        raise UnknownDataError(
            f"job {job_id}: there is no shared data {missing[0]!r}; store it with PUT /data/{missing[0]}"
        )
    shared = tuple(data[each] for each in dict.fromkeys(options.data))
    identity = [file.blob.digest, name, options.args, [(each.name, each.digest) for each in shared]]
    spec = JobSpec(
        job_id=job_id,
        pricer=name,
        version=pricer.version,
        input=file.blob,
        filename=file.filename,
        args=options.args,
        priority=options.priority,
        timeout_s=options.timeout_s,
        inline=file.inline,
        data=shared,
        definition=definition(name),
        owner=caller.owner,
    )
    fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    unowned = caller.owns("")
    return NewJob(spec, "", fingerprint, options.affinity, options.site, may_join_unowned=unowned)
