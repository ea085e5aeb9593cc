"""From a source to a shard set, by names and options as a command line has them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedmpi.data import ShardError, ShardSet, deal_options, make
from fedmpi.job import JobError


@pytest.mark.parametrize(
    ("partition", "options"),
    [
        ("iid", {}),
        ("shards", {"per_client": "3"}),
        ("dirichlet", {"alpha": "0.5"}),
        ("dirichlet-client", {"alpha": 0.5}),
    ],
)
def test_the_sum_over_clients_is_the_source(tmp_path: Path, partition: str, options: dict[str, Any]) -> None:
    from sklearn.datasets import load_digits

    lines: list[str] = []
    shards = make(
        "digits", tmp_path, clients=10, partition=partition, partition_options=options, files=3, progress=lines.append
    )
    got = [
        [*x.flatten().tolist(), label]
        for client in range(10)
        for part in (shards.train(client), shards.heldout(client))
        for x, label in zip(part[0], part[1].tolist(), strict=True)
    ]
    bunch = load_digits()
    wanted = sorted([*x.tolist(), y] for x, y in zip(bunch.data, bunch.target, strict=True))
    if partition == "dirichlet-client":
        assert len(got) == len(wanted) - len(wanted) % 10
        assert "7 examples are left over and go to nobody" in lines
    else:
        assert sorted(got) == wanted
    assert shards.test_examples == shards.heldout_examples == pytest.approx(0.2 * len(got), abs=5)
    assert shards.id(3) == "client-3"


def test_the_same_seed_makes_the_same_set(tmp_path: Path) -> None:
    digests = [make("linear", tmp_path / str(n), clients=4, seed=seed).digest for n, seed in enumerate((1, 1, 2))]
    assert digests[0] == digests[1] != digests[2]


def test_natural_clients_have_their_names(tmp_path: Path) -> None:
    x, y, groups = np.arange(12.0)[:, None], np.arange(12) % 2, np.array(["zoe", "adam", "eve"] * 4)
    np.savez(tmp_path / "set.npz", x=x, y=y, client=groups)
    shards = make("npz", tmp_path / "out", partition="natural", source_options={"source": str(tmp_path / "set.npz")})
    assert [shards.id(client) for client in range(3)] == ["adam", "eve", "zoe"]
    kept = np.concatenate([shards.train(0)[0], shards.heldout(0)[0]])
    assert sorted(kept.ravel().tolist()) == [1, 4, 7, 10]


def test_a_split_of_its_own_is_kept(tmp_path: Path) -> None:
    x, y = np.arange(12.0)[:, None], np.arange(12) % 2
    np.savez(tmp_path / "set.npz", x=x, y=y, x_test=x[:3] + 100, y_test=y[:3])
    options = {"source": tmp_path / "set.npz"}
    shards = make("npz", tmp_path / "out", clients=3, source_options=options)
    assert shards.test()[0].flatten().tolist() == [100, 101, 102]
    assert (shards.examples, shards.heldout_examples) == (12, 0)
    shards = make("npz", tmp_path / "out", clients=3, source_options=options, holdout=0.5, overwrite=True)
    assert (shards.examples, shards.heldout_examples, shards.test_examples) == (6, 6, 3)


def test_an_importer_and_a_partition_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_of_make.py").write_text(
        "import numpy as np\n"
        "from fedmpi.data import Columns\n"
        "def source(rng, examples: int = 3):\n"
        "    return Columns(rng.random((examples, 2)), np.arange(examples), 'classification', tuple('abcdefgh'))\n"
        "def halves(y):\n"
        "    return {'first': np.arange(len(y) // 2), 'second': np.arange(len(y) // 2, len(y))}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = "mine_of_make:source", "mine_of_make:halves"
    shards = make(
        names[0], tmp_path / "out", clients=2, partition=names[1], source_options={"examples": "8"}, holdout=0
    )
    assert shards.train(shards.find("second"))[1].tolist() == [4, 5, 6, 7]
    assert deal_options(*names, {"examples": "8"}) == ({"examples": "8"}, {})
    sys.modules.pop("mine_of_make")


def test_options_go_to_whom_they_belong() -> None:
    assert deal_options("idx", "dirichlet", {"source": "a", "alpha": "1"}) == ({"source": "a"}, {"alpha": "1"})
    with pytest.raises(JobError, match=r"beta: is not an option here; linear has examples, .*; iid has none"):
        deal_options("linear", "iid", {"beta": "1"})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"source": "mnist"}, "importer: 'mnist' given; there are digits, breast_cancer"),
        ({"partition": "iidd"}, "partition: 'iidd' given; there are iid, shards"),
        ({"source_options": {"slop": 1}}, "importer.slop: is not an option of linear; it has examples, slope"),
        ({"source_options": {"examples": "0"}}, "importer.examples: '0' given"),
        ({"partition": "dirichlet"}, "partition: '?dirichlet'?: deals by class labels"),
        ({"partition": "natural", "clients": None}, "no client column"),
        ({"source": "npz"}, "importer.source: is missing"),
        ({"clients": None}, "clients: is missing"),
        ({"clients": 0}, "clients: 0 given"),
        ({"clients": 1001}, "1000 examples are too few for 1001 clients"),
        ({"files": 6}, "there are only 5 clients"),
        ({"holdout": 2}, "holdout: 2 given"),
    ],
)
def test_what_cannot_be_made(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        make(**({"source": "linear", "out": tmp_path / "set", "clients": 5} | asked))
    assert not list(tmp_path.iterdir())


def test_features_have_their_names(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("age,colour,sick\n1,red,no\n2,blue,yes\n3,red,no\n")
    options = {"source": tmp_path / "set.csv", "target": "sick"}
    shards = make("csv", tmp_path / "out", clients=2, source_options=options)
    assert shards.features == ("age", "colour=blue", "colour=red")
    assert make("linear", tmp_path / "line", clients=2).features == ()
    manifest = tmp_path / "line/manifest.json"
    before, table = ShardSet.open(tmp_path / "line").digest, json.loads(manifest.read_text())
    del table["features"], table["checksum"]  # as sets were written before
    manifest.write_text(json.dumps(table))
    assert ShardSet.open(tmp_path / "line").digest == before


@pytest.mark.parametrize("place", ["x", "x_test"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, place: str) -> None:
    arrays = {name: np.arange(6.0)[:, None] for name in ("x", "x_test")}
    arrays[place][2:4] = np.nan
    np.savez(tmp_path / "set.npz", **arrays, y=np.arange(6) % 2, y_test=np.arange(6) % 2)
    with pytest.raises(ShardError, match="npz: x.*: 2 of 6 rows hold NaN or infinity"):
        make("npz", tmp_path / "out", clients=2, source_options={"source": tmp_path / "set.npz"})
    assert not (tmp_path / "out").exists()


WRONG: dict[str, tuple[Any, str]] = {
    "overlaps": ([np.arange(20), np.arange(10, 30)], "dealt row 10 to client 'client-1', and to client 'client-0' too"),
    "repeats": ([[0, 1, 1], [2]], "dealt row 1 to client 'client-0', and twice"),
    "beyond": ([[0], [30]], "client 'client-1' was dealt row 30; there are rows 0 to 29"),
    "negative": ([[-1], [0]], "was dealt row -1"),
    "floats": ([[0.0, 1.0], [2.0]], r"was dealt float64 of shape \(2,\); should be row numbers"),
    "mask": ([np.arange(30) < 9, np.arange(30) > 8], "a mask: np.flatnonzero makes rows of it"),
    "flat": ([0, 1], r"was dealt a? ?int"),
    "square": ([[[0, 1], [2, 3]], [4]], r"int64 of shape \(2, 2\)"),
    "ragged": ([[[0, 1], [2]], [4]], "was dealt object"),
    "text": ([["a"], ["b"]], "was dealt <U1"),
    "none": ([None, [1]], "was dealt NoneType"),
    "few": ([np.arange(30)], "dealt to 1 clients, where 2 are asked for"),
    "nobody": ({}, "dealt to 0 clients"),
    "number": (7, "gave a int; it should give a list of row numbers"),
    "huge": ([[2**70], [1]], "was dealt object"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_partition_of_ones_own_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By name: a row that two clients have would be held out by one and trained on by the other."""
    wrong, told = WRONG[name]
    monkeypatch.setitem(sys.modules, "wrong_of_make", SimpleNamespace(partition=lambda y: wrong))
    with pytest.raises(JobError, match=f"partition: wrong_of_make:partition.*{told}"):
        make(
            "linear", tmp_path / "set", clients=2, partition="wrong_of_make:partition", source_options={"examples": 30}
        )
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("deal", [[[0, 3], []], {1: np.array([0, 3], np.uint8), "b": []}, np.array([[0, 3], [5, 6]])])
def test_a_partition_may_leave_rows_and_clients_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deal: Any
) -> None:
    monkeypatch.setitem(sys.modules, "wrong_of_make", SimpleNamespace(partition=lambda y: deal))
    lines: list[str] = []
    options = {"examples": 30}
    shards = make(
        "linear",
        tmp_path,
        clients=2,
        partition="wrong_of_make:partition",
        source_options=options,
        holdout=0,
        progress=lines.append,
    )
    wanted = make("linear", tmp_path / "one", clients=1, source_options=options, holdout=0).train(0)[1][[0, 3]]
    assert torch.equal(shards.train(0)[1], wanted)
    assert any("left over and go to nobody" in line for line in lines)


def test_clients_of_the_datas_own_need_a_partition_that_looks_at_them(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("a,site,y\n1,n,p\n2,s,q\n3,n,p\n")
    options = {"source": tmp_path / "set.csv", "target": "y", "group": "site"}
    with pytest.raises(JobError, match="group: 'site' given, but iid does not look at clients"):
        make("csv", tmp_path / "out", clients=2, source_options=options)
    assert make("csv", tmp_path / "out", partition="natural", source_options=options).clients == 2
