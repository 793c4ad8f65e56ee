"""The users as which pricers run instead of root, where the settings name one (`sandbox_user`).

The node's files stay root's. Within a sandbox, those in its own directory are shown as the user's.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from raygrid.system import owner_mapping
from raygrid.system.accounts import Account, account, become


@dataclass(frozen=True, slots=True)
class PricerUser:
    """A user of pricers, with the mapping of root's files to it (`owner_mapping.py`)."""

    account: Account
    owners: int

    def enter(self, directory: str) -> None:
        """Make this thread, which is root's, the user's; check that it reaches a directory.

        Raises:
            OSError: it does not.
        """
        become(self.account.uid, self.account.gid, self.account.groups)
        if (closed := _closed_on_the_way_to(directory)) is not None:
            raise PermissionError(
                f"user {self.account.name!r} (sandbox_user) may not enter {closed}; let it, or set storage.state_dir "
                "to a directory that it reaches, such as /var/lib/raygrid"
            )


def _closed_on_the_way_to(directory: str) -> str | None:
    """The first directory on a path that this thread may not enter."""
    place = ""
    for part in directory.split("/")[1:]:
        place += f"/{part}"
        try:
            os.stat(f"{place}/.")
        except PermissionError:
            return place
    return None


class PricerUsers:
    """Finds users by name, once each; thread-safe. `close` ends it."""

    def __init__(self) -> None:
        self._known: dict[str, PricerUser] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> PricerUser:
        """The user with this name.

        Raises:
            OSError: there is none, or the kernel cannot map the owners of files.
        """
        with self._lock:
            known = self._known.get(name)
            if known is None:
                try:
                    found = account(name)
                except LookupError as error:
                    raise OSError(f"sandbox_user: {error.args[0]}") from None
                known = self._known[name] = PricerUser(found, owner_mapping.root_as(found.uid, found.gid))
            return known

    def close(self) -> None:
        """Close the mappings."""
        with self._lock:
            for each in self._known.values():
                os.close(each.owners)
            self._known.clear()
