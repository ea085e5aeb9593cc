"""Pictures: any numbers and names give a PNG and an SVG element that stands alone and takes its page's colours."""

from __future__ import annotations

import re
import sys
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from fedmpi.flow import Refused
from fedmpi.report.axes import Draw
from fedmpi.report.curves import Curve, line_chart
from fedmpi.report.pictures import Picture, picture

SVG = "{http://www.w3.org/2000/svg}"
law = settings(derandomize=True, database=None, deadline=None, max_examples=6)
floats = st.floats() | st.floats(0, 1)


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


def test_an_svg_stands_alone_and_takes_the_pages_colours() -> None:
    two = [Curve("one", np.array([1.0, 2.0]), np.array([0.1, 0.2]), place) for place in (0, 1)]
    one = drawn(line_chart(two, x="round", y="score"), 'A <title> & "more"')
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


def test_the_same_numbers_give_the_same_bytes() -> None:
    show = line_chart([Curve("x", np.arange(3.0), np.arange(3.0), low=np.zeros(3), high=np.ones(3))], x="round", y="y")
    assert drawn(show) == drawn(show)


def test_legends_name_what_is_drawn_in_full_view() -> None:
    names = ["_hidden", "$x^2$", "a\x00b\nc", "<b>", "x" * 100]
    show = line_chart(
        [Curve(name, np.arange(2.0), np.arange(2.0), at) for at, name in enumerate(names)], x="round", y="y"
    )
    shown = texts(drawn(show))
    for text in ("\u00a0_hidden", "$x^2$", "a b c", "<b>"):
        assert text in shown
    one = drawn(line_chart([Curve("alone", np.arange(2.0), np.arange(2.0))], x="round", y="y"))
    assert "alone" not in texts(one)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Refused, match=re.escape('pip install "fedmpi[report]"')):
        picture("x", "x", "x", lambda axes: None)
