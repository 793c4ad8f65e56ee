"""Settings with which a parent refuses to start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray import NodeID

from raygrid.composition import ACTORS
from raygrid.errors import SettingsError
from raygrid.parent.ingress import build, refuse_unsafe
from raygrid.settings.model import load_settings
from raygrid.store import SqlStore
from raygrid.transport import actors
from raygrid.transport.nodes import RayNodes

SHARED, SQLITE = SqlStore("postgresql://raygrid@db/raygrid"), SqlStore("sqlite+aiosqlite:///jobs.db")


def test_blobs_of_many_machines_must_be_somewhere() -> None:
    """The default directory is each machine's own; the message has what to set."""
    with pytest.raises(SettingsError, match=r"3 machines.*storage\.blobs.*share.*s3://"):
        refuse_unsafe(load_settings(), SHARED, 3)


@pytest.mark.parametrize("blobs", ["/srv/blobs", "s3://bucket/prefix"])
def test_configured_blobs_are_accepted(blobs: str) -> None:
    """Whether a directory is the shared one shows later by its marker."""
    refuse_unsafe(load_settings(storage={"blobs": blobs}), SHARED, 3)


def test_one_machine_needs_no_settings() -> None:
    """A laptop keeps everything under its state directory."""
    refuse_unsafe(load_settings(), SQLITE, 1)


def test_sqlite_on_many_machines_is_refused_first() -> None:
    """Each message names one thing to set."""
    with pytest.raises(SettingsError, match=r"storage\.database is a SQLite file"):
        refuse_unsafe(load_settings(), SQLITE, 2)


def test_agents_do_not_get_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings that go to the machines where pricers run hold no way into the job store."""
    made: list[Any] = []

    class Maker:
        def options(self, **_: Any) -> Maker:
            return self

        def remote(self, *arguments: Any) -> None:
            made.extend(arguments)

    monkeypatch.setattr(actors, "ray", SimpleNamespace(remote=lambda _kind: Maker()))
    settings = load_settings(storage={"database": "postgresql+asyncpg://u:secret@db/raygrid"})
    RayNodes("rack-a", settings, object)._agent("n1", NodeID.from_random().hex(), "agent:n1")
    assert made[1].storage.database is None
    assert made[1] == settings.for_nodes


def test_parents_of_a_local_grid_stand_on_its_head() -> None:
    """A drill may kill a rack's node and must end no parent with it; a cluster's parents are beside racks."""

    def resources(*, spread: bool) -> Any:
        application: Any = build(load_settings(), ACTORS, spread=spread)
        return application._bound_deployment.ray_actor_options

    assert resources(spread=False) == {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
    assert resources(spread=True) == {"num_cpus": 0.001}
