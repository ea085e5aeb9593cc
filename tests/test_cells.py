"""Cells of text: what is a number, against decimal arithmetic; what only looks like one; what is missing."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.cells import Missing, is_marker, looks_like, number

LAWS = settings(derandomize=True, database=None, deadline=None, max_examples=200)


@LAWS
@given(value=st.decimals(-(10**12), 10**12, allow_nan=False, places=6), exponent=st.integers(-20, 20))
def test_a_decimal_number_is_itself(value: Decimal, exponent: int) -> None:
    for text in (f"{value:f}", f"+{abs(value):f}", f"{value:f}e{exponent}", f"{value:f}E{exponent:+d}"):
        assert number(text) == float(Decimal(text))
        assert looks_like(text) is not None  # and whoever asks is told that a person reads a number


@LAWS
@given(
    text=st.text(st.characters(codec="utf-8"), max_size=6)
    | st.text("0123456789.+-eE_,x%\u0663\uff11\u2212", max_size=6)
)
def test_nothing_but_ascii_digits_is_a_number(text: str) -> None:
    """What is taken means what Decimal says, and holds nothing but digits, signs, a point and an exponent."""
    value = number(text)
    if value is not None:
        assert set(text) <= set("0123456789.+-eE")
        assert value == float(Decimal(text))


ODD = ["1_3", "1,000", "51,26", "1.234,5", "1 000", "1'000", "1.000.000", "30%", "30 %", "0x1F", "inf", "-Infinity",
       "\u221212.5", "\uff11\uff12", "\u0663", "\u0661\u066b\u0665", "$5", "5 €", "(12)"]  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_what_a_person_reads_as_a_number(text: str) -> None:
    assert number(text) is None
    if text != "\u0661\u066b\u0665":  # an Arabic decimal point is one character more than we know
        assert looks_like(text) is not None


@pytest.mark.parametrize(
    "text", ["", "a", "1-2", "2024-01-10", "12:30", "1/2", "5 kg", "<5", "e5", ".", "-", "nan", "NA"]
)
def test_words(text: str) -> None:
    assert (number(text), looks_like(text)) == (None, None)


def test_missing_cells() -> None:
    for text in ("", "?", "NA", "n/a", "N/A", "NaN", "null", "NULL", "None", ".", "-", "<NA>", "#N/A"):
        assert is_marker(text)
        assert Missing().quantity(text)
        assert Missing().word(text) == (text in ("", "?"))
    assert not any(map(is_marker, ("unknown", "0", "-1", "Namibia")))
    chosen = Missing(("NA", "-999"))
    assert chosen.word("NA")
    assert not chosen.word("na")
    assert chosen.quantity("-999.0")
    assert not chosen.word("-999.0")
    assert not chosen.word("?", declared=True)
    assert not chosen.quantity("999")


def test_the_longest_number() -> None:
    assert number("9" * 5000) == math.inf
