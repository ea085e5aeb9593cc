"""Tables whose every cell's meaning is known to who wrote them: what is accepted must be those numbers and words."""

from __future__ import annotations

import csv as writer
import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedmpi.data import make as make_shards
from fedmpi.data.importers.table import csv
from tests.fuzz.judge import Case, Wrong

MARKERS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", ".", "-"]  # among numbers: nothing was measured
ODD = [
    "1,000", "30%", "3,5", "2021-03-04", "1_3", "\u22125", "0x1F", "1e999", "inf", "-Infinity", "\uff11\uff12",
    "\u0663",
    "5 mg", "1.2.3", "12:30", "high", "<5", ">100", "$4", "1/2", "TRUE", "1e", "+", "e5", "--5", "1 000", "\u00bd",
    "1d3", "1\u00a0000", "5\u00b11", "#N/A!", "1'000", "(5)", "1.5f", "0b11", "1j", "_1", "1__0", "nan1", "4-5",
]  # fmt: skip
WORDS = [
    "red",
    "green",
    "blue",
    "dark red",
    "ja",
    "nein",
    "a=b",
    "x;y",
    "A",
    "a",
    "\u00e9t\u00e9",
    "O'Brien",
    "10 mg",
    "NaNny",
]


@dataclass
class Column:
    """One column's cells as written, and what each means: a float, a word, or None where nothing was measured."""

    name: str
    cells: list[str]
    truth: list[float | str | None]
    odd: frozenset[int] = frozenset()  # rows whose cell, among numbers, is neither a number nor surely missing


@dataclass
class Table:
    columns: list[Column]
    target: str
    options: dict[str, Any] = field(default_factory=dict)

    def rows(self) -> list[list[str]]:
        return [
            [column.name for column in self.columns],
            *map(list, zip(*(c.cells for c in self.columns), strict=True)),
        ]


def make(rng: random.Random, folder: Path) -> Case:
    """A table of a few columns, some cells of which are odd, and now and then a file that is none."""
    count = rng.randrange(4, 40)
    columns = [_column(rng, place, count) for place in range(rng.randrange(1, 5))]
    target = _target(rng, count)
    columns.insert(rng.randrange(len(columns) + 1), target)
    table = Table(columns, target.name)
    told = [
        f"{count} rows",
        *(_spoil(rng, column) for column in columns if column is not target and rng.random() < 0.5),
    ]
    if rng.random() < 0.15:
        chosen = rng.choice(columns)
        if chosen is not target and len(columns) > 2:
            table.options["drop"] = chosen.name
            told.append(f"drop {chosen.name}")
    refuse = _odd(table)
    data, said, lawful, must = _written(rng, table)
    told.append(said)
    path = folder / "table.csv"
    path.write_bytes(data)
    whole = rng.random() < 0.2

    def run() -> None:
        if whole:
            shards = make_shards(
                "csv",
                folder / "set",
                clients=1,
                holdout=0.0,
                source_options={"source": path, "target": target.name, **table.options},
            )
            x, y = (part.numpy() for part in shards.train(0))
            _compare(table, x, y, shards.classes, shards.features, ordered=False)
        else:
            columns = csv(path, target.name, **table.options)
            _compare(table, columns.x, columns.y, columns.classes, columns.features, ordered=True)

    def read() -> None:
        csv(path, target.name, **table.options)

    return Case("; ".join(filter(None, told)), run if lawful else read, refuse or must)


def _column(rng: random.Random, place: int, count: int) -> Column:
    if rng.random() < 0.7:
        cells, truth = zip(*(_number(rng) for _ in range(count)), strict=True)
        return Column(f"n{place}", list(cells), list(truth))
    words = rng.sample(WORDS, rng.randrange(1, 5))
    cells = [rng.choice(words) for _ in range(count)]
    return Column(f"w{place}", cells, list(cells))


def _number(rng: random.Random) -> tuple[str, float]:
    """A plain decimal number as somebody may write it."""
    value = rng.choice(
        [rng.randrange(-50, 200), rng.uniform(-5, 5), rng.uniform(-1, 1) * 10.0 ** rng.randrange(-20, 20)]
    )
    text = rng.choice([repr(value), f"{value:.3f}", f"{value:.4e}", f"{value:+.2f}", f" {value:.5f} ", f"{value:.1E}"])
    return text, float(text)


def _target(rng: random.Random, count: int) -> Column:
    kind = rng.choice(["whole", "words", "floats"])
    if kind == "words":
        words = rng.sample(["yes", "no", "maybe", "later"], rng.randrange(2, 4))
        cells = [rng.choice(words) for _ in range(count)]
        return Column("y", cells, list(cells))
    values = [rng.randrange(3) if kind == "whole" else round(rng.uniform(-3, 3), 4) + 0.00001 for _ in range(count)]
    return Column("y", [str(value) for value in values], [float(value) for value in values])


def _spoil(rng: random.Random, column: Column) -> str:
    """Put something odd into a few cells: fewer than half, so that what the column is stays plain."""
    few = rng.sample(range(len(column.cells)), max(1, len(column.cells) // rng.choice([4, 8, 100])))
    if column.name.startswith("w"):
        for row in few:
            column.cells[row], column.truth[row] = "", None
        return f"{column.name}: {len(few)} empty"
    cell = rng.choice(MARKERS) if rng.random() < 0.5 else rng.choice(ODD)
    for row in few:
        column.cells[row], column.truth[row] = cell, None
    column.odd = frozenset(few if cell in ODD else ())
    return f"{column.name}: {len(few)} x {cell!r}"


def _odd(table: Table) -> bool:
    """Whether a row that lacks nothing holds an odd cell: one that is left out anyhow may hold what it likes."""
    used = [column for column in table.columns if column.name != table.options.get("drop")]
    odd = frozenset().union(*(column.odd for column in used))
    return any(all(column.truth[row] is not None or row in column.odd for column in used) for row in odd)


def _written(rng: random.Random, table: Table) -> tuple[bytes, str, bool, bool]:
    """`(file, what was done, whether it is still that table, whether it must be refused)`."""
    rows = table.rows()
    plain = _text(rows)
    if rng.random() < 0.5:
        return plain.encode(), "", True, False
    place = rng.randrange(len(plain))
    row = rng.randrange(1, len(rows))
    ragged = _text([*rows[:row], rows[row] + ["1"] * rng.choice([1, 3]), *rows[row + 1 :]])
    short = _text([*rows[:row], rows[row][:-1], *rows[row + 1 :]])
    index = _text([["", *rows[0]], *([str(place), *cells] for place, cells in enumerate(rows[1:]))])
    other = rng.choice(";\t|")
    ways: dict[str, Callable[[], tuple[bytes, bool, bool]]] = {
        "lines of Windows": lambda: (plain.replace("\n", "\r\n").encode(), True, False),
        "a byte order mark": lambda: (b"\xef\xbb\xbf" + plain.encode(), True, False),
        "blank lines": lambda: (plain.replace("\n", "\n\n").encode(), True, False),
        "no last newline": lambda: (plain.rstrip("\n").encode(), True, False),
        "every cell quoted": lambda: (_text(rows, quoting=writer.QUOTE_ALL).encode(), True, False),
        "a comma behind every line": lambda: (plain.replace("\n", ",\n").encode(), True, False),
        "pandas' index": lambda: (index.encode(), True, False),
        "a longer row": lambda: (ragged.encode(), False, True),
        "a shorter row": lambda: (short.encode(), False, True),
        "another separator, untold": lambda: (_text(rows, delimiter=other).encode(), False, True),
        "a NUL": lambda: (plain[:place].encode() + b"\0" + plain[place:].encode(), False, True),
        "Latin-1": lambda: (plain.encode() + b"\xe9\n", False, True),
        "UTF-16": lambda: (plain.encode("utf-16"), False, True),
        "a quotation mark": lambda: ((plain[:place] + '"' + plain[place:]).encode(), False, False),
        "cut short": lambda: (plain[:place].encode(), False, False),
        "nothing": lambda: (b"", False, True),
        "the names alone": lambda: (_text(rows[:1]).encode(), False, True),
        "no names": lambda: (_text(rows[1:]).encode(), False, False),
        "a name twice": lambda: (_text([[rows[0][0]] * len(rows[0]), *rows[1:]]).encode(), False, True),
        "no target": lambda: (_text([[f"c{n}" for n in range(len(rows[0]))], *rows[1:]]).encode(), False, True),
        "a cell of 200,000 letters": lambda: (plain.encode() + b"x" * 200_000, False, True),
        "noise": lambda: (rng.randbytes(400), False, True),
        "zeros": lambda: (bytes(400), False, True),
    }
    name = rng.choice(list(ways))
    if name == "another separator, untold" and rng.random() < 0.5:
        table.options["sep"] = "\\t" if other == "\t" else other
        return _text(rows, delimiter=other).encode(), f"separated by {other!r}", True, False
    return ways[name]()[0], name, *ways[name]()[1:]


def _text(rows: list[list[str]], **how: Any) -> str:
    out = io.StringIO()
    writer.writer(out, lineterminator="\n", **how).writerows(rows)
    return out.getvalue()


def _compare(table: Table, x: Any, y: Any, classes: tuple[str, ...], features: tuple[str, ...], ordered: bool) -> None:
    """Every row that lacks nothing is there, each of its features what the cell means; no other is."""
    used = [column for column in table.columns if column.name != table.options.get("drop")]
    whole = [row for row in range(len(used[0].cells)) if all(column.truth[row] is not None for column in used)]
    wanted = np.zeros((len(whole), len(features)), dtype=np.float64)
    by_name = {column.name: column for column in used if column.name != table.target}
    seen = set()
    for place, feature in enumerate(features):
        name = feature if feature in by_name else next((n for n in by_name if feature.startswith(f"{n}=")), None)
        if name is None:
            raise Wrong(f"a feature {feature!r} of no column")
        column, value = by_name[name], None if feature in by_name else feature[len(name) + 1 :]
        if (value is None) != column.name.startswith("n"):
            raise Wrong(f"column {name!r} became {feature!r}")
        seen.add(name)
        wanted[:, place] = [column.truth[r] if value is None else column.truth[r] == value for r in whole]
    if seen != set(by_name):
        raise Wrong(f"columns {sorted(set(by_name) - seen)} are gone")
    if np.asarray(x).shape != wanted.shape:
        raise Wrong(f"x is {np.asarray(x).shape}, it should be {wanted.shape}")
    target = next(column for column in used if column.name == table.target)
    truth = [target.truth[row] for row in whole]
    labels = [classes[int(value)] for value in y] if classes else [float(value) for value in y]
    meant = [str(value) if isinstance(value, str) else float(value) for value in truth]
    if classes and not isinstance(meant[0], str):
        labels = [float(label) for label in labels]
    rows = [(*map(float, row), label) for row, label in zip(np.asarray(x, np.float32), labels, strict=True)]
    with np.errstate(over="ignore", under="ignore"):
        right = [
            (*map(float, row), value if classes else float(np.float32(value)))
            for row, value in zip(wanted.astype(np.float32), meant, strict=True)
        ]
    key = repr
    if (rows if ordered else sorted(rows, key=key)) != (right if ordered else sorted(right, key=key)):
        pair = next(
            (a, b) for a, b in zip(sorted(rows, key=key), sorted(right, key=key), strict=True) if a != b or ordered
        )
        raise Wrong(f"a row is {pair[0]}, it should be {pair[1]}")
