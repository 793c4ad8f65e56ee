"""What all tests share: where the reference data is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# The one setting that says where the reference data lies; by default beside the project.
REFERENCE_DATA = Path(os.environ.get("RAYGRID_REFERENCE_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Published cases with their answers; tests that need them say so when they are not there."""
    if not REFERENCE_DATA.is_dir():
        pytest.skip(f"no reference data at {REFERENCE_DATA}; set RAYGRID_REFERENCE_DATA to where it is")
    return REFERENCE_DATA
