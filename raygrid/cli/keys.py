"""`raygrid keys`: who may use a grid, and for what."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated

import typer
from pydantic import TypeAdapter

from raygrid.cli.duration import duration_option
from raygrid.cli.grid import client_of, print_json, print_lines, print_note, print_out
from raygrid.cli.options import AsJson
from raygrid.client.keys import ApiKeyInfo, KeyLimitInfo, NewKey
from raygrid.core.access import Role
from raygrid.settings.values import size_in_bytes

app = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys. This needs a key of an admin.")


def _size(text: str) -> int:
    try:
        return size_in_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


KeyId = Annotated[str, typer.Argument(metavar="ID", help="The id of the key, as in `raygrid keys list`.")]


@app.command()
def add(
    context: typer.Context,
    owner: Annotated[str, typer.Option(help="Who owns what is made with the key, such as a desk or a person.")],
    role: Annotated[list[Role], typer.Option(help="What the key may do. Repeatable.")],
    pricer: Annotated[
        list[str] | None, typer.Option(help="Pricer for which it may submit jobs; by default all. Repeatable.")
    ] = None,
    lifetime: Annotated[
        float | None, duration_option(help="How long it is valid, such as 90d; by default for ever.")
    ] = None,
    max_queued: Annotated[int | None, typer.Option(min=1, help="Unfinished jobs that its owner may have.")] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(parser=_size, metavar="SIZE", help="Inputs and shared data of its owner, such as 10GB."),
    ] = None,
    max_requests: Annotated[int | None, typer.Option(min=1, help="Requests per minute at each parent.")] = None,
) -> None:
    """Make a key and print it once; only a digest of it is stored."""
    limits = KeyLimitInfo(max_queued, max_bytes, max_requests)
    _show_new(client_of(context).add_key(NewKey(owner, role, pricer, lifetime, limits)))


@app.command("list")
def list_keys(context: typer.Context, as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    keys = client_of(context).keys()
    if as_json:
        print_json(TypeAdapter(list[ApiKeyInfo]).dump_json(keys))
        return
    if not keys:
        print_note("no keys; those of the settings file are not listed")
        return
    print_lines(
        ("id", "owner", "state", "expires", "roles", "pricers", "created_by", "replaces"),
        [_cells(key) for key in keys],
        dispensable=("created_by", "replaces", "pricers"),
        shortened={"roles": 12, "owner": 10, "pricers": 10},
    )


@app.command()
def rotate(
    context: typer.Context,
    key_id: KeyId,
    overlap: Annotated[
        float, duration_option(help="How long the old key stays valid beside the new one.", show_default="1d")
    ] = 86_400.0,
) -> None:
    """Make a successor with the same rights and print it once; for a while, both keys are valid."""
    _show_new(client_of(context).rotate_key(key_id, overlap))


@app.command()
def revoke(context: typer.Context, key_id: KeyId) -> None:
    """Make a key invalid: within a second, every parent refuses it. Jobs that it has submitted go on."""
    revoked = client_of(context).revoke_key(key_id)
    print_out(f"key {revoked.id} of {revoked.owner} is revoked")


def _show_new(key: ApiKeyInfo) -> None:
    print_out(key.key or "")
    until = f", valid until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else ""
    print_note(
        f"key {key.id} of {key.owner} ({', '.join(key.roles)}){until}; it is shown this once: keep it as a secret"
    )


def _cells(key: ApiKeyInfo) -> list[str]:
    return [
        key.id,
        key.owner,
        _state(key),
        f"{key.expires_at.astimezone(UTC):%Y-%m-%dT%H:%MZ}" if key.expires_at else "never",
        ",".join(key.roles),
        "all" if key.pricers is None else ",".join(key.pricers),
        key.created_by,
        key.replaces or "",
    ]


def _state(key: ApiKeyInfo) -> str:
    if key.valid:
        return "valid"
    return "revoked" if key.revoked_at else "expired"
