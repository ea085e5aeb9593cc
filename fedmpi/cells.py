"""Cells of text: plain decimal numbers, look-alikes of numbers, and markers of missing values."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")  # float() takes 1_3 and Arabic digits too
WHOLE = re.compile(r"[+-]?[0-9]{1,4000}")  # Python makes no integer of many more digits
SEPARATED = re.compile(r"(?<=[0-9])[,_' \u2019](?=[0-9])")  # 1,000 and 51,26 and 1_3 and 1'000 and 1 000
GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{3}){2,}")  # 1.000.000
SIGNS = str.maketrans({"\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2212": "-"})

ALWAYS = ("", "?")  # missing in every column
# In a column of numbers these can be nothing else; among words, NA may be Namibia and None an answer.
MARKERS = frozenset(
    {*ALWAYS, "na", "n/a", "#na", "#n/a", "<na>", "nan", "-nan", "+nan", "null", "(null)", "none", "nil", "\\n"}
    | {".", "-", "--"}
)


def number(text: str) -> float | None:
    """Return the number in a cell, infinite where it is too large for a float; None unless it is plainly decimal."""
    return float(text) if NUMBER.fullmatch(text) else None


def looks_like(text: str) -> str | None:
    """Return a name for a cell which a person would read as a number, though it is no plain decimal one; else None."""
    plain = unicodedata.normalize("NFKC", text).translate(SIGNS)
    plain = "".join(str(unicodedata.decimal(letter)) if letter.isdecimal() else letter for letter in plain).strip()
    if NUMBER.fullmatch(plain):
        return "a number whose digits or sign are not ASCII"
    if re.fullmatch(r"[+-]?0[xX][0-9a-fA-F]+", plain):
        return "a hexadecimal number"
    if re.fullmatch(r"[+-]?inf(?:inity)?", plain, re.IGNORECASE):
        return "no finite number"
    bare = SEPARATED.sub("", plain)
    if NUMBER.fullmatch(bare) or GROUPED.fullmatch(plain):
        return "a number with a decimal comma or separators"
    if bare.endswith("%") and NUMBER.fullmatch(bare[:-1].rstrip()):
        return "a percentage"
    money = bare.strip("".join(letter for letter in set(bare) if unicodedata.category(letter) == "Sc") + " ")
    if money != bare and NUMBER.fullmatch(money):
        return "an amount of money"
    if bare.startswith("(") and bare.endswith(")") and NUMBER.fullmatch(bare[1:-1]):
        return "a number in brackets"
    return None


def is_marker(text: str) -> bool:
    """Return whether a cell by itself marks a missing value: empty, ?, NA, N/A, NaN, null, None, a dot, a dash, ..."""
    return text.casefold() in MARKERS


@dataclass(frozen=True)
class Missing:
    """The cells to count as missing: empty ones, those equal to one of `markers`, and the usual words for it."""

    markers: tuple[str, ...] = ()

    def word(self, text: str, declared: bool = False) -> bool:
        """Return whether a cell among words is missing; a question mark is not where a person `declared` them words."""
        return text in ("", *self.markers) or (not declared and text in ALWAYS)

    def quantity(self, text: str) -> bool:
        """Return whether a cell among numbers is missing; -999 means -999.0 too."""
        value = number(text)
        return is_marker(text) or self.word(text) or (value is not None and value in map(number, self.markers))
