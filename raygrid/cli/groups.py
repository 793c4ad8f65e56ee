"""`raygrid handover`: let another candidate lead a group."""

from __future__ import annotations

from typing import Annotated

import typer

from raygrid.cli.grid import client_of, out


def handover(
    context: typer.Context,
    group: Annotated[str, typer.Argument(help="Name of the group, as in `raygrid groups`.")],
) -> None:
    """Have a group's leader hand over to the rack's other candidate, as before work on its machine.

    Running and waiting jobs are not disturbed.
    """
    found = client_of(context).hand_over(group)
    out().print(f"group {group}: {found.leader} leads in term {found.term}", highlight=False, markup=False)
