"""`raygrid deploy`: new settings for a grid that runs, on this machine or on a cluster."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from raygrid.cli.grid import out, waiting
from raygrid.cli.local_grid import pricer_commands, running, settings_of
from raygrid.client import Client
from raygrid.client.retry import RetryPolicy
from raygrid.drill.local import way_into
from raygrid.errors import ConnectionFailedError, RaygridError, SettingsError, UnavailableError
from raygrid.local import GridFile
from raygrid.local.executables import require_executables
from raygrid.settings.model import GridSettings, load_settings
from raygrid.system.home import expanded
from raygrid.system.supervision import prepare_to_join_ray

_READY_IN_A_ROW = 10  # old and new parents share the port for a moment: so many answers are not all of an old one


def deploy(
    *,
    config: Annotated[Path | None, typer.Option(help="Settings file, grid.yaml.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the grid on this machine.")] = None,
    pricer: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]COMMAND", help="On this machine: what to run, as with `raygrid up`. Repeatable."),
    ] = None,
    no_input: Annotated[bool, typer.Option("--no-input", help="Let a --pricer command have no {input}.")] = False,
    slots: Annotated[int | None, typer.Option(min=1, help="On this machine: jobs at once on each node.")] = None,
    wait: Annotated[bool, typer.Option(help="On a cluster: return when every parent is up.")] = True,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait at most.")] = 300.0,
    directory: Annotated[
        Path, typer.Option("--dir", help="On a cluster: where this machine's supervisor keeps its state.")
    ] = Path("~/.raygrid/host"),
) -> None:
    """Give a running grid new settings: the one of that name on this machine, else the cluster of this machine.

    Jobs that were submitted before run what they were submitted with; limits, quotas and slots change at once.
    """
    from raygrid.cluster import is_supervised  # noqa: PLC0415 - other commands do not need it

    host = expanded(directory).absolute()
    settings = settings_of(pricer_commands(pricer or []), config, name=name, slots=slots, without_input=no_input)
    grid = running(settings)
    on_cluster = is_supervised(host)
    if grid is not None and on_cluster:
        raise SettingsError(
            f"grid {grid.name} runs here, and this machine is part of a cluster (`raygrid host`), too; to mean the "
            "cluster, give its settings another name than that of the grid"
        )
    if grid is not None:
        _deploy_here(grid, settings, timeout)
    elif on_cluster or os.environ.get("RAY_ADDRESS"):
        if pricer or slots:
            raise SettingsError("--pricer and --slots are for a grid on this machine; put them into --config")
        _deploy_on_cluster(config, name, host, timeout if wait else None)
    else:
        raise UnavailableError(
            f"no grid {settings.name} runs on this machine (`raygrid up` starts one), and no Ray cluster runs on this "
            "machine under `raygrid host`; deploy on a machine of the cluster, once `raygrid host start` (or "
            "`ray up cluster.yaml`) has started it. Where Ray was started in another way, set RAY_ADDRESS to HOST:PORT "
            "of its head"
        )


def _deploy_here(grid: GridFile, settings: GridSettings, timeout_s: float) -> None:
    """Change the settings of a grid on this machine, through its own Ray and no other."""
    from raygrid.local.redeploy import note, one_at_a_time, redeployment  # noqa: PLC0415 - only this command needs it

    if not settings.pricers:
        raise SettingsError(
            "no pricer is configured; say what to run with --config or --pricer: a deployment replaces all settings"
        )
    require_executables(settings)
    os.environ.update(way_into(grid))  # before Ray reads it
    prepare_to_join_ray()
    from raygrid.composition import ACTORS  # noqa: PLC0415 - brings Ray
    from raygrid.parent import ingress  # noqa: PLC0415 - brings Ray

    def ready() -> None:
        _await_ready(grid, settings, timeout_s)

    with one_at_a_time(grid), waiting(f"deploying on grid {grid.name}"), ingress.joined(str(grid.ray_address)):
        chosen = redeployment(ingress.deployed_here(), settings)
        if chosen.changes:
            ingress.replace_here(chosen.settings, ACTORS, ready)
        note(grid, chosen.settings)
    for line in chosen.kept:
        out().print(f"{line} (a change needs a restart)", highlight=False, markup=False)
    if not chosen.changes:
        out().print(f"grid {grid.name} follows these settings already; nothing was changed", highlight=False)
        return
    out().print(f"grid {grid.name} at {grid.url} follows the new settings:", highlight=False, markup=False)
    for line in chosen.changes:
        out().print(f"  {line}", highlight=False, markup=False)


def _deploy_on_cluster(config: Path | None, name: str | None, host: Path, wait_s: float | None) -> None:
    from raygrid.cluster import adopt_environment  # noqa: PLC0415 - as above

    settings = load_settings(config, **({"name": name} if name else {}))
    adopt_environment(host)  # before Ray reads it
    prepare_to_join_ray()
    from raygrid.composition import ACTORS  # noqa: PLC0415 - brings Ray
    from raygrid.parent.ingress import deploy as deploy_parents  # noqa: PLC0415 - brings Ray

    changed = deploy_parents(settings, ACTORS, wait_s=wait_s)
    if wait_s is not None:
        _await_word(settings.http.port)
    parents = settings.http.parents
    done = "run already with these settings" if not changed else "are up" if wait_s is not None else "are on their way"
    out().print(f"grid {settings.name}: {parents} parent(s) {done}, port {settings.http.port}", highlight=False)


def _await_word(port: int, within_s: float = 20.0) -> None:
    """Wait until the entry of this machine says that the parents take jobs.

    Raises:
        UnavailableError: they do not; says why, in their words.
    """
    until = time.monotonic() + within_s
    with Client(f"http://127.0.0.1:{port}", retry=RetryPolicy(retry_s=0, first_contact_s=within_s)) as client:
        while True:
            try:
                client.require_ready()
            except RaygridError as error:
                if time.monotonic() > until:
                    if isinstance(error, ConnectionFailedError):
                        return  # no entry on this machine
                    raise UnavailableError(f"the parents are up, but take no jobs: {error}") from error
                time.sleep(0.5)
            else:
                return


def _await_ready(grid: GridFile, settings: GridSettings, within_s: float) -> None:
    """Wait until whichever parent takes a connection says that it takes jobs.

    Raises:
        UnavailableError: they do not in time; says why, in their words.
    """
    until = time.monotonic() + within_s
    in_a_row = 0
    while in_a_row < _READY_IN_A_ROW:
        try:
            with Client(grid.url, grid.api_key, retry=RetryPolicy(retry_s=0, first_contact_s=1)) as client:
                client.require_ready()
        except RaygridError as error:
            in_a_row = 0
            if time.monotonic() > until:
                raise UnavailableError(f"the new parents of grid {grid.name} take no jobs: {error}") from error
            time.sleep(0.1)
        else:
            in_a_row += 1
