"""The colours of pictures: legible on a white page and on a dark one."""

from __future__ import annotations

from fedmpi.report.colours import COLOURS, PALETTE


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
