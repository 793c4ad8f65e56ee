"""The header Prefer, as RFC 7240 has it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygrid.parent.http.preferences import preferences, wait_s


@pytest.mark.parametrize(
    ("headers", "found", "seconds"),
    [
        (["respond-async"], {"respond-async": ""}, None),
        (["Respond-Async, WAIT=10"], {"respond-async": "", "wait": "10"}, 10.0),
        (["wait = 5;x=1 , RESPOND-ASYNC"], {"wait": "5", "respond-async": ""}, 5.0),
        (["foo", 'wait="7"'], {"foo": "", "wait": "7"}, 7.0),
        (["wait=1, wait=2", "wait=3"], {"wait": "1"}, 1.0),
        (['foo="respond-async, wait=9"'], {"foo": "respond-async, wait=9"}, None),
        (['foo; bar="a, respond-async"'], {"foo": ""}, None),
        (["x-respond-async"], {"x-respond-async": ""}, None),
        (["wait=soon"], {"wait": "soon"}, None),
        (["wait=-1"], {"wait": "-1"}, None),
        (["wait=1.5"], {"wait": "1.5"}, None),
        (["wait=999999"], {"wait": "999999"}, None),
        (["wait", "", ",,", "="], {"wait": ""}, None),
    ],
)
def test_preferences(headers: list[str], found: dict[str, str], seconds: float | None) -> None:
    """Names count in any capitals, the first of a name counts, and text in quotes is no name."""
    assert preferences(headers) == found
    assert wait_s(found) == seconds


@given(st.lists(st.text(st.sampled_from('aB=,;" \t\\"w'), max_size=30), max_size=3))
def test_anything_can_be_read(headers: list[str]) -> None:
    """No header is an error or takes long."""
    assert all(name == name.lower() for name in preferences(headers))
