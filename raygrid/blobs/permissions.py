"""Modes of the files in a blob directory: private if the directory is private, otherwise set by the umask.

A directory that the grid has made is private. On a share that its administrator has opened to other users, new files
get the usual modes.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path


class Permissions:
    """The modes of new files and directories in a directory, which must exist before the first one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def is_private(self) -> bool:
        """Whether only the owner may enter the directory."""
        return self._directory.stat().st_mode & 0o077 == 0

    @property
    def file(self) -> int:
        """The mode of a new file, before the umask."""
        return 0o600 if self.is_private else 0o666

    def make_parents(self, path: Path) -> None:
        """Make the missing directories above a file."""
        mode = 0o700 if self.is_private else 0o777
        for directory in reversed(path.parents):
            if not directory.exists():
                directory.mkdir(mode=mode, exist_ok=True)

    def restrict(self, path: Path) -> None:
        """Correct the modes of a file that was made with the usual ones, and of the directories above it."""
        if self.is_private:
            path.chmod(0o600)
            for directory in path.relative_to(self._directory).parents:
                (self._directory / directory).chmod(0o700)
