"""The users as which pricers run instead of root, where the settings name one (`sandbox_user`).

The node's files stay root's. Within a sandbox, those in its own directory are shown as the user's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from raygrid.node.sandbox.escapes import code_of_others, service_sockets
from raygrid.system import owner_mapping
from raygrid.system.accounts import Account, account, become
from raygrid.system.permissions import way_to


class UnusableUserError(Exception):
    """No pricer can run as a user on this node, whatever else it is; the message states why and what to do."""


class Escapes(NamedTuple):
    """Paths to hide, and paths to make read-only."""

    hidden: tuple[str, ...]
    read_only: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PricerUser:
    """A user of pricers, with the mapping of root's files to it (`owner_mapping.py`)."""

    account: Account
    owners: int

    @property
    def escapes(self) -> Escapes:
        """Where its pricers could leave their sandboxes; see `escapes.py`."""
        hidden = service_sockets({}, self.account.uid)
        return Escapes(_texts(hidden), _texts(code_of_others(Path(self.account.home), (), ())))

    def enter(self, directory: str) -> None:
        """Make this thread, which is root's, the user's; check that it reaches a directory.

        Raises:
            UnusableUserError: it does not.
            OSError: the kernel refuses it.
        """
        become(self.account.uid, self.account.gid, self.account.groups)
        for place in way_to(directory):
            try:
                os.stat(f"{place}/.")
            except PermissionError:
                raise UnusableUserError(may_not_enter(self.account.name, place)) from None


def _texts(paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(str(path) for path in paths)


def may_not_enter(user: str, directory: str) -> str:
    """Why a user cannot be that of pricers, and what to do."""
    return (
        f"user {user!r} (sandbox_user) may not enter {directory}, which is on the way to job directories; let others "
        f"through (chmod o+x {directory}), or set storage.state_dir to a directory such as /var/lib/raygrid"
    )


class PricerUsers:
    """Finds users by name, once each; thread-safe. `close` ends it."""

    def __init__(self) -> None:
        self._known: dict[str, PricerUser] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> PricerUser:
        """The user with this name.

        Raises:
            UnusableUserError: there is none.
            OSError: the kernel cannot map the owners of files.
        """
        with self._lock:
            known = self._known.get(name)
            if known is None:
                try:
                    found = account(name)
                except LookupError as error:
                    raise UnusableUserError(f"sandbox_user: {error.args[0]}") from None
                known = self._known[name] = PricerUser(found, owner_mapping.root_as(found.uid, found.gid))
            return known

    def close(self) -> None:
        """Close the mappings."""
        with self._lock:
            for each in self._known.values():
                os.close(each.owners)
            self._known.clear()
