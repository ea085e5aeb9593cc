"""Runs as they are read back: every number is the journal's."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.report.runs import RunRecord, read_run

Line = dict[str, Any]


def job(**changed: Any) -> dict[str, Any]:
    """A resolved job as a run keeps it; `local__lr=0.1` is a field of a table."""
    table: dict[str, Any] = {
        "name": "digits",
        "seed": 1,
        "rounds": 30,
        "data": {"shards": "data/digits"},
        "cohort": {"size": 10},
        "model": {"name": "mlp", "hidden": [200, 200]},
        "local": {"lr": 0.1, "batch": 10, "epochs": 5, "optimizer": {"name": "sgd"}},
        "strategy": {"name": "fedavg"},
        "aggregation": {"weights": "examples", "stages": [{"name": "clip", "bound": 10.0}, {"name": "fixed-point"}]},
        "evaluation": {"every": 1, "metrics": ["accuracy", "f1"]},
        "run": {"ranks": 3, "host": "node017", "versions": {"fedmpi": "0.1.0", "torch": "2.13.0"}},
    }
    for field, value in changed.items():
        *tables, name = field.split("__")
        below = table
        for one in tables:
            below = below[one]
        below[name] = value
    return table


def journal(rounds: int = 30, seed: int = 1, top: float = 0.96, speed: float = 4.0, every: int = 1) -> list[Line]:
    """Lines of a run that learns: scores rise towards `top`, clients spread less and less, one rank waits most."""
    draws, elapsed, lines = np.random.default_rng(seed), 0.0, []
    for round_ in range(1, rounds + 1):
        score = top - (top - 0.12) * math.exp(-round_ / speed) + float(draws.normal(0, 0.006) + (seed - 2) * 0.012)
        score = min(max(score, 0.05), 0.99)
        train, evaluate = 0.2 + float(draws.gamma(2, 0.01)), 0.05 + float(draws.gamma(2, 0.002))
        wide = 0.04 + 0.12 * math.exp(-round_ / (2 * speed))
        elapsed += train + 0.006
        clients = {
            name: {"mean": value - 0.01, "worst_tenth": value - 1.9 * wide, "std": wide}
            for name, value in (("accuracy", score), ("f1", score - 0.01))
        }
        loss = {"mean": 2.4 * (1.05 - score), "worst_tenth": 5.6 * (1.05 - score), "std": 2 * wide}
        line: Line = {
            "round": round_,
            "clients": 10,
            "weight": 8.3,
            "examples": 5012,
            "steps": 2510,
            "train_loss": 2.2 * (1.02 - score) + float(draws.gamma(2, 0.01)),
            "lr": 0.1,
            "seconds": {"broadcast": 0.001, "train": train, "reduce": 0.004, "step": 0.0004, "evaluate": evaluate},
            "bytes": {"down": 797_000, "up": 797_010},
            "lost": {"ranks": [], "clients": []},
            "idle": [float(draws.beta(1, 30)), float(draws.beta(3, 30))],
            "stages": {"clip": {"clipped": int(draws.integers(0, 4)), "bound": 10.0}},
        }
        line["seconds"].update(total=train + 0.006, elapsed=elapsed)
        if round_ % every == 0 or round_ == rounds:
            test = {"loss": 2.3 * (1.03 - score), "accuracy": score, "f1": score - 0.012}
            line["evaluation"] = {"test": test, "clients": {"loss": loss, **clients}}
        lines.append(line)
    lines[-1]["stopped"] = "rounds"
    return lines


def personal(lines: list[Line], only: bool = False) -> list[Line]:
    """The same lines where clients have models of their own, better than the common one; or have those `only`."""
    for line in lines:
        if evaluation := line.get("evaluation"):
            own = {
                name: {word: 0.9 * value for word, value in row.items()} for name, row in evaluation["clients"].items()
            }
            for name in ("accuracy", "f1"):
                own[name] = {
                    **own[name],
                    "mean": 0.97 - 0.01 / line["round"],
                    "worst_tenth": 0.93 - 0.02 / line["round"],
                }
            line["evaluation"] = {**({} if only else evaluation), "personal": own}
    return lines


def keep(folder: Path, lines: list[Line], table: dict[str, Any] | None = None) -> Path:
    """Write a run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.toml").write_text(tomli_w.dumps(job() if table is None else table), encoding="utf-8")
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_the_best_loss_is_the_lowest(tmp_path: Path) -> None:
    losses = {1: 0.5, 2: 0.2, 3: None, 4: 0.3}
    lines = [{"round": at, "evaluation": {"test": {"loss": loss}}} for at, loss in losses.items()]
    run = read_run(keep(tmp_path / "run", lines))
    assert run.best("loss", "evaluation", "test", "loss") == (0.2, 2)
    assert math.isnan(run.best("accuracy", "evaluation", "test", "accuracy")[0])


def test_the_best_is_of_what_a_run_is_judged_by(tmp_path: Path) -> None:
    """The test examples, else clients' own models, else the common one on what they keep aside."""
    tables = {"test": {"f1": 0.1}, "personal": {"f1": {"mean": 0.2, "std": 1.0}}, "clients": {"f1": {"mean": 0.3}}}
    while tables:
        run = read_run(keep(tmp_path / "run", [{"round": 4, "evaluation": tables}]))
        first = next(iter(tables))
        found = run.summary("f1")
        assert (found["best"], found["best_round"], found["best_of"]) == (
            {"test": 0.1, "personal": 0.2, "clients": 0.3}[first],
            4,
            first,
        )
        assert run.metrics() == ["f1"]
        assert found["personal_mean"] == 0.2 or "personal" not in tables
        del tables[first]
    bare = read_run(keep(tmp_path / "bare", [{"round": 1, "evaluation": {"personal": {"f1": {"mean": None}}}}]))
    assert not bare.tells("evaluation", "personal")
    assert math.isnan(bare.summary("f1")["best"])


def test_a_model_is_scored_in_the_next_round_and_counts_as_what_that_adds(tmp_path: Path) -> None:
    times = [{"train": 1.0, "evaluate": 0.5}, {"train": 1.0, "evaluate": 9.0}]
    for total, added, other in ((1.0, 0.0, 0.0), (1.1, 0.1, 0.0), (1.7, 0.5, 0.2)):
        lines = [{"round": at, "seconds": {**one, "total": total}} for at, one in enumerate(times, 1)]
        phases = read_run(keep(tmp_path / "run", lines)).phases()
        assert phases["train"].tolist() == [1.0, 1.0]
        assert phases["evaluate"].tolist() == pytest.approx([0.0, added])
        assert phases.get("other", np.zeros(2)).tolist() == pytest.approx([total - 1, other])


seconds = st.floats(0, 10)
rounds = st.fixed_dictionaries(dict.fromkeys(("train", "reduce", "evaluate", "beside"), seconds))


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(st.lists(rounds, min_size=1, max_size=5))
def test_phases_come_to_the_rounds_total(each: list[dict[str, float]]) -> None:
    """Whatever of the scoring went on beside the training."""
    lines = []
    for at, told in enumerate(each):
        total = told["train"] + told["reduce"] + told["beside"]
        kept = {name: told[name] for name in ("reduce", "train", "evaluate")}
        lines.append({"round": at + 1, "seconds": {**kept, "total": total, "elapsed": 99.0}})
    phases = RunRecord(Path("x"), "", {}, lines, datetime(2026, 1, 1), {}).phases()
    totals = [line["seconds"]["total"] for line in lines]
    assert next(iter(phases)) == "train"
    assert "elapsed" not in phases
    assert all((column >= 0).all() for column in phases.values())
    assert sum(sum(column) for column in phases.values()) == pytest.approx(sum(totals), rel=0.0101, abs=1e-9)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    folder = keep(tmp_path / "run", journal(3))
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b'{"round": 4, "train_loss": 0.\xc3')
    assert [line["round"] for line in read_run(folder).lines] == [1, 2, 3]


def test_a_line_that_goes_back_replaces_what_followed(tmp_path: Path) -> None:
    lines = [{"round": at, "train_loss": loss} for at, loss in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 20.0))]
    assert read_run(keep(tmp_path / "run", lines)).values("train_loss") == {1: 1.0, 2: 20.0}


def test_a_baseline_without_a_round_is_left_out(tmp_path: Path) -> None:
    folder = keep(tmp_path / "run", journal(1))
    keep(folder / "baselines" / "pooled", [])
    assert read_run(folder).baselines == {}
