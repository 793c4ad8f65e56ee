"""Options of a submit, as the OpenAPI description states them."""

from __future__ import annotations

import re

import pytest

from raygrid.errors import InvalidRequestError
from raygrid.parent.submission import ID_PATTERN, checked_id


@pytest.mark.parametrize("text", ["a", ".a", "a.", "..a..", "-", "_", "A1", "", ".", "...", "a b", "é", "a/b", "a\n"])
def test_the_pattern_of_ids_is_the_check_of_ids(text: str) -> None:
    """What the description allows is accepted, and all else is refused."""
    described = re.search(ID_PATTERN.removesuffix("$") + r"\Z", text) is not None
    try:
        accepted = checked_id(text) == text
    except InvalidRequestError:
        accepted = False
    assert accepted == described
