"""Curves: any are drawn, and what is shown of them is theirs."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedmpi.report.axes import TIMES
from fedmpi.report.curves import Curve, line_chart
from fedmpi.report.pictures import Picture
from tests.report.test_pictures import SVG, drawn, floats, law, texts, tree

curves = st.builds(
    lambda label, xy, colour, dash, band: Curve(
        label, np.arange(1.0, 1.0 + len(xy[0])), xy[0], colour, dash, *band(xy)
    ),
    st.text(max_size=60),
    arrays.arrays(np.float64, st.tuples(st.just(2), st.integers(1, 6)), elements=floats),
    st.integers(0, 20),
    st.sampled_from(["-", "--", "-.", ":", ""]),
    st.sampled_from([lambda xy: (), lambda xy: (xy[1], xy[0])]),
)


def strokes(one: Picture, colour: int, dash: bool = False) -> list[str]:
    """The paths of the lines of a colour, without those of the legend."""
    return [
        element.get("d", "")
        for element in tree(one).iter(f"{SVG}path")
        if f"stroke: var(--c{colour})" in element.get("style", "") and element.get("clip-path")
        if ("stroke-dasharray" in element.get("style", "")) == dash
    ]


@law
@given(st.lists(curves, min_size=1, max_size=3), st.booleans(), st.sampled_from([(0.0, 1.0), (0.0, math.inf)]))
def test_any_curves_are_drawn(some: list[Curve], over_time: bool, bounds: tuple[float, float]) -> None:
    one = drawn(line_chart(some, x="round", y="score", x_units=TIMES if over_time else None, bounds=bounds))
    assert one.png.startswith(b"\x89PNG\r\n")
    assert "score" in texts(one)


def test_a_gap_is_a_gap_and_a_lone_point_is_seen() -> None:
    x, gap = np.arange(1.0, 8.0), math.nan
    one = drawn(line_chart([Curve("x", x, np.array([1, 2, gap, 3, gap, 4, 5]))], x="round", y="y"))
    line = max(strokes(one, 0), key=len)
    assert [piece.count("L") for piece in line.split("M")[1:]] == [1, 0, 1]
    markers = [use for use in tree(one).iter(f"{SVG}use") if "var(--c0)" in use.get("style", "")]
    assert len(markers) >= 6


def test_long_curves_are_thin_and_have_no_markers() -> None:
    x = np.arange(1.0, 2001.0)
    one = drawn(line_chart([Curve("x", x, 1 / x + 0.1 * np.sin(x))], x="round", y="y"))
    assert not [use for use in tree(one).iter(f"{SVG}use") if "var(--c0)" in use.get("style", "")]
    assert len(one.svg) < 150_000


def test_a_baseline_scored_once_is_a_level() -> None:
    x = np.arange(1.0, 6.0)
    once = Curve("pooled", np.array([5.0]), np.array([0.5]), 2, "--")
    (level,) = strokes(drawn(line_chart([Curve("federated", x, x / 5), once], x="round", y="y")), 2, dash=True)
    (x0, y0), (x1, y1) = re.findall(r"([\d.]+) ([\d.]+)", level)
    assert float(x1) - float(x0) > 200
    assert y0 == y1


def test_what_is_positive_without_bound_is_drawn_in_logarithms() -> None:
    falling = [Curve("x", np.arange(1.0, 5.0), np.array([100.0, 10.0, 1.0, 0.1]))]
    assert {"0.1", "100"} <= set(texts(drawn(line_chart(falling, x="round", y="loss", bounds=(0.0, math.inf)))))
    assert "0.1" not in texts(drawn(line_chart(falling, x="round", y="score")))


def test_logarithms_are_marked_sparsely() -> None:
    for decades in (2.1, 3.0, 5.0, 9.0):
        falling = [Curve("x", np.arange(1.0, 50.0), np.geomspace(1.0, 10**-decades, 49))]
        one = drawn(line_chart(falling, x="round", y="loss", bounds=(0.0, math.inf)))
        marks = [float(text) for text in texts(one) if re.fullmatch(r"[\d.e-]+", text) and float(text) < 5]
        assert 3 <= len(marks) <= 9


def test_an_axis_leaves_out_how_far_below_its_best_a_run_began() -> None:
    x = np.arange(1.0, 61.0)
    learned = 0.97 - 0.87 * np.exp(-(x - 1) / 4)
    own = Curve("federated", x, learned)
    level = Curve("local", np.array([60.0]), np.array([0.55]), 1, "--")
    for curves, least in (([own], 0.8), ([own, level], 0.5)):
        shown = texts(drawn(line_chart(curves, x="round", y="accuracy", bounds=(0.0, 1.0))))
        marks = [float(text) for text in shown if re.fullmatch(r"[01]\.\d+", text)]
        assert "cut off: down to 0.1" in shown
        assert least <= min(marks) < max(marks) <= 1.0
    for curves, bounds in (
        ([Curve("short", x[:15], learned[:15])], (0.0, 1.0)),
        ([own], (0.0, math.inf)),
        ([Curve("falls late", x, learned[::-1])], (0.0, 1.0)),
    ):
        shown = texts(drawn(line_chart(curves, x="round", y="accuracy", bounds=bounds)))
        assert not [text for text in shown if text.startswith("cut off")]


@pytest.mark.parametrize("last", [1, 7, 60, 2000])
def test_rounds_are_marked_from_the_first_on(last: int) -> None:
    x = np.arange(1.0, last + 1.0)
    shown = texts(drawn(line_chart([Curve("x", x, 0.5 + 0.2 * np.sin(x))], x="round", y="y")))
    marks = [int(text) for text in shown if text.isdigit()]
    assert 1 <= min(marks) < 0.3 * last + 1
    assert max(marks) == last


@pytest.mark.parametrize("least", [5e-324, 1e-90, 1e-30])
def test_extremes_are_drawn(least: float) -> None:
    show = line_chart(
        [Curve("x", np.arange(3.0), np.array([least, 1.0, 1e90]))], x="round", y="y", bounds=(0.0, math.inf)
    )
    assert len(texts(drawn(show))) < 30
