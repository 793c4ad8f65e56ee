"""All settings of a grid in one validated model, from `grid.yaml` and `RAYGRID__…` environment variables.

Every field has a default, so no file is needed. The environment wins over the file: `RAYGRID__HTTP__PORT=9000`
sets `http.port`. `grid.yaml` at the project's root shows every field with a comment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableVariableError

from raygrid.errors import SettingsError
from raygrid.settings import messages
from raygrid.settings.pricer import Pricer
from raygrid.settings.sections import ApiKey, Group, Http, Node, Placement, Routing, Storage
from raygrid.settings.sources import PREFIX, NamesAreText, Variables
from raygrid.settings.values import Name, SandboxMode
from raygrid.system.home import expanded


@dataclass(frozen=True)
class _ReadFrom:
    named: Path | None = field(default=None, compare=False)  # equal settings from different files are equal
    file: Path | None = field(default=None, compare=False)


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
    """Pricer for submits that name none; not needed with a single pricer."""
    sandbox: SandboxMode = "protect"
    """What keeps pricers from harming the grid and the machine, unless a pricer sets its own.

    `protect`: pricers cannot reach the grid or other jobs, and ordinary programs run unchanged. `strict`: they read
    only the system, their program and their data, write only their job directory, and have no network. `off`: nothing.
    """
    sandbox_required: bool = False
    """Whether a job fails if its node lacks a mechanism of its sandbox; otherwise it runs with what the node has."""
    sandbox_user: str | None = Field(default=None, min_length=1)
    """A user as which pricers run in their sandboxes; the grid must run as root, and the user exist on all nodes."""
    pricers: dict[Name, Pricer] = {}  # after the sandbox settings, which its validation reads
    """The executables that jobs can run, by name."""
    group_prefix: str = Field(default="rack-", min_length=1)
    """Ray custom resources whose names begin with this are groups."""
    groups: dict[str, Group] = {}
    """Site and quota of groups, by the name of their Ray resource."""
    http: Http = Http()
    """Where parents listen and what they accept."""
    routing: Routing = Routing()
    """How a parent chooses a group."""
    placement: Placement = Placement()
    """How a leader chooses a node, and when it retries."""
    node: Node = Node()
    """How a node runs pricers."""
    storage: Storage = Storage()
    """Where jobs, inputs and results are kept."""

    # Set by `deployed` only; files and variables cannot set it.
    _deployed_at: float = PrivateAttr(default=0.0)
    # Set by `load_settings`.
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
        """Give the environment priority over the file."""
        return Variables(settings_cls), init_settings

    @field_validator("pricers")
    @classmethod
    def _with_sandbox(cls, pricers: dict[Name, Pricer], info: ValidationInfo) -> dict[Name, Pricer]:
        """Give each pricer without own values those of the grid, because nodes receive only the pricers."""
        own = (name for name in Pricer.model_fields if name.startswith("sandbox"))
        given: dict[str, Any] = {name: info.data[name] for name in own if info.data.get(name) is not None}
        decided = {}
        for name, pricer in pricers.items():
            if pricer.sandbox_user is not None and (pricer.sandbox or info.data.get("sandbox")) == "off":
                raise ValueError(
                    f"pricer {name!r} has a sandbox_user, but sandbox is off: only in a sandbox it is that user; set "
                    "sandbox: protect for it"
                )
            lacks = {each: value for each, value in given.items() if getattr(pricer, each) is None}
            decided[name] = pricer.model_copy(update=lacks) if lacks else pricer
        return decided

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
            SettingsError: `http.host` is not a loopback address, and no key is set.
        """
        if not self.http.is_loopback and not self.http.api_keys:
            raise SettingsError(
                f"http.host is {self.http.host}, which other machines can reach, and no API key is set. "
                "Add one under http.api_keys in grid.yaml (make it with: openssl rand -hex 24), "
                "or set http.host to 127.0.0.1."
            )

    @property
    def chosen_default_pricer(self) -> str | None:
        """The pricer for a submit that names none: the default, or the only pricer; None if there is neither."""
        if self.default_pricer is not None:
            return self.default_pricer
        return next(iter(self.pricers)) if len(self.pricers) == 1 else None

    @property
    def known_sites(self) -> frozenset[str]:
        """The sites that a submit may name: those of groups and of distances; empty if no group has a site."""
        of_groups = {group.site for group in self.groups.values() if group.site is not None}
        return frozenset(of_groups | self.routing.site_distance.keys()) if of_groups else frozenset()

    @property
    def deployed_at(self) -> float:
        """When these settings were deployed, UTC seconds; newer settings replace older ones. 0: never deployed."""
        return self._deployed_at

    @property
    def config(self) -> Path | None:
        """The file that the caller of `load_settings` named, if any."""
        return self._read_from.named

    @property
    def settings_file(self) -> Path | None:
        """The file that the settings were read from, as an absolute path; None without a file."""
        return self._read_from.file

    def deployed(self, at: float) -> GridSettings:
        """The same settings, deployed at an instant (UTC seconds)."""
        copy = self.model_copy()
        copy._deployed_at = at
        return copy

    def with_key(self, name: str, key: str) -> GridSettings:
        """The same settings with a single API key."""
        keys = (ApiKey.model_validate({"name": name, "key": key}),)
        return self.model_copy(update={"http": self.http.model_copy(update={"api_keys": keys})})

    @property
    def with_hidden_keys(self) -> GridSettings:
        """The same settings with only the digests of API keys, for Ray's books."""
        keys = tuple(each.hidden for each in self.http.api_keys)
        return self.model_copy(update={"http": self.http.model_copy(update={"api_keys": keys})})

    @property
    def without_keys(self) -> GridSettings:
        """The same settings without API keys, for tiers that clients do not reach."""
        return self.model_copy(update={"http": self.http.model_copy(update={"api_keys": ()})})

    @property
    def for_nodes(self) -> GridSettings:
        """The same settings for node agents, which run untrusted programs: without API keys and database.

        The name of a SQLite file stays, because sandboxes hide the file.
        """
        file = self.database_file if self.storage.database is not None else None
        storage = self.storage.model_copy(update={"database": None if file is None else str(file)})
        return self.without_keys.model_copy(update={"storage": storage})

    @property
    def grid_dir(self) -> Path:
        """Directory of this grid's state on this machine."""
        return expanded(self.storage.state_dir).absolute() / self.name

    @property
    def database_url(self) -> str | Path:
        """SQLAlchemy URL of the job store, or the path of its SQLite file."""
        given = self.storage.database
        if given is None:
            return self.grid_dir / "jobs.db"
        return expanded(given) if given.startswith(("/", "~")) else given

    @property
    def database_file(self) -> Path | None:
        """The file of a job store in SQLite; None for a server, and for a database in memory."""
        url = self.database_url
        if isinstance(url, Path):
            return url
        scheme, _, rest = url.partition("://")
        return Path(rest[1:]).absolute() if scheme.startswith("sqlite") and rest[1:] not in ("", ":memory:") else None

    @property
    def blobs_url(self) -> str:
        """URL or directory of the blob store."""
        return self.storage.blobs or str(self.grid_dir / "blobs")


def load_settings(path: Path | None = None, **overrides: Any) -> GridSettings:
    """Read `grid.yaml` (if a path is given, or `RAYGRID_CONFIG` names one), the environment, and overrides.

    Args:
        path: the file; must exist when given.
        **overrides: top-level fields that override the file.

    Raises:
        SettingsError: the file cannot be read, or a value is wrong; names the field and the reason.
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
        raise SettingsError(messages.error_message(error, GridSettings, PREFIX, path, text, overrides)) from None
    settings._read_from = _ReadFrom(named, None if path is None else path.absolute())
    return settings


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a settings file, and its values."""
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, NamesAreText) or {}  # noqa: S506 - a safe loader # nosec B506
    except UnicodeDecodeError:
        raise SettingsError(f"cannot read the settings file {path}: it is not text in UTF-8") from None
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        # The error itself quotes lines, which may contain a secret.
        raise SettingsError(f"{path} is not valid YAML: {messages.unreadable_yaml(error, text)}") from None
    except (ValueError, OverflowError):
        raise SettingsError(f"{path} is not valid YAML: an escape names a character that does not exist") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} must hold settings, each as NAME: VALUE, not {type(values).__name__}")
    if odd := [name for name in values if not isinstance(name, str)]:
        raise SettingsError(f"{path}: {odd[0]!r} is not the name of a setting")
    return text, values


def _refuse_unknown_variables() -> None:
    """Refuse variables that set nothing: they are probably mistyped."""
    known = GridSettings.model_fields
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name[len(PREFIX) :].split("__")[0].lower() not in known:
            raise SettingsError(
                f"the variable {name} sets nothing: known after {PREFIX} are {', '.join(sorted(known))}"
            )
