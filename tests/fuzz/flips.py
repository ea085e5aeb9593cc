"""One bit turned over in each kind of file that a run is read back from: the same bits come of it, or a refusal."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fedmpi
from fedmpi.records.journal import read_journal
from fedmpi.use.evaluate import score
from fedmpi.use.load import load
from tests.fuzz.judge import Case, Maker, Wrong
from tests.fuzz.shards import flip

X = torch.linspace(-2, 3, 20).reshape(5, 4)
CUT = 3  # the last round whose line an interrupted run writes
JOB: dict[str, Any] = {
    "name": "flips",
    "seed": 4,
    "rounds": 5,
    "threads": 1,
    "cohort": {"size": 2},
    "model": {"name": "mlp", "hidden": [3]},
    "local": {"lr": 0.2, "batch": 6, "epochs": 1},
    "strategy": {"name": "ditto"},  # clients keep models of their own
    "server": {"optimizer": "adam", "lr": 0.05},  # and so does the server keep something
    "aggregation": {"stages": ["fixed-point"]},
    "checkpoint": {"every": 2, "keep": 2},
}


class Killed(Exception):
    """Stands for a kill."""


def _kill(line: dict[str, Any]) -> None:
    if line["round"] == CUT:
        raise Killed


class Runs:
    """A run that came to its end, one that was interrupted, the set that both learn from, and what they give."""

    def __init__(self, folder: Path, shards: Path) -> None:
        self.folder, self.shards = folder, shards
        self.job = {**JOB, "data": {"shards": str(shards)}}
        self.finished, self.half = folder / "finished", folder / "half"
        run = fedmpi.train(self.job, out=self.finished)
        with contextlib.suppress(Killed):
            fedmpi.train(self.job, out=self.half, on_round=_kill)
        self.bits = _bits(run.model)
        self.used = _used(self.finished)
        self.best = _answers(load(self.finished, "best").model)
        self.own = _own(self.finished)

    def makers(self) -> dict[str, Maker]:
        """By the file whose bits are turned over."""
        set_ = sorted(path.name for path in self.shards.iterdir())
        return {
            "flips model.safetensors": self._maker(self.finished, "model.safetensors", self._use),
            "flips best.safetensors": self._maker(self.finished, "checkpoints/best.safetensors", self._best),
            "flips checkpoint": self._maker(self.half, "checkpoints/round-000002.safetensors", self._resume),
            "flips last checkpoint": self._maker(self.finished, "checkpoints/round-000005.safetensors", self._use),
            "flips memory.slots": self._maker(self.half, "clients/memory.slots", self._resume),
            "flips memory.slots, finished": self._maker(self.finished, "clients/memory.slots", self._use),
            "flips launches.json": self._maker(self.half, "clients/launches.json", self._resume),
            "flips launches.json, finished": self._maker(self.finished, "clients/launches.json", self._use),
            "flips job.toml": self._maker(self.finished, "job.toml", self._use),
            "flips job.toml, interrupted": self._maker(self.half, "job.toml", self._resume),
            "flips journal.jsonl": self._maker(self.finished, "journal.jsonl", self._read),
            "flips journal.jsonl, interrupted": self._maker(self.half, "journal.jsonl", self._resume),
            **{f"flips {name}": partial(self._set, name=name) for name in set_},
        }

    def _maker(self, run: Path, name: str, tried: Callable[[Path], None]) -> Maker:
        def make(rng: random.Random, folder: Path) -> Case:
            copy = folder / "run"
            shutil.copytree(run, copy)
            if not (copy / name).exists():
                return Case(f"no {name}", lambda: None)
            return Case(flip(rng, copy / name), lambda: tried(copy))

        return make

    def _set(self, rng: random.Random, folder: Path, name: str) -> Case:
        shutil.copytree(self.half, folder / "run")
        shutil.copytree(self.shards, folder / "set")
        return Case(flip(rng, folder / "set" / name), lambda: self._resume(folder / "run", folder / "set"))

    def _resume(self, run: Path, shards: Path | None = None) -> None:
        job = {**self.job, "data": {"shards": str(shards or self.shards)}}
        _same("the model", _bits(fedmpi.train(job, out=run, resume=True).model), self.bits)
        _same("clients' own models", _own(run), self.own)
        lines = [json.loads(line)["round"] for line in (run / "journal.jsonl").read_text().splitlines()]
        _same("the journal's rounds", lines, list(range(1, JOB["rounds"] + 1)))

    def _use(self, run: Path) -> None:
        for name, value in _used(run).items():
            _same(name, value, self.used[name])

    def _best(self, run: Path) -> None:
        _same("the best model's answers", _answers(load(run, "best").model), self.best)

    def _read(self, run: Path) -> None:
        """Numbers in a line may be others, as long as it is a line; no report needs more."""
        read_journal(run / "journal.jsonl")


def _bits(model: torch.nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


def _answers(model: torch.nn.Module) -> bytes:
    with torch.no_grad():
        return bytes(model.eval()(X).numpy().tobytes())


def _own(run: Path) -> list[bytes]:
    trained = load(run, client="c0")
    assert trained.own is not None
    return [_answers(trained.own.model(client)) for client in range(trained.own.shards.clients)]


def _used(run: Path) -> dict[str, Any]:
    """All that evaluate and predict would tell of a finished run."""
    trained = load(run)
    return {
        "scores": np.array(list(_leaves(score(trained)))).tobytes(),
        "answers": _answers(trained.model),
        "own": _own(run),
        "classes": trained.facts.classes,
        "scale": trained.facts.scale,
    }


def _leaves(table: Any) -> list[float]:
    return [leaf for value in table.values() for leaf in _leaves(value)] if isinstance(table, dict) else [table]


def _same(what: str, found: Any, meant: Any) -> None:
    if found != meant:
        raise Wrong(f"{what} are other than those of the whole files")
