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
        ("a;sick\n1;0\n", {}, JobError, "has the columns a;sick; these are 2, and --sep ';' parts them"),
        ("1,0\n2,1\n", {}, JobError, "has the columns 1, 0; where its first line is no line of names, --columns gives"),
        ("", {}, ShardError, "has no complete row"),
        ("a,sick\n?,1\n", {}, ShardError, r"has no complete row \(1 left out"),
        ("a,sick\n1,2,3\n", {}, ShardError, "line 2: 3 cells where there are 2 columns"),
        ("a,a\n1,2\n", {}, ShardError, "should name each column once: a, a"),
        ("a,sick\n1,0\n\ninf,1\n2,0\n", {}, ShardError, r"line 4, column 'a': 'inf' seems to be no finite number"),
        ("a,sick\n1,0\n1e39,1\n", {}, ShardError, r"line 3, column 'a': 1e39"),
        ("a,sick\n1,0.5\n2,inf\n", {}, ShardError, "line 3, column 'sick': 'inf' seems to be no finite number"),
        ("a,sick\n1,x\n2,y\n", {"task": "regression"}, ShardError, "column 'sick': holds text"),
        ("a,sick\n" + "".join(f"k{n},1\n" for n in range(1001)), {}, ShardError, "1001 different texts.*--drop a"),
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
    with pytest.raises(ShardError, match=r"test\.csv, line 2, column 'age': 'old' is no number"):
        csv(train, target="sick", test_source=wrong)
    for text, told in (("a,sick\n1\0,1\n", "line 2: holds a zero"), ('a,sick\n1,"x\n2,y\n', "is never closed")):
        with pytest.raises(ShardError, match=told):
            csv(stored(tmp_path, text), target="sick")
    (tmp_path / "set.csv").write_bytes(b"a,sick\n\xff,1\n")
    with pytest.raises(ShardError, match="cannot be read as a table of UTF-8 text"):
        csv(tmp_path / "set.csv", target="sick")


AGES = ["51.2", "48", "60.5", "39", "44.1", "57", "62", "35.5"]


def mixed(odd: str, name: str = "bp") -> str:
    """Eight numbers and one odd cell in line 5, beside labels."""
    cells = [*AGES[:3], odd, *AGES[3:]]
    return f"{name};sick\n" + "".join(f'"{cell}";{"yn"[place % 2]}\n' for place, cell in enumerate(cells))


@pytest.mark.parametrize(
    "odd", ["1,000", "30%", "51,26", "2024-01-10", "1_3", "\u221212", "\uff11\uff12", "0x1F", "<5", "inf"]
)
def test_one_odd_cell_among_numbers_is_an_error_with_its_place(tmp_path: Path, odd: str) -> None:
    path = stored(tmp_path, mixed(odd))
    with pytest.raises(ShardError, match=r"line 5, column 'bp': .*--category bp"):
        csv(path, target="sick", sep=";")
    assert csv(path, target="sick", sep=";", category="bp").x.shape == (9, 9)


@pytest.mark.parametrize("odd", ["", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", ".", "-", "<NA>"])
def test_a_known_marker_among_numbers_is_missing(tmp_path: Path, odd: str) -> None:
    columns = csv(stored(tmp_path, mixed(odd)), target="sick", sep=";")
    np.testing.assert_array_equal(columns.x[:, 0], np.array(AGES, np.float64).astype(np.float32))
    assert columns.features == ("bp",)
    assert columns.became[0] == "column 'bp': numbers, 35.5 to 62; 1 missing"


def test_several_markers_of_ones_own(tmp_path: Path) -> None:
    text = "bp,colour,sick\n1,red,y\n2,lost,n\n-999.0,red,y\n4,NA,n\n5,blue,y\n"
    columns = csv(stored(tmp_path, text), target="sick", missing="lost,NA,-999")
    np.testing.assert_array_equal(columns.x, [[1, 0, 1], [5, 1, 0]])


def test_among_words_na_is_a_word_and_told(tmp_path: Path) -> None:
    """Namibia is NA; only a person can say what it is, so it is told, and among targets asked for."""
    text = "country,bp,sick\nNA,1,y\nZA,NA,n\nNA,3,y\nBW,4,n\n"
    path = stored(tmp_path, text)
    columns = csv(path, target="sick")
    assert columns.features == ("country=BW", "country=NA", "bp")
    assert "'NA' (--missing NA, if it means none)" in columns.became[0]
    assert csv(path, target="sick", missing="NA").features == ("country=BW", "bp")
    with pytest.raises(
        ShardError, match=r"line 2, column 'country': 'NA' may be a missing target or a class; say --mi"
    ):
        csv(path, target="country")
    assert csv(path, target="country", category="country").classes == ("BW", "NA")
    assert csv(path, target="country", missing="NA").classes == ("BW",)


def test_what_each_column_became(tmp_path: Path) -> None:
    rows = [f"{n},{n % 2}.0,k{n},007,{40000000 + n},2024-01-{n + 1:02},,s{n % 3}," for n in range(20)]
    text = ",y,key,code,id,day,none,site,\n" + "\n".join(rows) + "\n"
    became = dict(told[8:].split("': ", 1) for told in csv(stored(tmp_path, text), target="y", group="site").became)
    assert became["Unnamed: 0"].startswith("left out: an index")
    assert became["y"].endswith("only whole ones (0, 1): if they are classes, --task classification")
    assert became["key"] == "category with 20 values, most of them once"
    assert became["code"].endswith("some begin with 0: if they are codes, --category code")
    assert "whole ones are rounded to float32" in became["id"]
    assert "look like dates" in became["day"]
    assert became["none"] == "left out: every cell of it is missing"
    assert became["site"] == "clients, 3 of them"
    assert became["Unnamed: 8"].startswith("left out: it has no name and no cell: a comma at the end of lines")


def test_a_test_files_cells_go_by_the_same_rules(tmp_path: Path) -> None:
    train = stored(tmp_path, "a,b,y\n1,red,p\n2,blue,q\n3,red,p\n")
    columns = csv(train, target="y", test_source=stored(tmp_path, "a,b,y,c\nNA,red,p,\n5,pink,r,\n", "t.csv"))
    assert columns.test is not None
    np.testing.assert_array_equal(columns.test[0], [[5, 0, 0]])
    assert "1 cells of" in columns.became[1]
    assert "r in" in columns.became[2]
    with pytest.raises(ShardError, match=r"t\.csv, line 2, column 'a': '1_3'"):
        csv(train, target="y", test_source=stored(tmp_path, "a,b,y\n1_3,red,p\n", "t.csv"))


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (["01", "10", "02"], ("01", "02", "10")),
        (["+1", "-1", "1"], ("-1", "1")),
        (["0.10000001", "0.1", "0.2"], ("0.1", "0.10000001", "0.2")),
    ],
)
def test_classes_keep_apart_what_is_apart(tmp_path: Path, target: list[str], classes: tuple[str, ...]) -> None:
    text = "x,y\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(target))
    columns = csv(stored(tmp_path, text), target="y", task="classification")
    assert columns.classes == classes
    assert [float(columns.classes[label]) for label in columns.y] == [float(cell) for cell in target]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,y,\n1,p,\n2,q,\n", 2),
        ("a,y\n1,p,\n2,q,\n", 2),
        ("a,y,\n1,p\n2,q\n", 2),
        ("a,y\n1,p,\n2,q\n", "line 2: 3 cells where there are 2 columns; the last is empty: a trailing comma"),
        ("a,y\n1,2,p\n", "line 2: 3 cells where there are 2 columns; --sep ','"),
        ("a,,y\n1,2,p\n1,3,q\n", "column 2 has no name; give it one there, or --drop 'Unnamed: 1'"),
    ],
)
def test_commas_at_the_end_of_lines(tmp_path: Path, text: str, rows: int | str) -> None:
    if isinstance(rows, str):
        with pytest.raises(ShardError, match=rows):
            csv(stored(tmp_path, text), target="y")
    else:
        columns = csv(stored(tmp_path, text), target="y")
        assert (columns.features, columns.x.ravel().tolist()) == (("a",), [1, 2])
        assert "comma" in " ".join(columns.became)


def test_given_names_may_repeat_the_line_of_names(tmp_path: Path) -> None:
    path = stored(tmp_path, ",a,y\n0,red,p\n1,blue,q\n")
    columns = csv(path, target="y", columns="row,a,y", drop="row")
    assert (columns.features, len(columns.y)) == (("a=blue", "a=red"), 2)
    assert "is no row" in columns.became[0]
    with pytest.raises(ShardError, match="line 1: .* seems to be a line of names"):
        csv(stored(tmp_path, "a,b,c,y\nx,x,x,p\n"), target="y", columns="k,l,m,y")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"drop": "y"}, "drop: 'y' given, which --target names too"),
        ({"group": "a", "drop": "a"}, "drop: 'a' given, which --group names too"),
        ({"category": "d"}, "category: 'd' given; .* has the columns a, b, y"),
        ({"category": "y", "task": "regression"}, "category: 'y' given, which --task regression learns"),
        ({"target": "Y"}, "target: 'Y' given; .*did you mean 'y'"),
    ],
)
def test_options_that_contradict_each_other(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(JobError, match=told):
        csv(stored(tmp_path, "a,b,y\n1,x,p\n2,z,q\n"), **({"target": "y"} | options))


def test_a_tab_and_a_name_with_a_comma(tmp_path: Path) -> None:
    columns = csv(stored(tmp_path, 'a\t"b,c"\ty\n1\t2\tp\n3\t4\tq\n'), target="y", sep="\\t", drop='"b,c"')
    assert columns.features == ("a",)
