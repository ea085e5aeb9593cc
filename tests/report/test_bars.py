"""Bars: any are drawn, and their lengths are the values."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedmpi.report.axes import SIZES, TIMES, Numbers
from fedmpi.report.bars import bar_chart, pair_chart, stack_chart
from fedmpi.report.pictures import Picture
from tests.report.test_pictures import SVG, drawn, floats, law, texts, tree


@law
@given(st.dictionaries(st.text(max_size=9), arrays.arrays(np.float64, 3, elements=floats), min_size=1, max_size=4))
def test_any_layers_are_drawn(layers: dict[str, Numbers]) -> None:
    for show in (
        stack_chart(np.array([1.0, 2.0, 5.0]), layers, y="time", units=TIMES),
        bar_chart(["a", "$b$", ""], layers, x="bytes", units=SIZES),
    ):
        assert drawn(show).png.startswith(b"\x89PNG\r\n")


@law
@given(arrays.arrays(np.float64, (2, 2, 3), elements=floats), st.text(max_size=9))
def test_any_pairs_are_drawn(scores: Numbers, name: str) -> None:
    named = {f"kind {place}": (mean, worst) for place, (mean, worst) in enumerate(scores)}
    assert drawn(pair_chart(["a", "$b$", name], named, ("mean", "worst"), x="score")).png.startswith(b"\x89PNG\r\n")


def test_a_pair_is_a_bar_for_the_first_and_a_line_to_the_second() -> None:
    """By the lengths that are drawn, from the axis's left edge on; kinds that a name lacks take no room."""
    gap = math.nan
    scores = {"common": (np.array([0.8, 0.4, gap]), np.array([0.4, gap, gap]))}
    scores["own"] = np.array([1.0, gap, 0.9]), np.array([0.6, gap, 0.8])
    one = drawn(pair_chart(["both", "common alone", "own alone"], scores, ("mean", "worst tenth"), x="accuracy"))
    bars = {0: areas(one, 0), 1: areas(one, 1)}
    assert [len(bars[0]), len(bars[1])] == [2, 2]
    left = bars[0][0][0]
    whole = bars[1][0][1] - left
    for kind, lengths in ((0, [0.8, 0.4]), (1, [1.0, 0.9])):
        assert [(right - left) / whole for _, right, _ in bars[kind]] == pytest.approx(lengths, abs=1e-3)
    tops = [bars[0][0][2], bars[1][0][2], bars[0][1][2], bars[1][1][2]]
    assert tops == sorted(tops)
    ends = [
        (float(x0) - left, float(x1) - left)
        for path in tree(one).iter(f"{SVG}path")
        if "stroke: var(--ink)" in path.get("style", "")
        for x0, y0, x1, y1 in re.findall(r"^M ([\d.]+) ([\d.]+)\s+L ([\d.]+) ([\d.]+)\s*$", path.get("d", ""))
        if y0 == y1
    ]
    drawn_ends = [(first / whole, second / whole) for first, second in ends if second != first]
    assert np.allclose(sorted(drawn_ends), sorted([(0.8, 0.4), (1.0, 0.6), (0.9, 0.8)]), atol=1e-3)
    assert {"mean", "worst tenth", "0.800", "0.400", "1.00", "0.600", "0.900", "-"} <= set(texts(one))


def areas(one: Picture, colour: int) -> list[tuple[float, float, float]]:
    """Left, right and top of each bar of a colour, without the legend's."""
    found = []
    for path in tree(one).iter(f"{SVG}path"):
        points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path.get("d", ""))]
        if f"fill: var(--c{colour})" in path.get("style", "") and path.get("clip-path"):
            xs, ys = zip(*points, strict=True)
            found.append((min(xs), max(xs), min(ys)))
    return found


def test_rounds_that_dwarf_the_others_are_cut_off() -> None:
    times = np.full(30, 0.002)
    times[[0, 17]] = 3.0, 90.0
    show = stack_chart(np.arange(1.0, 31.0), {"train": times}, y="time", units=TIMES)
    shown = texts(drawn(show))
    assert {"cut off: up to 1.5 min", "time (ms)"} <= set(shown)
    assert "cut off" not in " ".join(
        texts(drawn(stack_chart(np.arange(3.0), {"train": times[:3]}, y="t", units=TIMES)))
    )


def test_many_rounds_are_stacked_in_columns_of_their_means() -> None:
    rounds = np.arange(1.0, 1601.0)
    show = stack_chart(rounds, {"train": np.ones(1600), "reduce": np.ones(1600)}, y="time", units=TIMES)
    one = drawn(show)
    assert "round (a column is the mean of about 10)" in texts(one)
    assert len(one.svg) < 100_000
