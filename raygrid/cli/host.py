"""`raygrid host`: Ray on the machines of a cluster. `cluster.yaml` calls it for `ray up`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raygrid.cli.grid import out
from raygrid.system.home import expanded

app = typer.Typer(no_args_is_help=True, help="Ray on this machine of a cluster, under a supervisor.")

Directory = Annotated[Path, typer.Option("--dir", help="Where the supervisor keeps its state, and all logs, in logs/.")]
_DIRECTORY = Path("~/.raygrid/host")


@app.command()
def start(
    *,
    head: Annotated[
        bool, typer.Option("--head", help="This is the head: it keeps the cluster's books and runs no pricers.")
    ] = False,
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Join the head at this address.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the head listens.")] = 6379,
    rack: Annotated[
        str | None, typer.Option(help="This machine's rack, such as rack-a; by default as --rack-file says.")
    ] = None,
    rack_file: Annotated[Path, typer.Option(help="A file that holds the name of the rack.")] = Path(
        "/opt/raygrid/rack"
    ),
    name: Annotated[str, typer.Option(help="Name of the node; by default the machine's.")] = "",
    storage: Annotated[
        str, typer.Option(help="Where the head keeps its books: rocksdb, redis://HOST:PORT, or memory.")
    ] = "rocksdb",
    object_store: Annotated[int, typer.Option(min=80 * 1024**2, help="Shared memory for Ray, bytes.")] = 192 * 1024**2,
    haproxy: Annotated[bool, typer.Option(help="HTTP through HAProxy; the same on all machines.")] = True,
    directory: Directory = _DIRECTORY,
    ray_args: Annotated[list[str] | None, typer.Argument(help="After `--`: further options of `ray start`.")] = None,
) -> None:
    """Make this machine part of a cluster; nothing happens if it is already."""
    from raygrid.cluster import HostSpec, require_token, start_host  # noqa: PLC0415 - only these commands need it
    from raygrid.cluster.autoscaler import tell_autoscaler  # noqa: PLC0415
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
    fresh = start_host(spec)  # no moving lines: `ray up` runs this, and shows every one of them
    if head and not fresh:
        tell_autoscaler(spec.ray_args)
    out().print(f"this machine is {what}" if fresh else "this machine is part of a cluster already", highlight=False)


@app.command()
def stop(directory: Directory = _DIRECTORY) -> None:
    """Take this machine out of its cluster; stopping the head stops all of it."""
    from raygrid.cluster import stop_host  # noqa: PLC0415

    stopped = stop_host(expanded(directory).absolute())
    out().print("stopped" if stopped else "no Ray runs here under a supervisor", highlight=False)
