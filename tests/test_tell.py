"""What a person is told: of whatever it is made, it can be printed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.tell import Refused


@settings(derandomize=True, database=None, deadline=None, max_examples=50)
@given(st.text(max_size=20))
def test_a_refusal_can_be_printed_and_says_what_can_as_it_is(text: str) -> None:
    told = str(Refused(text))
    assert all(each.isprintable() or each == "\n" for each in told)
    told.encode("utf-8")
    if text.isprintable():
        assert told == text


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert str(Refused("a\0b\x1b[31m\ud7ff\tc\nd\u00e9")) == r"a\x00b\x1b[31m\ud7ff\tc" + "\nd\u00e9"
