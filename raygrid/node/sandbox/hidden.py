"""Which files and directories sandboxes hide from pricers: the grid's state, secrets, Ray's session, and services.

Pure: it looks at no file, and entries need not exist. Where a program of a pricer lies in a hidden directory, the
pricer could not start: `conflicts` finds that before.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from raygrid.blobs.directory import directory_of
from raygrid.node.sandbox.escapes import service_sockets
from raygrid.settings.commands import placeholders
from raygrid.settings.model import GridSettings
from raygrid.settings.pricer import Pricer
from raygrid.system.ray_directory import ray_directories

_SQLITE_FILES = ("", "-wal", "-shm", "-journal")
# Variables and options of the blob store that name a file with its credentials, as obstore reads them.
_CREDENTIAL_FILES = (
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "SERVICE_ACCOUNT"),
    *("AZURE_FEDERATED_TOKEN_FILE", "PGPASSFILE"),
)
_CREDENTIAL_OPTIONS = ("token_file", "service_account", "service_account_path", "application_credentials")
# A cluster's token; the settings of `ray up`, and its SSH key, which opens every machine of the cluster.
_AT_HOME = (".ray", "ray_bootstrap_config.yaml", "ray_bootstrap_key.pem")
_GOOGLE = ".config/gcloud/application_default_credentials.json"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A pricer that needs a path which is hidden from pricers."""

    pricer: str
    path: Path
    hidden: Path

    def __str__(self) -> str:
        return (
            f"pricer {self.pricer!r} needs {self.path}, but sandboxes hide {self.hidden} from pricers, because it "
            "gives access to the grid or to more; move what the pricer needs to another place, or set `sandbox: off` "
            "for it"
        )


def hidden_paths(
    settings: GridSettings,
    environment: Mapping[str, str],
    home: Path,
    *,
    uid: int,
    needed: Collection[Path] = (),
    ray_directory: Path | None = None,
) -> tuple[Path, ...]:
    """The files and directories to hide, absolute and sorted.

    The state directory is hidden with all grids in it. If something that pricers need lies in it, as in a directory
    that is also used for other things, only this grid's own directory is. An entry may lie below another one, because
    a pricer of a later deployment may be shown the other one.

    Args:
        settings: the grid's settings; those for nodes suffice.
        environment: of the grid's processes.
        home: the home directory of the grid's user.
        uid: the grid's user.
        needed: paths that must stay visible besides those of pricers, such as the installation of Python.
        ray_directory: where Ray keeps its sessions, if it is known.
    """
    shown = [home, *_temporary(environment), *needed, *(path for _, path in _needs(settings, environment, home))]
    found = [
        *_state(settings, environment, home, shown),
        *(Path(f"{settings.database_file}{suffix}") for suffix in _SQLITE_FILES if settings.database_file),
        *_blobs(settings),
        *ray_directories(environment, uid),
        *((ray_directory,) if ray_directory is not None else ()),
        *(home / name for name in _AT_HOME),
        *_named(environment, ("RAY_AUTH_TOKEN_PATH", "RAYGRID_CONFIG")),
        *((settings.settings_file,) if settings.settings_file is not None else ()),
        *_credentials(settings, environment, home),
        *service_sockets(environment, uid),
    ]
    return tuple(sorted({_absolute(path, home) for path in found}))


def conflicts(
    settings: GridSettings, environment: Mapping[str, str], home: Path, hidden: Collection[Path]
) -> tuple[Conflict, ...]:
    """What pricers with a sandbox need and could not find, from their command, variables, and places to read or write.

    A program without a slash is looked for in PATH, which is not considered here.
    """
    found = {}
    for name, path in _needs(settings, environment, home, with_search_path=False):
        below = next((each for each in hidden if path.is_relative_to(each)), None)
        if below is not None:
            found[(name, path)] = Conflict(name, path, below)
    return tuple(found.values())


def _state(
    settings: GridSettings, environment: Mapping[str, str], home: Path, shown: Collection[Path]
) -> Iterable[Path]:
    named = _named(environment, ("RAYGRID_STATE_DIR",))
    for directory in (settings.grid_dir.parent, home / ".raygrid", *(_absolute(each, home) for each in named)):
        if not any(path.is_relative_to(directory) for path in shown):
            yield directory
    yield settings.grid_dir


def _blobs(settings: GridSettings) -> Iterable[Path]:
    directory = directory_of(settings.blobs_url)
    return () if directory is None else (directory,)


def _credentials(settings: GridSettings, environment: Mapping[str, str], home: Path) -> Iterable[Path]:
    yield from _named(environment, _CREDENTIAL_FILES)
    for name, value in settings.storage.blob_options.items():
        if isinstance(value, str) and name.lower().endswith(_CREDENTIAL_OPTIONS):
            yield Path(value)
    if settings.blobs_url.startswith("gs:"):
        yield home / _GOOGLE


def _named(environment: Mapping[str, str], names: Iterable[str]) -> list[Path]:
    return [Path(environment[name]) for name in names if environment.get(name)]


def _temporary(environment: Mapping[str, str]) -> list[Path]:
    return [*_named(environment, ("TMPDIR",)), Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - compared, not used


def _needs(
    settings: GridSettings, environment: Mapping[str, str], home: Path, *, with_search_path: bool = True
) -> Iterable[tuple[str, Path]]:
    """Absolute paths in the definitions of pricers that have a sandbox, with the pricer's name."""
    for name, pricer in settings.pricers.items():
        if pricer.sandbox == "off":
            continue
        words = [*_words(pricer), *pricer.read, *pricer.write, *_lists(pricer.env.values())]
        if with_search_path and "/" not in pricer.command[0]:
            words += _lists([pricer.env.get("PATH") or environment.get("PATH") or os.defpath])
        for word in words:
            path = _absolute(Path(word), home)
            if word.startswith(("/", "~/")) and path != path.parent:
                yield name, path


def _words(pricer: Pricer) -> Iterable[str]:
    """The words of the command without those that are known only with a job; of `--option=/path`, the path."""
    for word in pricer.command:
        if not placeholders(word):
            yield word if word.startswith("/") else word.partition("=")[2]


def _lists(values: Iterable[str]) -> list[str]:
    return [part for value in values for part in value.split(":")]


def _absolute(path: Path, home: Path) -> Path:
    """An absolute path without `..`; links stay, because a mount follows them."""
    text = str(path)
    if text == "~" or text.startswith("~/"):
        path = home / text[2:]
    return Path(os.path.normpath(Path("/") / path))
