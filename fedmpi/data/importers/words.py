"""Lists with commas, as options of the command take them and messages give them."""

from __future__ import annotations

import csv
import shlex

from fedmpi.job import JobError


def words(name: str, text: str) -> list[str]:
    """Return the words of a list; one with a comma in it stands in double quotes.  JobError where one is not closed."""
    try:
        listed = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise JobError(f"{name}: {text!r} given; cannot be read as a list with commas: {error}") from None
    return [word.strip() for word in listed]


def option(name: str, *words: str) -> str:
    """Return an option with its list, for a shell: `--category 'blood pressure'`."""
    listed = ",".join('"' + word.replace('"', '""') + '"' if "," in word or '"' in word else word for word in words)
    return f"--{name} {shlex.quote(listed)}"
