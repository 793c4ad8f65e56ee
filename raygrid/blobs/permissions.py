"""Modes of the files in a directory of blobs: private where the directory is private, else as the umask has it.

A grid's own directory is closed to others. A share that its administrator has opened to a group, for machines with
several users, stays as open as programs usually leave what they write.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path


class Permissions:
    """The modes of what is made below a directory, which must be there by then."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def is_private(self) -> bool:
        """Whether only its owner may enter the directory."""
        return self._directory.stat().st_mode & 0o077 == 0

    @property
    def file(self) -> int:
        """The mode of a new file, before the umask."""
        return 0o600 if self.is_private else 0o666

    def make_parents(self, path: Path) -> None:
        """Make the directories above a file that are not there yet."""
        mode = 0o700 if self.is_private else 0o777
        for directory in reversed(path.parents):
            if not directory.exists():
                directory.mkdir(mode=mode, exist_ok=True)

    def restrict(self, path: Path) -> None:
        """Give a file that was made with the usual modes, and the directories above it, those that hold here."""
        if self.is_private:
            path.chmod(0o600)
            for directory in path.relative_to(self._directory).parents:
                (self._directory / directory).chmod(0o700)
