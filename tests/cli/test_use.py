"""Clients' own models as the command gives them: their scores are the journal's, and each predicts for itself."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from fedmpi.data import ShardSet
from tests.cli.conftest import Command


@pytest.mark.parametrize(("strategy", "tables"), [("ditto", 3), ("fedper", 1)])
def test_evaluate_tells_own_models_scores_as_the_journal_does(
    inside: Command, job: Path, tmp_path: Path, strategy: str, tables: int
) -> None:
    assert inside("train", str(job), "-n", "1", "--out", "run", "--set", f"strategy={strategy}").code == 0
    last = json.loads((tmp_path / "run" / "journal.jsonl").read_text().splitlines()[-1])["evaluation"]
    scores = json.loads(inside("evaluate", "run", "--json").out)
    assert len(scores) == len(last) == tables
    for word, value in last["personal"]["accuracy"].items():
        assert scores["personal"]["accuracy"][word] == pytest.approx(value, abs=1e-6)
    own = last["personal"]["accuracy"]
    said = [text.split() for text in inside("evaluate", "run").out.splitlines()]
    assert ["own", "model", "accuracy", "mean", f"{own['mean']:.4f},"] in [words[:5] for words in said]
    assert (len([words for words in said if words[0] == "own"]) == 2) & (len(said) == 2 * tables)


def test_predict_uses_the_named_clients_own_model(inside: Command, job: Path, shards: Path, tmp_path: Path) -> None:
    """By the head that it trained: clients answer differently, and each better than chance on its own examples."""
    words = ["--set", "strategy=fedper", "--set", "rounds=30", "--set", "cohort.size=5"]
    assert inside("train", str(job), "-n", "1", "--out", "run", *words).code == 0
    held = ShardSet.open(shards)
    said, right = [], []
    for client in range(2):
        x, y = held.train(client)
        np.save(tmp_path / "x.npy", x.numpy())
        told = inside("predict", "run", "--source", "x.npy", "--out", "said.csv", "--client", held.id(client))
        assert told.code == 0, told.all
        with (tmp_path / "said.csv").open() as file:
            rows = list(csv.DictReader(file))
        right += [held.classes[int(label)] == row["prediction"] for label, row in zip(y, rows, strict=True)]
        np.save(tmp_path / "x.npy", np.zeros((1, 4), np.float32))
        assert inside("predict", "run", "--source", "x.npy", "--out", "zero.csv", "--client", held.id(client)).code == 0
        said.append((tmp_path / "zero.csv").read_text())
    assert said[0] != said[1]
    assert np.mean(right) > 0.5


@pytest.mark.parametrize(
    ("strategy", "client", "told"),
    [("ditto", "c9", "--client: 'c9' given"), ("fedavg", "c0", "one model for all clients")],
)
def test_a_client_without_a_model_of_its_own_is_code_2(
    inside: Command, job: Path, tmp_path: Path, strategy: str, client: str, told: str
) -> None:
    assert inside("train", str(job), "-n", "1", "--out", "run", "--set", f"strategy={strategy}").code == 0
    np.save(tmp_path / "x.npy", np.zeros((1, 4), np.float32))
    said = inside("predict", "run", "--source", "x.npy", "--out", "said.csv", "--client", client)
    assert said.code == 2, said.all
    assert told in said.err
    assert "Traceback" not in said.all
    assert "own model" in inside("predict", "--help").out
