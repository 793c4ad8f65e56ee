"""Settings: the text of a settings file."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

from raygrid.errors import SettingsError
from raygrid.settings.model import load_settings
from raygrid.settings.sources import PREFIX
from security.fuzzers.target import Target


@cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    """The directory of the file of all inputs of this process; variables would replace what it says."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    return tempfile.TemporaryDirectory(prefix="rg-fuzz-")


def read(data: bytes) -> None:
    """Load a settings file with this text, and use what is made of it."""
    file = Path(_directory().name, "grid.yaml")
    file.write_bytes(data)
    settings = load_settings(file)
    for derived in (settings.with_hidden_keys, settings.for_nodes):
        assert derived.model_validate(derived.model_dump()).name == settings.name


TARGET = Target(read, (SettingsError,))
