"""The words of a refusal: the value given, the reason in one line, the nearest right name."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable
from typing import Any

from fedmpi.flow import Refused


class JobError(Refused):
    """The refusal of a job's field: it names the field, the value given and the values allowed."""

    code = 2


def nearest(name: object, names: Iterable[str]) -> str:
    """Return the end of a refusal, `"; did you mean 'fedavg'?"`, with the likeliest of `names`, or "" for none."""
    plain = {_plain(known): known for known in names}
    words = re.split(r"[-_ ]+", str(name).lower())
    given, initials = _plain(str(name)[:60]), "".join(word[:1] for word in words)
    begun = [known for known in plain if len(given) > 1 and known.startswith(given)]
    likely = [initials] if len(words) > 1 and initials in plain else []  # learning_rate: lr
    if not likely and len(words) > 1 and given not in plain and words[0] in plain:
        likely = [words[0]]  # batch_size: batch
    likely = likely or difflib.get_close_matches(given, plain, n=1) or (begun if len(begun) == 1 else [])
    return f"; did you mean {plain[likely[0]]!r}?" if likely else ""


def _plain(name: str) -> str:
    """Return the letters and digits of a name, in lower case: FedProx, fed_prox and fed-prox are one."""
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def shown(value: Any, quotes: bool = True) -> str:
    """Return a value as text, cut where it is long; a string in quotes, unless `quotes` is False."""
    if isinstance(value, int) and abs(value) >= 10**60:
        digits = int((value.bit_length() - 1) * math.log10(2)) + 1  # Python writes no more than 4,300 of them
        return f"a number of {digits} digits"
    if isinstance(value, str):
        value = value[:100]
        text = repr(value) if quotes else value
    else:
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def article(word: str) -> str:
    """Return the article before a word: "an" before a vowel, "a" otherwise."""
    return "an" if word[:1].lower() in "aeio" else "a"


def toml(value: Any) -> str:
    """Return a value as a job writes it, cut where it is long."""
    return json.dumps(value) if isinstance(value, (str, bool, list)) else shown(value)


def because(error: BaseException) -> str:
    """Return an error's message in one line, behind the error's kind unless it is a ValueError or a TypeError."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else text[:297] + "..."
    return text if text and isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: {text}"
