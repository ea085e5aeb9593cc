"""Tables of text: a CSV file with a target column and, for the natural partition, a client column."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from fedmpi.cells import Missing, number
from fedmpi.data.columns import Columns, Kind, shown
from fedmpi.data.errors import ShardError
from fedmpi.data.importers.features import Content, Feature, category, lacks, look, numbers
from fedmpi.data.importers.sheet import Sheet, read_sheet
from fedmpi.data.importers.target import target as made_target
from fedmpi.data.importers.words import words
from fedmpi.job import JobError, nearest

SEPARATORS = {"\\t": "\t", "tab": "\t"}  # as a shell passes them on
LISTED = 40  # columns up to which each is told of in a line of its own


def csv(
    source: Annotated[Path, Field(description="the file, in UTF-8, with a line of names")],
    target: Annotated[str, Field(description="the column that is learned")],
    group: Annotated[str | None, Field(description="the column of clients, for --partition natural")] = None,
    test_source: Annotated[Path | None, Field(description="a file of test examples, with the same columns")] = None,
    sep: Annotated[str, Field(description="what stands between cells: one character, or \\t")] = ",",
    missing: Annotated[str, Field(description="what else a missing cell says, with commas between: unknown,-999")] = "",
    columns: Annotated[str | None, Field(description="the columns' names, where the file has no line of them")] = None,
    drop: Annotated[str, Field(description="columns that are not used, with commas between")] = "",
    task: Annotated[Kind | None, Field(description="what the target is for, where its cells do not say")] = None,
    category: Annotated[str, Field(description="columns whose cells are words, whatever they look like")] = "",
) -> Columns:
    """Rows of a table of text, with a target column and one feature per other column or value.

    `source` is a file in UTF-8 with a line of names; `columns` names its columns, separated by commas, where it has
    none. `target` is the column to learn, `group` the client column, `drop` those not used.  `sep` is the one character
    between cells.

    A column with mostly plain decimal numbers becomes float32; any other cell there is missing if it says so (empty, ?,
    NA, N/A, NaN, null, None, a dot, a dash), else an error.  Any other column becomes one indicator per value of the
    training file, sorted (a value of `test_source` alone is all zeros); among words only empty cells and ? are missing.
    Those in `category` are words whatever they look like, ? too.  `missing` lists more words for a missing cell, in
    every column. Rows with a missing cell in a used column are left out.  Whole or text targets are classes, others are
    for regression, unless `task` decides.  The result's `became` has a line about each column.
    """
    sep = SEPARATORS.get(sep, sep)
    if len(sep) != 1 or sep in '"\r\n\0':
        raise JobError(f"sep: {sep!r} given; should be one character, such as ; or \\t")
    header = None if columns is None else words("columns", columns)
    if header is not None and not all(header):
        raise JobError(f"columns: {columns!r} given; one of them has no name")
    known = Missing(_listed("missing", missing))
    train = read_sheet("source", source, sep, header)
    test = None if test_source is None else read_sheet("test_source", test_source, sep, header)
    roles = Roles(target, group, _listed("drop", drop), _listed("category", category))
    roles.check(train)

    contents, left_out = roles.look(train, known)
    used = [name for name in contents if name not in (target, group)]
    _check_used(train, test, used, target, left_out)
    whole, gone = _complete(train, [*used, target, *([group] if group else [])], contents, known)
    whole_test, gone_test = (None, {}) if test is None else _complete(test, [*used, target], contents, known)

    y, task_, classes, line = made_target(whole, whole_test, target, contents[target], task)
    became = {name: f"left out: {why}" for name, why in left_out.items()} | {target: line}
    features = {name: _feature(name, whole, whole_test, contents[name]) for name in used}
    became |= {name: feature[2] for name, feature in features.items()}
    if group is not None:
        became[group] = f"clients, {len(set(whole.columns[group]))} of them"
    for split, counts in (("", gone), (" in the test file", gone_test)):
        for name, count in counts.items():
            became[name] += f"; {count} missing{split}"
    names = [name for feature in features.values() for name in feature[1]]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ShardError(f"{source}: two features would be called {twice!r}; rename one of their columns")
    x, x_test = (np.concatenate([feature[0][split] for feature in features.values()], axis=1) for split in range(2))
    splits = [(train, whole)] if test is None or whole_test is None else [(train, whole), (test, whole_test)]
    dropped = [(sheet.path, len(sheet.lines) - len(complete.lines)) for sheet, complete in splits]
    return Columns(
        x=x,
        y=y[0],
        task=task_,
        classes=classes,
        test=None if test is None else (x_test, y[1]),
        features=tuple(names),
        groups=None if group is None else np.array(whole.columns[group]),
        notes=tuple(f"{path}: {count} rows with missing values left out" for path, count in dropped if count),
        became=(*(note for sheet, _ in splits for note in sheet.notes), *_told(list(train.columns), became)),
    )


@dataclass(frozen=True)
class Roles:
    """The options about columns, by name."""

    target: str
    group: str | None
    drop: tuple[str, ...]
    category: tuple[str, ...]

    def check(self, train: Sheet) -> None:
        """Refuse, as JobError, names that the file lacks, and options that contradict each other."""
        named = [("target", self.target), *([("group", self.group)] if self.group is not None else [])]
        named += [(option, name) for option in ("drop", "category") for name in getattr(self, option)]
        for option, name in named:
            if name not in train.columns:
                near = nearest(name, train.columns)
                there = shown(list(train.columns), 20)
                if any(number(column) is not None for column in train.columns):
                    near = "; where its first line is no line of names, --columns gives them"
                elif len(train.columns) == 1 and name in (parts := re.split(r"[;\t|:]", there)):
                    near = f"; these are {len(parts)}, and --sep {there[len(parts[0])]!r} parts them"
                raise JobError(f"{option}: {name!r} given; {train.path} has the columns {there}{near}")
        for name in self.drop:
            for option in ("target", "group", "category"):
                if name == getattr(self, option) or (option == "category" and name in self.category):
                    raise JobError(f"drop: {name!r} given, which --{option} names too; leave one of them out")
        if self.group in self.category:
            raise JobError(f"category: {self.group!r} given, which is the client column; leave it out there")

    def look(self, train: Sheet, missing: Missing) -> tuple[dict[str, Content], dict[str, str]]:
        """Return the kind of each used column, and the reason of each column left out."""
        contents: dict[str, Content] = {}
        left_out: dict[str, str] = {}
        for name, cells in train.columns.items():
            own = name in (self.target, self.group)
            if name in self.drop:
                left_out[name] = "--drop"
            elif not own and (why := train.leaves_out(name)):
                left_out[name] = why
            else:
                contents[name] = look(cells, missing, name in self.category)
                if name == self.group != self.target and contents[name].kind == "number":
                    contents[name] = Content("category")  # 7 and 7.0 are two clients
                if contents[name].kind == "nothing":
                    if own:
                        raise ShardError(f"{train.path}: column {name!r} holds missing values alone")
                    left_out[name] = EMPTY
                    del contents[name]
        return contents, left_out


EMPTY = "every cell of it is missing"


def _listed(option: str, text: str) -> tuple[str, ...]:
    return tuple(word for word in words(option, text) if word)


def _check_used(train: Sheet, test: Sheet | None, used: Iterable[str], target: str, left: Mapping[str, str]) -> None:
    if not used:
        if EMPTY in left.values():
            rows = f"{len(train.lines)} left out for missing values"
            raise ShardError(f"{train.path}: has no complete row ({rows}): no column beside {target!r} holds anything")
        raise ShardError(f"{train.path}: has no column beside {target!r} to learn from")
    for name in (*used, target):
        if test is not None and name not in test.columns:
            raise ShardError(f"{test.path}: has no column {name!r}, which {train.path} has")


def _complete(
    sheet: Sheet, names: Sequence[str], contents: Mapping[str, Content], missing: Missing
) -> tuple[Sheet, dict[str, int]]:
    """Return the rows without a missing cell in `names`, and the number of missing cells of each name that has any."""
    gone = {name: lacks(sheet.columns[name], contents[name], missing) for name in names}
    keep = ~np.any(list(gone.values()), axis=0)
    counts = {name: int(which.sum()) for name, which in gone.items() if which.any()}
    if not keep.any():
        most = max(counts, key=lambda name: counts[name])
        fault = f"{len(keep)} left out for missing values, {counts[most]} of them in column {most!r}"
        raise ShardError(f"{sheet.path}: has no complete row ({fault})")
    return sheet.only(keep), counts


def _feature(name: str, train: Sheet, test: Sheet | None, content: Content) -> Feature:
    return numbers(name, train, test) if content.kind == "number" else category(name, train, test, content)


def _told(names: Sequence[str], became: Mapping[str, str]) -> list[str]:
    """Return a line for each column, in the file's order; of many, one line for all plain numbers."""
    plain = [name for name in names if became[name].startswith("numbers") and ";" not in became[name]]
    if len(names) <= LISTED:
        plain = []
    lines = [f"column {name!r}: {became[name]}" for name in names if name not in set(plain)]
    return [*lines, f"{len(plain)} columns are numbers: {shown(plain, 20)}"] if plain else lines
