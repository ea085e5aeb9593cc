"""Pictures: any numbers and names give a PNG and an SVG element that stands alone and takes its page's colours."""

from __future__ import annotations

import math
import re
import sys
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedmpi.flow import Refused
from fedmpi.report.pictures import (
    COLOURS,
    PALETTE,
    SIZES,
    TIMES,
    Curve,
    Draw,
    Numbers,
    Picture,
    bars,
    lines,
    paired,
    picture,
    plain,
    stack,
    unit,
)

SVG = "{http://www.w3.org/2000/svg}"
law = settings(derandomize=True, database=None, deadline=None, max_examples=6)
floats = st.floats() | st.floats(0, 1)
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


def drawn(show: Draw, title: str = "Title") -> Picture:
    """A picture, drawn without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return picture("name", title, "caption", show)


def tree(one: Picture) -> ElementTree.Element:
    """The SVG as XML: well formed once the page's namespaces are said."""
    said = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return ElementTree.fromstring(one.svg.replace("<svg", f"<svg {said}", 1))


def texts(one: Picture) -> list[str]:
    return ["".join(element.itertext()) for element in tree(one).iter(f"{SVG}text")]


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
    one = drawn(lines(some, x="round", y="score", x_units=TIMES if over_time else None, bounds=bounds))
    assert one.png.startswith(b"\x89PNG\r\n")
    assert "score" in texts(one)


@law
@given(st.dictionaries(st.text(max_size=9), arrays.arrays(np.float64, 3, elements=floats), min_size=1, max_size=4))
def test_any_layers_are_drawn(layers: dict[str, Numbers]) -> None:
    for show in (
        stack(np.array([1.0, 2.0, 5.0]), layers, y="time", units=TIMES),
        bars(["a", "$b$", ""], layers, x="bytes", units=SIZES),
    ):
        assert drawn(show).png.startswith(b"\x89PNG\r\n")


@law
@given(arrays.arrays(np.float64, (2, 2, 3), elements=floats), st.text(max_size=9))
def test_any_pairs_are_drawn(scores: Numbers, name: str) -> None:
    named = {f"kind {place}": (mean, worst) for place, (mean, worst) in enumerate(scores)}
    assert drawn(paired(["a", "$b$", name], named, ("mean", "worst"), x="score")).png.startswith(b"\x89PNG\r\n")


def test_a_pair_is_a_bar_for_the_first_and_a_line_to_the_second() -> None:
    """By the lengths that are drawn, from the axis's left edge on; kinds that a name lacks take no room."""
    gap = math.nan
    scores = {"common": (np.array([0.8, 0.4, gap]), np.array([0.4, gap, gap]))}
    scores["own"] = np.array([1.0, gap, 0.9]), np.array([0.6, gap, 0.8])
    one = drawn(paired(["both", "common alone", "own alone"], scores, ("mean", "worst tenth"), x="accuracy"))
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


def test_an_svg_stands_alone_and_takes_the_pages_colours() -> None:
    two = [Curve("one", np.array([1.0, 2.0]), np.array([0.1, 0.2]), place) for place in (0, 1)]
    one = drawn(lines(two, x="round", y="score"), 'A <title> & "more"')
    assert "http" not in one.svg
    assert "<!" not in one.svg
    assert "<?" not in one.svg
    assert not re.search("#[0-9a-f]{6}", one.svg)
    assert {"var(--c0)", "var(--c1)", "var(--ink)", "var(--soft)", "var(--line)"} <= set(
        re.findall(r"var\([^)]*\)", one.svg)
    )
    assert tree(one).get("aria-label") == 'A <title> & "more"'
    defined = [element.get("id") for element in tree(one).iter() if element.get("id")]
    assert len(defined) == len(set(defined))


def test_the_palette_is_legible_on_both_pages() -> None:
    """Contrast as WCAG defines it: at least 2 for areas and lines, 4.5 for text."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        high, low = sorted((light(one), light(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for on_white, on_dark in PALETTE:
        assert contrast(on_white, "#ffffff") >= 2
        assert contrast(on_dark, "#1c2128") >= 4.5
    for name in ("--ink", "--soft"):
        assert contrast(COLOURS[name][0], "#ffffff") >= 4.5
        assert contrast(COLOURS[name][1], "#1c2128") >= 4.5


def test_the_same_numbers_give_the_same_bytes() -> None:
    show = lines([Curve("x", np.arange(3.0), np.arange(3.0), low=np.zeros(3), high=np.ones(3))], x="round", y="y")
    assert drawn(show) == drawn(show)


def test_a_gap_is_a_gap_and_a_lone_point_is_seen() -> None:
    x, gap = np.arange(1.0, 8.0), math.nan
    one = drawn(lines([Curve("x", x, np.array([1, 2, gap, 3, gap, 4, 5]))], x="round", y="y"))
    line = max(strokes(one, 0), key=len)
    assert [piece.count("L") for piece in line.split("M")[1:]] == [1, 0, 1]
    markers = [use for use in tree(one).iter(f"{SVG}use") if "var(--c0)" in use.get("style", "")]
    assert len(markers) >= 6


def test_long_curves_are_thin_and_have_no_markers() -> None:
    x = np.arange(1.0, 2001.0)
    one = drawn(lines([Curve("x", x, 1 / x + 0.1 * np.sin(x))], x="round", y="y"))
    assert not [use for use in tree(one).iter(f"{SVG}use") if "var(--c0)" in use.get("style", "")]
    assert len(one.svg) < 150_000


def test_a_baseline_scored_once_is_a_level() -> None:
    x = np.arange(1.0, 6.0)
    once = Curve("pooled", np.array([5.0]), np.array([0.5]), 2, "--")
    (level,) = strokes(drawn(lines([Curve("federated", x, x / 5), once], x="round", y="y")), 2, dash=True)
    (x0, y0), (x1, y1) = re.findall(r"([\d.]+) ([\d.]+)", level)
    assert float(x1) - float(x0) > 200
    assert y0 == y1


def test_what_is_positive_without_bound_is_drawn_in_logarithms() -> None:
    falling = [Curve("x", np.arange(1.0, 5.0), np.array([100.0, 10.0, 1.0, 0.1]))]
    assert {"0.1", "100"} <= set(texts(drawn(lines(falling, x="round", y="loss", bounds=(0.0, math.inf)))))
    assert "0.1" not in texts(drawn(lines(falling, x="round", y="score")))


def test_logarithms_are_marked_sparsely() -> None:
    for decades in (2.1, 3.0, 5.0, 9.0):
        falling = [Curve("x", np.arange(1.0, 50.0), np.geomspace(1.0, 10**-decades, 49))]
        one = drawn(lines(falling, x="round", y="loss", bounds=(0.0, math.inf)))
        marks = [float(text) for text in texts(one) if re.fullmatch(r"[\d.e-]+", text) and float(text) < 5]
        assert 3 <= len(marks) <= 9


def test_an_axis_leaves_out_how_far_below_its_best_a_run_began() -> None:
    x = np.arange(1.0, 61.0)
    learned = 0.97 - 0.87 * np.exp(-(x - 1) / 4)
    own = Curve("federated", x, learned)
    level = Curve("local", np.array([60.0]), np.array([0.55]), 1, "--")
    for curves, least in (([own], 0.8), ([own, level], 0.5)):
        shown = texts(drawn(lines(curves, x="round", y="accuracy", bounds=(0.0, 1.0))))
        marks = [float(text) for text in shown if re.fullmatch(r"[01]\.\d+", text)]
        assert "cut off: down to 0.1" in shown
        assert least <= min(marks) < max(marks) <= 1.0
    for curves, bounds in (
        ([Curve("short", x[:15], learned[:15])], (0.0, 1.0)),
        ([own], (0.0, math.inf)),
        ([Curve("falls late", x, learned[::-1])], (0.0, 1.0)),
    ):
        shown = texts(drawn(lines(curves, x="round", y="accuracy", bounds=bounds)))
        assert not [text for text in shown if text.startswith("cut off")]


def test_rounds_that_dwarf_the_others_are_cut_off() -> None:
    times = np.full(30, 0.002)
    times[[0, 17]] = 3.0, 90.0
    show = stack(np.arange(1.0, 31.0), {"train": times}, y="time", units=TIMES)
    shown = texts(drawn(show))
    assert {"cut off: up to 1.5 min", "time (ms)"} <= set(shown)
    assert "cut off" not in " ".join(texts(drawn(stack(np.arange(3.0), {"train": times[:3]}, y="t", units=TIMES))))


@pytest.mark.parametrize("last", [1, 7, 60, 2000])
def test_rounds_are_marked_from_the_first_on(last: int) -> None:
    x = np.arange(1.0, last + 1.0)
    shown = texts(drawn(lines([Curve("x", x, 0.5 + 0.2 * np.sin(x))], x="round", y="y")))
    marks = [int(text) for text in shown if text.isdigit()]
    assert 1 <= min(marks) < 0.3 * last + 1
    assert max(marks) == last


@pytest.mark.parametrize("least", [5e-324, 1e-90, 1e-30])
def test_extremes_are_drawn(least: float) -> None:
    show = lines([Curve("x", np.arange(3.0), np.array([least, 1.0, 1e90]))], x="round", y="y", bounds=(0.0, math.inf))
    assert len(texts(drawn(show))) < 30


def test_many_rounds_are_stacked_in_columns_of_their_means() -> None:
    rounds = np.arange(1.0, 1601.0)
    show = stack(rounds, {"train": np.ones(1600), "reduce": np.ones(1600)}, y="time", units=TIMES)
    one = drawn(show)
    assert "round (a column is the mean of about 10)" in texts(one)
    assert len(one.svg) < 100_000


def test_legends_name_what_is_drawn_in_full_view() -> None:
    names = ["_hidden", "$x^2$", "a\x00b\nc", "<b>", "x" * 100]
    show = lines([Curve(name, np.arange(2.0), np.arange(2.0), at) for at, name in enumerate(names)], x="round", y="y")
    shown = texts(drawn(show))
    for text in ("\u00a0_hidden", "$x^2$", "a b c", "<b>"):
        assert text in shown
    one = drawn(lines([Curve("alone", np.arange(2.0), np.arange(2.0))], x="round", y="y"))
    assert "alone" not in texts(one)


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


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Refused, match=re.escape('pip install "fedmpi[report]"')):
        picture("x", "x", "x", lambda axes: None)
