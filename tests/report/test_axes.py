"""Names and units as axes show them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.report.axes import SIZES, TIMES, plain, unit


@given(st.text(), st.integers(8, 60))
@settings(derandomize=True, database=None, deadline=None)
def test_a_plain_name_is_printable_and_short(text: str, limit: int) -> None:
    shown = plain(text, limit)
    assert len(shown) <= limit + 1
    assert all(letter.isprintable() or letter == "\u00a0" for letter in shown)
    assert not shown.startswith("_")


@pytest.mark.parametrize(
    ("values", "units", "expected"),
    [
        ([0.2, 0.9], TIMES, ("ms", 1e-3)),
        ([59.0, math.nan], TIMES, ("s", 1.0)),
        ([60.0], TIMES, ("min", 60.0)),
        ([], SIZES, ("B", 1.0)),
        ([math.inf, 999.0], SIZES, ("B", 1.0)),
        ([1.6e6], SIZES, ("MB", 1e6)),
        ([1e20], SIZES, ("TB", 1e12)),
    ],
)
def test_units_suit_the_largest_value(
    values: list[float], units: dict[str, float], expected: tuple[str, float]
) -> None:
    assert unit(values, units) == expected
