"""Examples out of a file: columns by name, in any order; and files that cannot be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmpi.flow import Refused
from fedmpi.use.examples import examples
from fedmpi.use.load import Trained
from fedmpi.use.predict import predictions
from tests.table import COLOURS, lay, probabilities


def test_columns_go_by_name(trained: Trained, table: list[Any], tmp_path: Path) -> None:
    """Against x encoded by hand: whatever the order, with columns that the model does not know."""
    x = np.array([[age, *(colour == name for name in COLOURS), height] for age, colour, height, _ in table], np.float32)
    np.save(tmp_path / "x.npy", x)
    wanted = probabilities(trained, tmp_path / "x.npy", tmp_path)
    assert len(np.unique(wanted)) > 50
    names = ("age", *(f"colour={name}" for name in COLOURS), "height")
    files: dict[str, list[Any]] = {
        "training": [("age", "colour", "height", "sick"), *table],
        "shuffled": [("who", "height", "colour", "age"), *(("me", h, c, a) for a, c, h, _ in table)],
        "encoded": [names[::-1], *x[:, ::-1].tolist()],
        "headless": x.tolist(),
        "others": ["abcde", *x.tolist()],
    }
    for name, rows in files.items():
        got = probabilities(trained, lay(tmp_path / f"{name}.csv", rows), tmp_path)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("age,colour\n1,red\n", "no column for height; it has age, colour"),
        ("age,height\n1,2\n", "no column for colour=blue, colour=green, colour=red"),
        ("a,b\n1,2\n", "no column for age, colour=blue"),
        ("age,colour,height\n1,red,2\n\n1,red,tall\n", "line 4, column height: 'tall' is not a number"),
        ("age,colour,height\n1,red,nan\n", "line 2, column height: 'nan' is a missing value"),
        ("age,colour,height\n1,red,1_3\n", "line 2, column height: '1_3' seems to be a number with"),
        ("age,colour,height\n1,red,\uff11\n", "line 2, column height: '\uff11' seems to be a number whose digits"),
        ("age,colour,height\n1,red,inf\n", "line 2, column height: 'inf' seems to be no finite number"),
        ("age,colour,height\n1,red,1e39\n", "line 2, column height: '1e39' is not a finite float32"),
        ("age,colour,height\n1,?,2\n", "line 2, column colour: '\\?' is a missing value"),
        ("age,colour,height\n1,NA,2\n", "line 2, column colour: 'NA' is a missing value"),
        ("age,colour,height\n1,re\0d,2\n", "line 2: holds a zero character"),
        ("age,colour,height\n1,red,2,\n", "line 2: 4 cells where there are 3 columns; a comma at the end"),
        ("age,colour,height\n1,,2\n", "line 2, column colour: is empty"),
        ("age,colour,height\n1,red\n", "line 2: 2 cells where there are 3 columns"),
        ("age,age,colour,height\n1,1,red,2\n", "names the column 'age' twice"),
        ("1,2,3,4,5\n1,2,x,4,5\n", "column 3: 'x' is not a number"),
        ("1,2,3\n", r"has 3 values; the model takes x \(5,\)"),
        ("age,colour,height\n", "holds no examples"),
        ("", "holds no examples"),
    ],
)
def test_tables_that_do_not_fit(trained: Trained, tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "new.csv").write_text(text)
    with pytest.raises(Refused, match=fault):
        predictions(trained, tmp_path / "new.csv", tmp_path / "said.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


@pytest.mark.parametrize(
    ("x", "fault"),
    [
        (np.array([["a"] * 5]), "x holds <U1; should hold numbers"),
        (np.array(1.0), "holds no examples"),
        (np.zeros((0, 5)), "holds no examples"),
        (np.zeros((2, 4)), "an example has 4 values"),
        (np.full((2, 5), np.nan), "2 examples hold NaN or infinity, the first is number 0"),
        (np.array([[None] * 5]), "cannot be read"),
    ],
)
def test_arrays_that_do_not_fit(trained: Trained, tmp_path: Path, x: Any, fault: str) -> None:
    np.savez(tmp_path / "new.npz", x=x)
    with pytest.raises(Refused, match=fault):
        predictions(trained, tmp_path / "new.npz", tmp_path / "said.csv")


def test_archives_cut_short(trained: Trained, tmp_path: Path) -> None:
    np.savez(tmp_path / "new.npz", x=np.zeros((2, 5)))
    whole = (tmp_path / "new.npz").read_bytes()
    for length in range(0, len(whole), 40):
        (tmp_path / "new.npz").write_bytes(whole[:length])
        with pytest.raises(Refused, match="cannot be read"):
            predictions(trained, tmp_path / "new.npz", tmp_path / "said.csv")


@pytest.mark.parametrize("dtype", [">f4", "<f8", "u2", "i8", "?", "f2"])
def test_any_numbers_will_do(trained: Trained, tmp_path: Path, dtype: str) -> None:
    x = np.array([[1, 0, 0, 1, 1], [0, 1, 0, 0, 1]])
    np.save(tmp_path / "a.npy", x.astype(np.float32))
    np.save(tmp_path / "b.npy", x.astype(dtype))
    wanted = probabilities(trained, tmp_path / "a.npy", tmp_path)
    np.testing.assert_allclose(probabilities(trained, tmp_path / "b.npy", tmp_path), wanted, rtol=1e-5)


def test_what_no_training_example_held_is_told(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.csv").write_text("age,colour,height\n1,pink,2\n1,red,2\n1,Red,2\n")
    predictions(trained, tmp_path / "new.csv", tmp_path / "said.csv")
    assert "column colour: 2 cells hold what no training example did ('Red', 'pink')" in capsys.readouterr().err
    (tmp_path / "new.csv").write_text("a,b,c,d,e\n1,2,3,4,5\n")
    predictions(trained, tmp_path / "new.csv", tmp_path / "said.csv")
    assert "names none of the columns that the model knows" in capsys.readouterr().err


def test_a_first_row_that_is_no_line_of_names_is_no_example_lost(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("1,NA\n2,3\n")
    with pytest.raises(Refused, match="its first row is neither names nor numbers: it holds '1' and 'NA'"):
        examples(tmp_path / "new.csv", (2,), ())


def test_a_source_that_is_no_file_is_not_waited_for(trained: Trained, tmp_path: Path) -> None:
    for suffix in ("csv", "npy", "npz"):
        os.mkfifo(tmp_path / f"new.{suffix}")
        with pytest.raises(Refused, match="cannot be read"):
            predictions(trained, tmp_path / f"new.{suffix}", tmp_path / "said.csv")
