"""`raygrid host`: Ray on the machines of a cluster. `cluster.yaml` calls it for `ray up`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raygrid.cli.grid import print_out
from raygrid.cli.options import HOST_DIRECTORY, HostDirectory
from raygrid.system.home import expanded

app = typer.Typer(no_args_is_help=True, help="Start and stop Ray on this machine of a cluster, under a supervisor.")


@app.command()
def start(
    *,
    head: Annotated[
        bool, typer.Option("--head", help="Make this machine the head, which keeps Ray's state and runs no pricers.")
    ] = False,
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Join the head at this address.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="With --head: port to listen on.")] = 6379,
    rack: Annotated[
        str | None, typer.Option(help="Rack of this machine, such as rack-a; by default read from --rack-file.")
    ] = None,
    rack_file: Annotated[Path, typer.Option(help="File that holds the name of the rack.")] = Path("/opt/raygrid/rack"),
    name: Annotated[str, typer.Option(help="Name of the node; by default the host name.")] = "",
    storage: Annotated[
        str,
        typer.Option(
            help="With --head: where Ray's state is kept for a restart: rocksdb, redis://HOST:PORT or memory."
        ),
    ] = "rocksdb",
    object_store: Annotated[int, typer.Option(min=80 * 1024**2, help="Shared memory for Ray, bytes.")] = 192 * 1024**2,
    haproxy: Annotated[
        bool, typer.Option(help="Accept HTTP through HAProxy; must be the same on all machines.")
    ] = True,
    directory: HostDirectory = HOST_DIRECTORY,
    ray_args: Annotated[list[str] | None, typer.Argument(help="After `--`: further options of `ray start`.")] = None,
) -> None:
    """Make this machine part of a cluster; does nothing if it is part of one already."""
    from raygrid.cluster import HostSpec, require_token, start_host  # noqa: PLC0415 - only these commands need it
    from raygrid.cluster.autoscaler import update_autoscaler  # noqa: PLC0415
    from raygrid.cluster.spec import rack_of  # noqa: PLC0415

    spec = HostSpec(
        directory=expanded(directory).absolute(),
        head=head,
        address=address,
        port=port,
        rack=rack if head else rack_of(rack_file, rack),
        name=name,
        storage=storage,
        object_store=object_store,
        haproxy=haproxy,
        ray_args=tuple(ray_args or ()),
    )
    what = "the head" if head else f"a worker of {spec.rack}" if spec.rack else "a worker without a rack"
    require_token(spec.environment())
    fresh = start_host(spec)  # without a spinner: `ray up` would print each of its frames
    if head and not fresh:
        update_autoscaler(spec.ray_args)
    print_out(f"this machine is {what}" if fresh else "this machine is part of a cluster already")


@app.command()
def stop(directory: HostDirectory = HOST_DIRECTORY) -> None:
    """Take this machine out of its cluster; on the head, stop the whole cluster."""
    from raygrid.cluster import stop_host  # noqa: PLC0415

    stopped = stop_host(expanded(directory).absolute())
    print_out("stopped" if stopped else "no Ray runs here under a supervisor")
