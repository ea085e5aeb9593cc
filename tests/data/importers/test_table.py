"""CSV tables: numbers, categories, missing cells, and messages that name file, line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmpi.data import ShardError
from fedmpi.data.importers import csv
from fedmpi.job import JobError

TABLE = """age, colour, site, sick
30, red, north, yes
40, "blue", south, no

?, red, south, no
50.5, blue, north,
60, green, north, yes
"""


def stored(tmp_path: Path, text: str, name: str = "set.csv") -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_numbers_categories_and_labels(tmp_path: Path) -> None:
    path = stored(tmp_path, TABLE)
    columns = csv(path, target="sick", group="site")
    np.testing.assert_array_equal(  # age, then blue, green, red
        columns.x, np.array([[30, 0, 0, 1], [40, 1, 0, 0], [60, 0, 1, 0]], np.float32), strict=True
    )
    assert columns.y.tolist() == [1, 0, 1]
    assert (columns.task, columns.classes) == ("classification", ("no", "yes"))
    assert columns.groups is not None
    assert columns.groups.tolist() == ["north", "south", "north"]
    assert columns.notes == (f"{path}: 2 rows with missing values left out",)


def test_a_test_file_speaks_the_training_files_categories(tmp_path: Path) -> None:
    test = stored(tmp_path, "sick;colour;age\nno;redder;1\nmaybe;red;2\n", "test.csv")
    train = stored(tmp_path, TABLE.replace(", ", ";").replace("north,", "north;"))
    columns = csv(train, target="sick", test_source=test, sep=";", drop="site")
    assert columns.test is not None
    assert columns.test[0].tolist() == [[1, 0, 0, 0], [2, 0, 0, 1]]
    assert columns.classes == ("maybe", "no", "yes")
    assert columns.test[1].tolist() == [1, 0]
    assert columns.groups is None


def test_a_missing_cell_in_an_unused_column_costs_no_row(tmp_path: Path) -> None:
    assert len(csv(stored(tmp_path, TABLE), target="sick", drop="age").y) == 4


def test_a_file_without_a_line_of_names(tmp_path: Path) -> None:
    columns = csv(stored(tmp_path, "1,2.5\n3,4.5\n"), target="b", columns="a, b")
    assert (columns.x.tolist(), columns.y.tolist(), columns.task) == ([[1], [3]], [2.5, 4.5], "regression")


@pytest.mark.parametrize(
    ("target", "options", "task", "classes"),
    [
        (["1", "0"], {}, "classification", ("0", "1")),
        (["1", "0"], {"task": "binary"}, "binary", ("0", "1")),
        (["1", "0"], {"task": "regression"}, "regression", ()),
        (["1.0", "0"], {}, "regression", ()),
        (["1.0", "0"], {"task": "classification"}, "classification", ("0", "1")),
        (["1.0", "x"], {}, "classification", ("1.0", "x")),
    ],
)
def test_what_the_target_says(
    tmp_path: Path, target: list[str], options: dict[str, Any], task: str, classes: tuple[str, ...]
) -> None:
    columns = csv(stored(tmp_path, f"x,y\n1,{target[0]}\n2,{target[1]}\n"), target="y", **options)
    assert (columns.task, columns.classes) == (task, classes)


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        (TABLE, {"target": "ill"}, JobError, "target: 'ill' given; .*set.csv has the columns age, colour, site, sick"),
        (TABLE, {"group": "town"}, JobError, "group: 'town' given"),
        (TABLE, {"drop": "town"}, JobError, "drop: 'town' given"),
        (TABLE, {"drop": "age,colour,site"}, ShardError, "no column beside 'sick'"),
        (TABLE, {"sep": "::"}, JobError, "sep: '::' given"),
        (TABLE, {"sep": ";"}, JobError, "target: 'sick' given; .* has the columns age, colour, site, sick"),
        ("", {}, ShardError, "has no complete row"),
        ("a,sick\n?,1\n", {}, ShardError, r"has no complete row \(1 left out"),
        ("a,sick\n1,2,3\n", {}, ShardError, "line 2: 3 cells where there are 2 columns"),
        ("a,a\n1,2\n", {}, ShardError, "should name each column once: a, a"),
        ("a,sick\n1,0\n\nnan,1\n", {}, ShardError, r"line 4, column 'a': nan is not a finite float32"),
        ("a,sick\n1,0\n1e39,1\n", {}, ShardError, r"line 3, column 'a': 1e39"),
        ("a,sick\n1,0.5\n2,inf\n", {}, ShardError, "column 'sick' holds a value that is not a finite number"),
        ("a,sick\n1,x\n2,y\n", {"task": "regression"}, ShardError, "column 'sick': holds text"),
        ("a,sick\n" + "".join(f"k{n},1\n" for n in range(1001)), {}, ShardError, "1001 different texts.*drop=a"),
    ],
)
def test_what_cannot_be(
    tmp_path: Path, text: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        csv(stored(tmp_path, text), **({"target": "sick"} | options))


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="source: there is no file"):
        csv(tmp_path / "none.csv", target="sick")
    train = stored(tmp_path, TABLE)
    with pytest.raises(JobError, match="test_source: there is no file"):
        csv(train, target="sick", test_source=tmp_path / "none.csv")
    with pytest.raises(ShardError, match=r"test\.csv: has no column 'age'"):
        csv(train, target="sick", test_source=stored(tmp_path, "colour,site,sick\nred,north,no\n", "test.csv"))
    wrong = stored(tmp_path, "age,colour,site,sick\nold,red,north,no\n", "test.csv")
    with pytest.raises(ShardError, match=r"test\.csv: column 'age' holds text"):
        csv(train, target="sick", test_source=wrong)
    (tmp_path / "set.csv").write_bytes(b"a,sick\n\xff,1\n")
    with pytest.raises(ShardError, match="cannot be read as a table of UTF-8 text"):
        csv(tmp_path / "set.csv", target="sick")
