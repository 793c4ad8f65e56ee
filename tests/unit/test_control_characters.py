"""Control characters in texts that a pricer or another user chose: visible in errors, unchanged in data."""

from __future__ import annotations

import json
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygrid.client.failure import job_failed, located
from raygrid.client.result import Result
from raygrid.errors import JobFailedError, RaygridError
from raygrid.node.warm.protocol import parse
from raygrid.system.control_characters import escape_control_characters, escape_in_json
from tests.support.client_fakes import zip_with

HOSTILE = "\x1b]0;title\x07\x9b2J\x7f\r\u202egpj.exe\u2066"
VISIBLE = r"\x1b]0;title\x07\x9b2J\x7f\x0d\u202egpj.exe\u2066"
HARMFUL = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
]


@pytest.mark.parametrize("character", [each for each in HARMFUL if each not in "\t\n"])
def test_every_character_that_controls_a_terminal_or_the_order_is_escaped(character: str) -> None:
    """C0, DEL, C1, and bidirectional embeddings, overrides and isolates."""
    shown = escape_control_characters(f"a{character}b")
    assert shown == f"a\\{'x' if ord(character) < 256 else 'u'}{ord(character):0{2 if ord(character) < 256 else 4}x}b"
    assert escape_control_characters(shown) == shown


@pytest.mark.parametrize("text", ["", "price", "a\tb\nc\r\nd", "取引 👩\u200d👩\u200d👧", "שלום\u200f", r"\x1b"])
def test_ordinary_text_is_unchanged(text: str) -> None:
    """Also tabs, ends of lines, and scripts that are written from right to left."""
    assert escape_control_characters(text) == text


@given(st.text())
def test_nothing_harmful_is_left_and_json_keeps_its_content(text: str) -> None:
    """Whatever the text; a JSON document means the same afterwards."""
    shown = escape_control_characters(text)
    assert not {*shown} & {*HARMFUL} - {*"\t\n\r"}
    document = escape_in_json(json.dumps({"text": text}, ensure_ascii=False))
    assert json.loads(document) == {"text": text}
    assert not {*document} & {*HARMFUL}


def test_the_text_of_an_error_is_visible_and_its_data_is_exact() -> None:
    """A traceback shows no raw sequence; `stderr_tail` is what the pricer wrote, also after pickling."""
    error = job_failed(f"it said {HOSTILE}", job_id="j", reason="exit_code", exit_code=1, stderr_tail=HOSTILE)
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    named = located(error, index=0, name=HOSTILE, job_id="j", batch_id="b")
    for each in (error, copied, named):
        assert isinstance(each, JobFailedError)
        for text in (str(each), repr(each), "".join(traceback.format_exception(each))):
            assert not {*text} & {*HARMFUL} - {"\n"}
        assert VISIBLE in str(each)
        assert each.stderr_tail == HOSTILE


def test_every_error_of_raygrid_is_escaped_by_its_base() -> None:
    """No derived class has a text of its own."""
    waiting = [RaygridError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        assert kind.__str__ is RaygridError.__str__, kind


def test_a_result_in_a_notebook_shows_no_raw_sequence() -> None:
    """Neither its names nor its stdout; what `stdout` and `read` give is exact."""
    result = Result("j", zip_with({"stdout.txt": HOSTILE, "\u202efile": HOSTILE}))
    for text in (repr(result), result._repr_html_()):
        assert not {*text} & {*HARMFUL}
    assert result.stdout_bytes == HOSTILE.encode()
    with pytest.raises(FileNotFoundError) as missing:
        result.read("x")
    assert r"its files: \u202efile" in str(missing.value)


def test_a_warm_pricers_message_is_visible_in_every_status() -> None:
    """The node escapes it before it is stored."""
    answer = parse(json.dumps({"number": 1, "exit_code": 1, "message": f"a\0b {HOSTILE}\nnext"}).encode(), 1)
    assert answer is not None
    assert answer.message == f"a b {VISIBLE}\nnext"
