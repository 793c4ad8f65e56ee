"""What the contract tests share."""

from __future__ import annotations

import pytest

from raygrid.store import postgresql


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test process that gets no processor for seconds is not cut; tests of freezing set their own time."""
    monkeypatch.setattr(postgresql, "IDLE_S", 30.0)
