"""All settings of a grid in one validated model, from `grid.yaml` and `RAYGRID__…` environment variables.

Every field has a default, so no file is needed. The environment wins over the file: `RAYGRID__HTTP__PORT=9000`
sets `http.port`. `grid.yaml` at the project's root shows every field with a comment.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableVariableError

from raygrid.errors import SettingsError
from raygrid.settings import commands, expected_files, messages, shell_words
from raygrid.settings.helper_programs import HelperPrograms
from raygrid.settings.sources import PREFIX, NamesAreText, Variables
from raygrid.system.home import expanded

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?)(?:i?b)?", re.IGNORECASE)
_SECRET_OPTION = re.compile(
    r"secret|password|access_key|account_key|service_account_key|customer_key|sas|token(?!_file)"
)
MOST_ENV = 1024**2

_KEY = re.compile(r"[!-~]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _bytes(value: object) -> object:
    """Read `64MB`, `10 GiB` or a plain number of bytes; powers of 1024."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size; write for instance 64MB or 1048576")
    return int(float(match["number"]) * _UNITS[match["unit"].lower()])


def _name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a name; use up to 64 letters, digits, '.', '_' or '-'")
    return value


def _size_of(name: str, value: str) -> int:
    return len(os.fsencode(f"{name}={value}"))


Size = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]
Name = Annotated[str, AfterValidator(_name)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of all parts of the settings: unknown fields are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Straggler(Section):
    """When a job that takes far longer than others of its pricer gets a second attempt on another node."""

    factor: float = Field(default=3.0, ge=1.0, allow_inf_nan=False)
    """A job is late once it has run for this many times the median of its pricer's latest jobs."""
    min_s: Seconds = 10.0
    """A job that has run for less than this is never late, seconds."""


class Pricer(Section):
    """An executable that prices one input file.

    Placeholders of `command`: `{input}` (path of the input file), `{output_dir}` (the job directory, also the working
    directory), `{data_dir}` (where shared inputs lie), `{job_id}`, and `{args}`, which stands for all arguments of the
    submit. The command of a warm pricer has none of them: it reads each job from its stdin.
    """

    command: Annotated[tuple[str, ...], NoDecode]  # a variable may hold it as a shell's line or as JSON
    """The program and its arguments, as one line or as a list; a line is split like a shell would, never run by one.

    Placeholders: `{input}`, `{output_dir}`, `{data_dir}`, `{job_id}`, and `{args}` alone as a word. Give absolute
    paths: the command runs in the job directory. A placeholder cannot stand in code that a shell or an interpreter
    runs, since clients choose the names of files: instead of `sh -c 'wc -l {input}'` write
    `[sh, -c, 'wc -l "$1"', sh, "{input}"]`.
    """
    mode: Literal["cold", "warm"] = "cold"
    """`cold`: the program is started for every job. `warm`: it stays loaded and takes job after job on its stdin."""
    recycle_after: int | None = Field(default=None, ge=1)
    """Warm pricers only: the process is replaced after this many jobs; by default never."""
    recycle_memory: Size | None = None
    """Warm pricers only: the process is replaced between jobs once it is larger than this."""
    version: str = Field(default="1", max_length=128)
    """Recorded with every job. Raise it with every change of the program."""
    env: dict[str, str] = Field(default={}, repr=False)
    """Environment variables on top of `PATH`, `HOME`, `LANG` and the like.

    The grid itself sets `RAYGRID_JOB_ID`, `RAYGRID_SLOT` and, unless they are set here, `TMPDIR`, `TMP` and `TEMP`.
    """
    result: Literal["zip", "stdout"] = "zip"
    """What `POST /submit/{jobId}` answers with: the whole result, or only what the pricer printed."""
    timeout_s: Seconds = 3600.0
    """Wall-time limit of one attempt, seconds; a submit may ask for another."""
    memory: Size | None = None
    """Memory limit of the whole process tree; the job fails as `memory_limit` above it."""
    output: Size = 1024**3
    """Limit of everything that an attempt writes, in blocks on the disk; of a result, in bytes."""
    retry_exit_codes: frozenset[int] = frozenset()
    """Exit codes that mean "run the job again" instead of "the job failed"."""
    straggler: Straggler | None = None
    """When a job that takes far too long gets a second attempt on another node; by default never.

    Only for pricers that may run twice at once.
    """
    reuse: Literal["off", "content"] = "off"
    """`content`: a job that is equal to one that is done takes over its stored result and does not run.

    Equal: the same input under the same file name, args and shared data, and the same `version`, `command` and `env` of
    the pricer. Only for pricers whose result depends on nothing else: no clock, no random numbers, no database.
    """
    expect: tuple[str, ...] = ()
    """Files that the pricer must leave, such as `[prices.csv, "out/*.csv"]`.

    Exit code 0 without one of them, or with an empty one, fails the job as `missing_output`. `*`, `?` and `[]` work as
    in a shell, within one directory.
    """
    helpers: HelperPrograms = None
    """Programs that may outlive the job that started them, to serve later jobs (wine's server, an ssh master).

    By default any; a list of file names or paths allows only these; `forbid` allows none. `[wineserver64]` stands for
    all of wine.
    """

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
        if (problem := commands.problem_of(command)) is not None:
            raise ValueError(problem)
        return command

    @field_validator("version")
    @classmethod
    def _storable(cls, version: str) -> str:
        if not version.isprintable():
            raise ValueError("a version must be printable characters only: no NUL, no line breaks")
        return version

    @field_validator("expect")
    @classmethod
    def _can_be_expected(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) > expected_files.MOST_NAMES:
            raise ValueError(f"more than {expected_files.MOST_NAMES} files are expected; name a few, or use a pattern")
        for name in names:
            if (problem := expected_files.problem_of(name)) is not None:
                raise ValueError(problem)
        return names

    @field_validator("env")
    @classmethod
    def _can_be_passed(cls, env: dict[str, str]) -> dict[str, str]:
        # Values may be secrets, so they are not shown.
        for name, value in env.items():
            if not name or "=" in name or "\0" in name:
                raise ValueError(
                    f"{name[:80]!r} cannot be the name of a variable: it is empty, or has '=' or NUL in it"
                )
            if "\0" in value:
                raise ValueError(f"the value of {name[:80]!r} has a NUL in it, which no variable can have")
            if (size := _size_of(name, value)) > commands.MOST_TEXT:
                raise ValueError(
                    f"{name[:80]!r} has {size} bytes, more than the {commands.MOST_TEXT} that a variable can have"
                )
        if (size := sum(_size_of(name, value) + 1 for name, value in env.items())) > MOST_ENV:
            raise ValueError(f"all variables together have {size} bytes, more than {MOST_ENV}; put them into a file")
        return env

    @model_validator(mode="after")
    def _suits_its_mode(self) -> Self:
        if self.mode == "cold":
            if self.recycle_after is not None or self.recycle_memory is not None:
                raise ValueError(
                    "recycle_after and recycle_memory are for pricers that stay loaded: add mode: warm or drop them"
                )
            return self
        for word in self.command:
            for placeholder in commands.placeholders(word):
                raise ValueError(
                    f"a warm pricer is started before there is a job, so its command cannot have "
                    f"{{{placeholder}}}: write the program and its own options only; it is told of each job on "
                    "its stdin (see docs/guides/warm-pricers.md)"
                )
        if self.memory is not None and self.recycle_memory is not None and self.recycle_memory > self.memory:
            raise ValueError(
                "recycle_memory is above memory, at which a job is killed; set it below, so that the process is "
                "replaced between jobs"
            )
        return self

    @model_validator(mode="after")
    def _reusable(self) -> Self:
        if self.reuse == "content" and any("job_id" in commands.placeholders(word) for word in self.command):
            raise ValueError(
                "reuse: content is for results that do not depend on the job; take {job_id} out of command"
            )
        return self

    @property
    def takes_args(self) -> bool:
        """Whether a submit may bring arguments."""
        return self.mode == "warm" or "{args}" in self.command


class ApiKey(Section):
    """A key that clients send as `Authorization: Bearer …`; the name says whose it is."""

    name: Name
    """Whose key it is; shown in place of the key."""
    key: SecretStr
    """The key: at least 16 printable ASCII characters without spaces. Make one with `openssl rand -hex 24`."""

    @field_validator("key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr) -> SecretStr:
        if len(key.get_secret_value()) < 16:
            raise ValueError("an API key needs at least 16 characters; make one with: openssl rand -hex 24")
        if _KEY.fullmatch(key.get_secret_value()) is None:
            raise ValueError(
                "an API key travels in a header, so it must be printable ASCII without spaces; make one with: "
                "openssl rand -hex 24"
            )
        return key


class Http(Section):
    """Where parents listen and what they accept."""

    host: str = "127.0.0.1"
    """Address on which parents listen; one that other machines can reach needs `api_keys`."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port on which parents listen."""
    parents: int = Field(default=1, ge=1)
    """Number of parents; on a cluster at most one runs on a machine, and any of them answers for any job."""
    api_keys: tuple[ApiKey, ...] = ()
    """Keys that clients may send; with none, every client that reaches the port may use the grid."""
    max_body: Size = 1024**3
    """Largest body of one request."""
    max_batch_jobs: int = Field(default=10_000, ge=1)
    """Most jobs of one `POST /batches`."""
    sync_wait_s: Seconds = 60.0
    """How long a synchronous submit waits unless it asks for another time, seconds."""
    max_wait_s: Seconds = 300.0
    """Longest wait that a request may ask for, seconds."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the parents."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Group(Section):
    """What is known of a group beyond its Ray resource."""

    site: str | None = None
    """Where the group is; submits may name a site."""
    quota: int | None = Field(default=None, ge=1)
    """Most attempts at once in this group; by default as many as it has slots."""


class Routing(Section):
    """How a parent chooses a group."""

    policy: Literal["auto", "least_loaded", "topology", "hash"] = "auto"
    """How a parent chooses a group.

    `least_loaded`; `topology` (nearest site first); `hash` (by affinity); `auto`: `hash` for a submit with an
    affinity, `topology` for one that names a site, else `least_loaded`.
    """
    hash_load_bound: float = Field(default=1.25, ge=1.0, allow_inf_nan=False)
    """With `hash`, a group that is this many times as loaded as the average is passed over."""
    site_distance: dict[str, dict[str, float]] = {}
    """Distances between sites, such as `{tokyo: {osaka: 1, london: 10}}`; each counts both ways."""
    patience_s: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Longest expected wait for a slot at the site that a submit names before a farther site is taken, seconds."""
    max_queued: int = Field(default=200_000, ge=1)
    """Most jobs that wait in one group; beyond it submits get 429."""
    lost_after_s: float = Field(default=2.0, ge=0.5, le=86_400, allow_inf_nan=False)
    """A group is lost this long after its leader's lease ran out, seconds; then other groups take its jobs.

    A group that was not seen at work since the grid or the job store came up gets 30 seconds.
    """


class Placement(Section):
    """How a leader chooses a node, and when it tries again."""

    policy: Literal["least_loaded", "weighted_round_robin"] = "least_loaded"
    """How a leader chooses a node."""
    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    """For `weighted_round_robin`: weight of a node by name, such as `{rack-a-1: 2.0}`, times its slots."""
    prefetch: int = Field(default=1, ge=0)
    """Multiples of about 0.2 s of work that a node is handed beyond its slots where jobs are short; 0: none."""
    max_attempts: int = Field(default=3, ge=1)
    """Attempts that may fail for the grid's reasons before the job fails."""
    window: int = Field(default=8_192, ge=1)
    """Queued jobs that a leader holds in memory; the rest waits in the job store."""
    probation_after: int = Field(default=3, ge=1)
    """Failures in a row after which a node is on probation."""
    probation_s: Seconds = 15.0
    """How long a node stays on probation, seconds."""
    node_timeout_s: Seconds = 4.0
    """Silence after which a node's jobs run elsewhere, seconds; a node whose agent died is lost at once."""


class Node(Section):
    """How a node runs pricers."""

    slots: int | None = Field(default=None, ge=1)
    """Pricers at once on a node; by default the CPUs that affinity and cgroup quota leave."""
    cache: Size = 64 * 1024**2
    """Results kept in the object store of each node for fast reading."""
    data_cache: Size = 4 * 1024**3
    """Local copies of shared inputs on each node."""
    kill_grace_s: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    """Time between SIGTERM and SIGKILL for a pricer, seconds."""
    memory_reserve: Size | None = None
    """Memory kept free on the machine and in its cgroup; by default 5 %, at least 256 MB and at most 4 GB.

    With less left, the pricer that grew most is killed and its job runs again alone.
    """
    helper_linger_s: float = Field(default=3.0, ge=0, allow_inf_nan=False)
    """How long helper processes stay after the last attempt of their pricer, seconds."""
    helper_age_s: Seconds = 3600.0
    """A helper process this old is ended between two attempts, seconds."""


class Storage(Section):
    """Where the truth and the bytes are kept; the defaults lie under `state_dir`."""

    state_dir: Path = Path("~/.raygrid")
    """Directory for the job store, blobs, logs and job directories, unless the next two settings say otherwise."""
    database: str | None = Field(default=None, repr=False)
    """The job store: `postgresql://user:password@host/raygrid` for a cluster, else the path of a SQLite file."""
    blobs: str | None = Field(default=None, repr=False)
    """The blob store: a shared directory, `s3://bucket/prefix`, `gs://…` or `az://…`; the same on every machine."""
    blob_options: dict[str, bool | int | float | str] = {}
    """Options of an object store, such as `{endpoint: "http://minio:9000", region: eu-1, allow_http: true}`.

    Credentials come from the environment of every machine, for S3 as `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    """
    inline: Size = 8 * 1024
    """Inputs up to this size travel with their job instead of through the blob store."""
    retention_days: float = Field(default=7.0, ge=0, allow_inf_nan=False)
    """How long input and result are kept after a job's end, days."""
    purge_every_s: Seconds = 600.0
    """How often expired jobs are removed, seconds."""

    @field_validator("blob_options")
    @classmethod
    def _no_secrets(cls, options: dict[str, bool | int | float | str]) -> dict[str, bool | int | float | str]:
        for name in options:
            if _SECRET_OPTION.search(name.lower()):
                raise ValueError(
                    f"{name!r} is a credential; those come from the environment of every machine, for S3 as "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                )
        return options


@dataclass(frozen=True)
class _ReadFrom:
    path: Path | None = field(default=None, compare=False)  # the same settings from another file are the same


class GridSettings(BaseSettings):
    """The settings of a grid; see `grid.yaml` for every field explained."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    name: Name = "default"
    """Name of the grid; several can run side by side under different names."""
    default_pricer: Name | None = None
    """The pricer for submits that name none; not needed with a single pricer."""
    pricers: dict[Name, Pricer] = {}
    """What jobs may run, by name."""
    group_prefix: str = Field(default="rack-", min_length=1)
    """Ray custom resources with this prefix are groups."""
    groups: dict[str, Group] = {}
    """What is known of groups beyond their Ray resource, by name."""
    http: Http = Http()
    """Where parents listen and what they accept."""
    routing: Routing = Routing()
    """How a parent chooses a group."""
    placement: Placement = Placement()
    """How a leader chooses a node, and when it tries again."""
    node: Node = Node()
    """How a node runs pricers."""
    storage: Storage = Storage()
    """Where jobs, inputs and results are kept."""

    # Set by `deployed` only: neither a file nor a variable can.
    _deployed_at: float = PrivateAttr(default=0.0)
    # Set by `load_settings` for a file that its caller named.
    _read_from: _ReadFrom = PrivateAttr(default=_ReadFrom())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over what the file gave."""
        return Variables(settings_cls), init_settings

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.default_pricer is not None and self.default_pricer not in self.pricers:
            raise ValueError(f"default_pricer {self.default_pricer!r} is not among the pricers")
        names = [key.name for key in self.http.api_keys]
        if len(names) != len(set(names)):
            raise ValueError("two API keys have the same name")
        return self

    def require_safe_listening(self) -> None:
        """Refuse to listen beyond this machine without API keys.

        Raises:
            SettingsError: says what to set.
        """
        if not self.http.is_loopback and not self.http.api_keys:
            raise SettingsError(
                f"http.host is {self.http.host}, which other machines can reach, and no API key is set. "
                "Add one under http.api_keys in grid.yaml (make it with: openssl rand -hex 24), "
                "or set http.host to 127.0.0.1."
            )

    @property
    def chosen_default_pricer(self) -> str | None:
        """The pricer for a submit that names none: the configured one, or the only one there is."""
        if self.default_pricer is not None:
            return self.default_pricer
        return next(iter(self.pricers)) if len(self.pricers) == 1 else None

    @property
    def known_sites(self) -> frozenset[str]:
        """The sites that a submit may name: those of groups and those that have distances; none without any group's."""
        of_groups = {group.site for group in self.groups.values() if group.site is not None}
        return frozenset(of_groups | self.routing.site_distance.keys()) if of_groups else frozenset()

    @property
    def deployed_at(self) -> float:
        """When these settings were deployed, UTC seconds; the newer ones win. 0 where they never were."""
        return self._deployed_at

    @property
    def config(self) -> Path | None:
        """The file that these settings were read from, if one was named, as it was named."""
        return self._read_from.path

    def deployed(self, at: float) -> GridSettings:
        """The same settings, deployed at an instant (UTC seconds)."""
        copy = self.model_copy()
        copy._deployed_at = at
        return copy

    @property
    def without_keys(self) -> GridSettings:
        """The same settings for tiers that clients do not reach: no API keys among them."""
        return self.model_copy(update={"http": self.http.model_copy(update={"api_keys": ()})})

    @property
    def for_nodes(self) -> GridSettings:
        """The same settings for node agents, which run strangers' programs: neither API keys nor the database."""
        storage = self.storage.model_copy(update={"database": None})
        return self.without_keys.model_copy(update={"storage": storage})

    @property
    def grid_dir(self) -> Path:
        """Directory of this grid's state on this machine."""
        return expanded(self.storage.state_dir).absolute() / self.name

    @property
    def database_url(self) -> str | Path:
        """SQLAlchemy URL of the job store, or the path of its SQLite file: no path is put into a URL and back."""
        given = self.storage.database
        if given is None:
            return self.grid_dir / "jobs.db"
        return expanded(given) if given.startswith(("/", "~")) else given

    @property
    def blobs_url(self) -> str:
        """URL or directory of the blob store."""
        return self.storage.blobs or str(self.grid_dir / "blobs")


def load_settings(path: Path | None = None, **overrides: Any) -> GridSettings:
    """Read `grid.yaml` (if a path is given, or `RAYGRID_CONFIG` names one), the environment, and overrides.

    Args:
        path: the file; must exist when given.
        **overrides: top-level fields that win over the file.

    Raises:
        SettingsError: the file cannot be read, or a value is wrong; says which field and why.
    """
    named = path
    if path is None and os.environ.get("RAYGRID_CONFIG"):
        path = Path(os.environ["RAYGRID_CONFIG"])
    text, values = _read(path) if path is not None else ("", {})
    _refuse_unknown_variables()
    try:
        settings = GridSettings(**{**values, **overrides})
    except UnreadableVariableError as error:
        raise SettingsError(messages.unreadable_variable(str(error), PREFIX)) from None
    except ValidationError as error:
        raise SettingsError(messages.in_words(error, GridSettings, PREFIX, path, text, overrides)) from None
    settings._read_from = _ReadFrom(named)
    return settings


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a settings file, and what it says."""
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, NamesAreText) or {}  # noqa: S506 - it is a safe loader
    except UnicodeDecodeError:
        raise SettingsError(f"cannot read the settings file {path}: it is not text in UTF-8") from None
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        # Without the error itself, which quotes lines: they may hold a secret.
        raise SettingsError(f"{path} is not valid YAML: {messages.unreadable_yaml(error, text)}") from None
    except ValueError:
        raise SettingsError(f"{path} cannot be read: {messages.unreadable_value(text)}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} must hold settings, each as NAME: VALUE, not {type(values).__name__}")
    if odd := [name for name in values if not isinstance(name, str)]:
        raise SettingsError(f"{path}: {odd[0]!r} is not the name of a setting")
    return text, values


def _refuse_unknown_variables() -> None:
    """A mistyped variable would be ignored in silence; say so instead."""
    known = GridSettings.model_fields
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name[len(PREFIX) :].split("__")[0].lower() not in known:
            raise SettingsError(
                f"the variable {name} sets nothing: known after {PREFIX} are {', '.join(sorted(known))}"
            )
