"""Schemathesis loads this module: explained failures are counted in a file, and others fail the run."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis

from security.explained import ACCEPTED, explanation

COUNTED_IN = "RAYGRID_SECURITY_EXPLAINED"


@schemathesis.hook  # type: ignore[untyped-decorator, unused-ignore] # not installed for `make check`
def filter_failure(_context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Whether a failure is one of the grid, because nothing explains it."""
    kind = type(failure).__name__
    text = failure.message if kind == ACCEPTED else _detail(response.content)
    found = explanation(kind, case.operation.label, response.status_code, text)
    if found is None:
        return True
    with open(os.environ[COUNTED_IN], "a", encoding="utf-8") as counted:
        counted.write(f"{found.name}\n")
    return False


def _detail(content: bytes) -> str:
    """The `detail` of a problem document; empty if it is none."""
    try:
        return str(json.loads(content)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""
