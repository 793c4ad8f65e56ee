"""The settings of a pricer: what runs for a job, and its limits."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from raygrid.settings import commands, expected_files, shell_words
from raygrid.settings.helper_programs import HelperPrograms
from raygrid.settings.values import PlaceOnNodes, ReuseMode, SandboxMode, Seconds, Section, Size

MOST_ENV = 1024**2


def _size_of(name: str, value: str) -> int:
    return len(os.fsencode(f"{name}={value}"))


class Straggler(Section):
    """When a job that takes far longer than others of its pricer gets a second attempt on another node."""

    factor: float = Field(default=3.0, ge=1.0, allow_inf_nan=False)
    """A job is late when it has run for this many times the median run time of its pricer's latest jobs."""
    min_s: Seconds = 10.0
    """A job is not late before it has run for this long, seconds."""


class Pricer(Section):
    """An executable that prices one input file.

    Placeholders of `command`: `{input}` (path of the input file), `{output_dir}` (the job directory, also the working
    directory), `{data_dir}` (directory of shared inputs), `{job_id}`, and `{args}`, which stands for all arguments of
    the submit. The command of a warm pricer has none of them: it reads each job from its stdin.
    """

    command: Annotated[tuple[str, ...], NoDecode]  # a variable may hold it as a shell's line or as JSON
    """The program and its arguments, as a list or as one line, which is split as by a shell; no shell runs it.

    Placeholders: `{input}`, `{output_dir}`, `{data_dir}`, `{job_id}`, and `{args}` as a separate word. Give absolute
    paths: the command runs in the job directory. A placeholder is refused in code that a shell or an interpreter runs,
    because clients choose file names: instead of `sh -c 'wc -l {input}'` write `[sh, -c, 'wc -l "$1"', sh, "{input}"]`.
    """
    mode: Literal["cold", "warm"] = "cold"
    """`cold`: the program starts for every job. `warm`: it stays loaded and reads job after job from its stdin."""
    recycle_after: int | None = Field(default=None, ge=1)
    """Warm pricers only: the process is replaced after this many jobs; by default never."""
    recycle_memory: Size | None = None
    """Warm pricers only: the process is replaced between jobs if it uses more memory than this; by default never."""
    version: str = Field(default="1", max_length=128)
    """Version of the program, recorded with every job. Raise it with every change of the program."""
    env: dict[str, str] = Field(default={}, repr=False)
    """Environment variables, in addition to `PATH`, `HOME`, `LANG` and similar ones.

    The grid itself sets `RAYGRID_JOB_ID`, `RAYGRID_SLOT` and, unless they are set here, `TMPDIR`, `TMP` and `TEMP`.
    """
    result: Literal["zip", "stdout"] = "zip"
    """Answer of `POST /submit/{jobId}`: `zip` for the whole result, `stdout` for the pricer's standard output."""
    timeout_s: Seconds = 3600.0
    """Wall-time limit of one attempt, seconds; a submit may set another."""
    memory: Size | None = None
    """Memory limit of all processes of an attempt; above it the job fails with reason `memory_limit`. By default none.

    It includes processes that left the process tree, and files in memory (`memfd`, `/dev/shm`).
    """
    processes: int | None = Field(default=None, ge=1)
    """Limit of an attempt's processes and threads together; above it the job fails with reason `process_limit`.

    By default 1,024, or 64 for each of the node's processors if that is more.
    """
    output: Size = 1024**3
    """Limit of the disk space that an attempt uses for files, and of the size of its result.

    Files outside of its directories count by their growth, as far as they are noticed while they are open.
    """
    retry_exit_codes: frozenset[int] = frozenset()
    """Exit codes after which the job runs again instead of failing."""
    straggler: Straggler | None = None
    """When a late job gets a second attempt on another node; by default never.

    Only for pricers that may process one job twice at the same time.
    """
    reuse: ReuseMode = "off"
    """`content`: a job that equals one that is done takes over its stored result and does not run.

    Equal: the same input under the same file name, args and shared data, and the same `version`, `command` and `env` of
    the pricer. Only for pricers whose result depends on nothing else: no clock, no random numbers, no database.
    """
    reuse_across_owners: bool = False
    """With `reuse: content`: whether jobs also take over results of other owners' jobs.

    Then the manifest in a result does not tell its jobId, owner and node.
    """
    expect: tuple[str, ...] = ()
    """Files that the pricer must leave, such as `[prices.csv, "out/*.csv"]`.

    If the pricer exits with 0 and one of them is missing or empty, the job fails with reason `missing_output`. `*`, `?`
    and `[]` work as in a shell, within one directory.
    """
    helpers: HelperPrograms = None
    """Programs that may outlive the job that started them, to serve later jobs (wine's server, an ssh master).

    By default any program; a list of file names or paths allows only these; `forbid` allows none. `[wineserver64]`
    includes all programs of wine.
    """
    sandbox: SandboxMode | None = None
    """What keeps this pricer from harming the grid and the machine; by default the grid's `sandbox`."""
    sandbox_required: bool | None = None
    """Whether a job fails if its node lacks a mechanism of its sandbox; by default the grid's `sandbox_required`."""
    sandbox_user: str | None = Field(default=None, min_length=1)
    """A user as which this pricer runs in its sandbox; by default the grid's `sandbox_user`."""
    read: tuple[PlaceOnNodes, ...] = ()
    """`strict` only: files and directories that the pricer may also read, such as `[/opt/market, ~/models]`.

    Paths are absolute, or begin with `~/` for the home directory of the grid's user on each node.
    """
    write: tuple[PlaceOnNodes, ...] = ()
    """`strict` only: files and directories that the pricer may also read and write; paths as in `read`."""
    network: bool = False
    """`strict` only: whether the pricer may use the network. Under `protect` it always may."""

    @field_validator("command", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            with contextlib.suppress(ValueError):
                return json.loads(value)
        return shell_words.split(value)

    @field_validator("command")
    @classmethod
    def _known_placeholders(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if (problem := commands.command_problem(command)) is not None:
            raise ValueError(problem)
        return command

    @field_validator("version")
    @classmethod
    def _storable(cls, version: str) -> str:
        if not version.isprintable():
            raise ValueError("a version must consist of printable characters: no NUL, no line breaks")
        return version

    @field_validator("expect")
    @classmethod
    def _can_be_expected(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) > expected_files.MOST_NAMES:
            raise ValueError(f"expect has more than {expected_files.MOST_NAMES} names; name fewer, or use a pattern")
        for name in names:
            if (problem := expected_files.name_problem(name)) is not None:
                raise ValueError(problem)
        return names

    @field_validator("env")
    @classmethod
    def _can_be_passed(cls, env: dict[str, str]) -> dict[str, str]:
        # Values may be secrets, so they are not shown.
        for name, value in env.items():
            if not name or "=" in name or "\0" in name:
                raise ValueError(f"{name[:80]!r} cannot be the name of a variable: it is empty or contains '=' or NUL")
            if "\0" in value:
                raise ValueError(f"the value of {name[:80]!r} contains a NUL, which a variable cannot have")
            if (size := _size_of(name, value)) > commands.MOST_TEXT:
                raise ValueError(f"{name[:80]!r} has {size} bytes; a variable can have at most {commands.MOST_TEXT}")
        if (size := sum(_size_of(name, value) + 1 for name, value in env.items())) > MOST_ENV:
            raise ValueError(f"all variables together have {size} bytes, more than {MOST_ENV}; put them into a file")
        return env

    @model_validator(mode="after")
    def _suits_its_mode(self) -> Self:
        if self.mode == "cold":
            if self.recycle_after is not None or self.recycle_memory is not None:
                raise ValueError(
                    "recycle_after and recycle_memory apply to warm pricers only: add mode: warm or remove them"
                )
            return self
        for word in self.command:
            for placeholder in commands.placeholders(word):
                raise ValueError(
                    f"a warm pricer starts before there is a job, so its command cannot have {{{placeholder}}}: write "
                    "only the program and its own options; it reads each job from its stdin (see "
                    "docs/guides/warm-pricers.md)"
                )
        if self.memory is not None and self.recycle_memory is not None and self.recycle_memory > self.memory:
            raise ValueError(
                "recycle_memory is above memory, the limit at which a job is killed; set it below, so that the process "
                "is replaced between jobs"
            )
        return self

    @model_validator(mode="after")
    def _reusable(self) -> Self:
        if self.reuse == "content" and any("job_id" in commands.placeholders(word) for word in self.command):
            raise ValueError("reuse: content needs results that do not depend on the job; remove {job_id} from command")
        return self

    @property
    def sandbox_mode(self) -> SandboxMode:
        """The sandbox in which it runs; settings of a grid have decided it, a pricer alone has the default."""
        return self.sandbox or "protect"

    @property
    def takes_args(self) -> bool:
        """Whether a submit may have arguments."""
        return self.mode == "warm" or "{args}" in self.command
