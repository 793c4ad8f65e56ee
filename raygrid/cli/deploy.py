"""`raygrid deploy`: give a running grid new settings, on this machine or on a cluster."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from raygrid.cli.grid import print_out, waiting
from raygrid.cli.local_grid import pricer_commands, running, settings_of
from raygrid.cli.options import (
    HOST_DIRECTORY,
    GridName,
    HostDirectory,
    NoInput,
    PricerCommands,
    SettingsFile,
    SlotCount,
)
from raygrid.client import Client
from raygrid.client.retry import RetryPolicy
from raygrid.drill.local import way_into
from raygrid.errors import ConnectionFailedError, RaygridError, SettingsError, UnavailableError
from raygrid.local import GridFile
from raygrid.local.executables import require_executables, require_sandboxes
from raygrid.settings.model import GridSettings, load_settings
from raygrid.system.home import expanded
from raygrid.system.ray_environment import prepare_to_join_ray

READY_IN_A_ROW = 10  # old and new parents share the port for a moment; so many answers do not all come from an old one
ENTRY_S = 20.0  # time for the HTTP entry of this machine to find the parents


def deploy(
    *,
    config: SettingsFile = None,
    name: GridName = None,
    pricer: PricerCommands = None,
    no_input: NoInput = False,
    slots: SlotCount = None,
    wait: Annotated[bool, typer.Option(help="On a cluster: return when every parent is up.")] = True,
    timeout: Annotated[float, typer.Option(min=1, help="Longest wait, seconds.")] = 300.0,
    directory: HostDirectory = HOST_DIRECTORY,
) -> None:
    """Give a running grid new settings: the grid of that name on this machine, else the cluster of this machine.

    Jobs that were submitted before run the pricers that they were submitted with; limits, quotas and slots change at
    once. --pricer and --slots are for a grid on this machine only.
    """
    from raygrid.cluster import is_supervised  # noqa: PLC0415 - other commands do not need it

    host = expanded(directory).absolute()
    settings = settings_of(pricer_commands(pricer or []), config, name=name, slots=slots, without_input=no_input)
    grid = running(settings)
    on_cluster = is_supervised(host)
    if grid is not None and on_cluster:
        raise SettingsError(
            f"grid {grid.name} runs here, and this machine is part of a cluster (`raygrid host`), too; to deploy on "
            "the cluster, give its settings another name than that of the grid"
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
    """Change the settings of a grid on this machine, in the grid's own Ray cluster."""
    from raygrid.local.redeploy import note, one_at_a_time, redeployment  # noqa: PLC0415 - only this command needs it

    if not settings.pricers:
        raise SettingsError(
            "no pricer is configured; name one with --config or --pricer: a deployment replaces all settings"
        )
    require_executables(settings)
    require_sandboxes(settings)
    os.environ.update(way_into(grid))  # before Ray reads it
    prepare_to_join_ray()
    from raygrid.composition import ACTORS  # noqa: PLC0415 - imports Ray
    from raygrid.parent import ingress  # noqa: PLC0415 - imports Ray

    def ready() -> None:
        error = _await_ready(grid.url, grid.api_key, READY_IN_A_ROW, timeout_s)
        if error is not None:
            raise UnavailableError(f"the new parents of grid {grid.name} take no jobs: {error}") from error

    with one_at_a_time(grid), waiting(f"deploying on grid {grid.name}"), ingress.joined(str(grid.ray_address)):
        chosen = redeployment(ingress.deployed_here(), settings)
        if chosen.changes:
            ingress.replace_here(chosen.settings, ACTORS, ready)
        note(grid, chosen.settings)
    for line in chosen.kept:
        print_out(f"{line} (a change needs a restart)")
    if not chosen.changes:
        print_out(f"grid {grid.name} follows these settings already; nothing was changed")
        return
    print_out(f"grid {grid.name} at {grid.url} follows the new settings:")
    for line in chosen.changes:
        print_out(f"  {line}")


def _deploy_on_cluster(config: Path | None, name: str | None, host: Path, wait_s: float | None) -> None:
    from raygrid.cluster import adopt_environment  # noqa: PLC0415 - as above

    settings = load_settings(config, **({"name": name} if name else {}))
    adopt_environment(host)  # before Ray reads it
    prepare_to_join_ray()
    from raygrid.composition import ACTORS  # noqa: PLC0415 - imports Ray
    from raygrid.parent.ingress import deploy as deploy_parents  # noqa: PLC0415 - imports Ray

    changed = deploy_parents(settings, ACTORS, wait_s=wait_s)
    if wait_s is not None:
        # Without a key, the reason would not be told.
        error = _await_ready(f"http://127.0.0.1:{settings.http.port}", settings.http.own_key, 1, ENTRY_S)
        if error is not None and not isinstance(error, ConnectionFailedError):  # some machines have no entry
            raise UnavailableError(f"the parents are up, but take no jobs: {error}") from error
    parents = settings.http.parents
    done = "run already with these settings" if not changed else "are up" if wait_s is not None else "are on their way"
    print_out(f"grid {settings.name}: {parents} parent(s) {done}, port {settings.http.port}")


def _await_ready(url: str, key: str | None, in_a_row: int, within_s: float) -> RaygridError | None:
    """Wait for so many successive answers that the parents take jobs; gives the last error if they do not come."""
    until = time.monotonic() + within_s
    ready = 0
    while ready < in_a_row:
        try:
            # A new connection each time: the kernel may give it to another parent.
            with Client(url, key, retry=RetryPolicy(retry_s=0, first_contact_s=1)) as client:
                client.require_ready()
        except RaygridError as error:
            ready = 0
            if time.monotonic() > until:
                return error
            time.sleep(0.1)
        else:
            ready += 1
    return None
