"""A trained model used on a file: columns by name, in any order; and files that cannot be."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmpi
from fedmpi.data import make
from fedmpi.flow import Refused
from fedmpi.job import JobError
from fedmpi.records.checkpoint import write_tensors
from fedmpi.use.predict import examples
from fedmpi.use.trained import Trained, load, predictions, score

COLOURS = ("blue", "green", "red")


@pytest.fixture(scope="module")
def table() -> list[tuple[float, str, float, str]]:
    """Age, colour, height, and whether sick: which needs every column."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        age, colour, height = random.normal(), COLOURS[random.integers(3)], 5 * random.normal()
        rows.append((age, colour, height, "yes" if age + 2 * (colour == "red") + height > 0 else "no"))
    return rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, table: list[Any]) -> Trained:
    folder = tmp_path_factory.mktemp("load")
    lay(folder / "set.csv", [("age", "colour", "height", "sick"), *table])
    make("csv", folder / "set", clients=3, source_options={"source": folder / "set.csv", "target": "sick"})
    job = {"name": "t", "rounds": 2, "data": {"shards": str(folder / "set")}, "model": {"name": "logistic"}}
    fedmpi.train(job, out=folder / "run")
    return load(folder / "run")


def lay(path: Path, rows: list[Any]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def said(trained: Trained, source: Path, tmp_path: Path) -> Any:
    predictions(trained, source, tmp_path / "said.npz")
    with np.load(tmp_path / "said.npz") as columns:
        return columns["probability"]


def test_columns_go_by_name(trained: Trained, table: list[Any], tmp_path: Path) -> None:
    """Against x encoded by hand: whatever the order, with columns that the model does not know."""
    x = np.array([[age, *(colour == name for name in COLOURS), height] for age, colour, height, _ in table], np.float32)
    np.save(tmp_path / "x.npy", x)
    wanted = said(trained, tmp_path / "x.npy", tmp_path)
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
        got = said(trained, lay(tmp_path / f"{name}.csv", rows), tmp_path)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("text", "told"),
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
def test_tables_that_do_not_fit(trained: Trained, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "new.csv").write_text(text)
    with pytest.raises(Refused, match=told):
        predictions(trained, tmp_path / "new.csv", tmp_path / "said.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (np.array([["a"] * 5]), "x holds <U1; should hold numbers"),
        (np.array(1.0), "holds no examples"),
        (np.zeros((0, 5)), "holds no examples"),
        (np.zeros((2, 4)), "an example has 4 values"),
        (np.full((2, 5), np.nan), "2 examples hold NaN or infinity, the first is number 0"),
        (np.array([[None] * 5]), "cannot be read"),
    ],
)
def test_arrays_that_do_not_fit(trained: Trained, tmp_path: Path, x: Any, told: str) -> None:
    np.savez(tmp_path / "new.npz", x=x)
    with pytest.raises(Refused, match=told):
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
    wanted = said(trained, tmp_path / "a.npy", tmp_path)
    np.testing.assert_allclose(said(trained, tmp_path / "b.npy", tmp_path), wanted, rtol=1e-5)


def test_places_that_cannot_be_written(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "new.npy", np.zeros((2, 5), np.float32))
    for out, told in (("none/a.csv", "none: there is no such folder"), ("new.npy/a.csv", "is not a folder")):
        with pytest.raises(Refused, match=told):
            predictions(trained, tmp_path / "new.npy", tmp_path / out)
    with pytest.raises(JobError, match=r"end it in \.csv or \.npz"):
        predictions(trained, tmp_path / "new.npy", tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("before")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Refused, match=r"a\.csv: cannot be written: No space left on device"):
        predictions(trained, tmp_path / "new.npy", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "new.npy"]


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


@pytest.fixture
def moved(tmp_path: Path, table: list[Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was started in `a`, on the shard set `set` there; the working folder is `b` now."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    lay(tmp_path / "set.csv", [("age", "colour", "height", "sick"), *table])
    made = {"source": tmp_path / "set.csv", "target": "sick"}
    make("csv", tmp_path / "a" / "set", clients=3, holdout=0.2, source_options=made)
    make("csv", tmp_path / "b" / "set", clients=3, holdout=0.2, source_options=made, seed=5)  # of the same name
    monkeypatch.chdir(tmp_path / "a")
    job = {"name": "t", "rounds": 1, "data": {"shards": "set"}, "model": {"name": "logistic"}}
    fedmpi.train(job, out=tmp_path / "run")
    monkeypatch.chdir(tmp_path / "b")
    return tmp_path


def test_a_run_finds_its_own_set_from_any_folder(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = score(load(moved / "run"))
    monkeypatch.chdir(moved / "a")
    assert here == score(load(moved / "run"))
    assert here != score(load(moved / "run", shards=moved / "b" / "set"))


def test_a_set_that_is_gone_or_holds_other_data_is_told_with_the_run_and_the_way_out(moved: Path) -> None:
    (moved / "a" / "set").rename(moved / "a" / "elsewhere")
    with pytest.raises(Refused, match=r"run: set holds other data than the run was trained on; evaluate --on set"):
        score(load(moved / "run"))
    (moved / "b" / "set").rename(moved / "b" / "elsewhere")
    with pytest.raises(Refused, match=r"run: the shard set .* set: there is no such folder.*--on"):
        score(load(moved / "run"))


def test_a_model_of_another_round_is_told(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = moved / "run" / "checkpoints"
    (kept / "round-000001.safetensors").rename(kept / "round-000002.safetensors")
    load(moved / "run")
    assert "is the model of round 1, and the run has gone on to round 2 since" in capsys.readouterr().err


def test_a_model_that_no_run_wrote_is_refused(moved: Path) -> None:
    write_tensors(moved / "run" / "model.safetensors", {}, {"round": 1})
    with pytest.raises(Refused, match="is no model that a run wrote"):
        load(moved / "run")
