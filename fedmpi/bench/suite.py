"""All measurements of a machine, one after another, and what they come to."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmpi.bench.launches import measure
from fedmpi.flow import Refused
from fedmpi.plan import Plan

SIZES = (4_096, 65_536, 1_048_576, 16_777_216)  # bytes of a collective, beside those of a model
Told = Callable[[str], None]


@dataclass(frozen=True)
class Suite:
    """What to measure, and how often: a `job` by its path, on so many `ranks`.

    `engines` are components in TOML, by the name in the tables.  Rounds are measured with the journal and checkpoints
    as the job has them (without `keep`, with none), and without scores; the floor and each engine in turn, `pairs`
    times.  `told` hears what is measured next.
    """

    job: Path
    overrides: tuple[str, ...]
    ranks: int
    engines: Mapping[str, str]
    pairs: int
    rounds: int
    scaling: tuple[int, ...]
    folder: Path
    launcher: str | None
    told: Told
    keep: bool = True

    def run(self, plan: Plan) -> dict[str, Any]:
        """Return all figures; `plan` is the job's."""
        values = sum(part.numel() for part in plan.model.parameters())
        found: dict[str, Any] = {
            "job": plan.job.name or self.job.stem,
            "ranks": self.ranks,
            "clients": plan.cohort,
            "parameters": values,
        }
        found |= self._collectives(values)
        found |= self.compare(plan)
        found["memory"] = self._memory()
        found["scaling"] = self._scaling(plan)
        self.told("")
        return found

    def _measure(self, part: str, ranks: int, engine: str | None = None, **spec: Any) -> dict[str, Any]:
        out = self.folder / "runs" / "bench"
        settings = [
            *self.overrides, f"rounds={self.rounds + 2}", "threads=1", "evaluation.every=0", "evaluation.clients=false",
            *([f"local.engine={self.engines[engine]}"] if engine else []),
        ]  # fmt: skip
        try:
            kept = str(out) if self.keep else None
            return measure(part, ranks, self.launcher, job=str(self.job), set=settings, out=kept, **spec)
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def _collectives(self, values: int) -> dict[str, Any]:
        self.told(f"collectives on {self.ranks} ranks")
        sizes = sorted({*SIZES, 4 * values})
        return self._measure("collectives", self.ranks, sizes=sizes)

    def compare(self, plan: Plan) -> dict[str, Any]:
        """Measure the floor and each engine in turn: the floor on the ranks that serve clients."""
        serving = serves(self.ranks, plan)
        floors: list[float] = []
        times: dict[str, list[float]] = {engine: [] for engine in self.engines}
        firsts: dict[str, list[float]] = {engine: [] for engine in self.engines}
        bytes_: dict[str, int] = {}
        for pair in range(self.pairs):
            self.told(f"turn {pair + 1} of {self.pairs}: the floor on {serving} ranks")
            floors.append(statistics.median(self._measure("floor", serving, rounds=self.rounds)["seconds"]))
            for engine in self.engines:
                self.told(f"turn {pair + 1} of {self.pairs}: engine {engine} on {self.ranks} ranks")
                answer = self._measure("round", self.ranks, engine)
                times[engine].append(_seconds(answer, self.rounds))
                firsts[engine].append(answer["first"])
                bytes_ = answer["bytes"]
        engines = {}
        for engine, seconds in times.items():
            ratios = [one / other for one, other in zip(seconds, floors, strict=True)]
            engines[engine] = {
                "seconds": statistics.median(seconds),
                "ratio": statistics.median(seconds) / statistics.median(floors),
                "ratios": [min(ratios), max(ratios)],
                "first": statistics.median(firsts[engine]),
                **self._rates(statistics.median(seconds), plan, serving, bytes_),
            }
        return {"floor": {"seconds": statistics.median(floors), "ranks": serving}, "engines": engines, "bytes": bytes_}

    def _rates(self, seconds: float, plan: Plan, serving: int, moved: dict[str, int]) -> dict[str, float]:
        return {
            "clients_a_second": plan.cohort / seconds,
            "bytes_a_second": serving * (moved["down"] + moved["up"]) / seconds,
        }

    def _memory(self) -> dict[str, Any]:
        self.told(f"memory on {self.ranks} ranks")
        return self._measure("memory", self.ranks)

    def _scaling(self, plan: Plan) -> list[dict[str, Any]]:
        """Measure whole rounds of the job as it is on each number of ranks; efficiency is that of a serving rank."""
        rows: list[dict[str, Any]] = []
        for ranks in self.scaling:
            times = []
            answer: dict[str, Any] = {}
            for turn in range(self.pairs):
                self.told(f"scaling: {ranks} rank{'s' * (ranks > 1)}, turn {turn + 1} of {self.pairs}")
                answer = self._measure("round", ranks)
                times.append(_seconds(answer, self.rounds))
            serving = serves(ranks, plan)
            seconds = statistics.median(times)
            row = {"ranks": ranks, "serving": serving, "seconds": seconds}
            row |= self._rates(seconds, plan, serving, answer["bytes"])
            one = (rows[0] if rows else row)["clients_a_second"] / (rows[0] if rows else row)["serving"]
            rows.append({**row, "efficiency": row["clients_a_second"] / serving / one})
        return rows


def serves(ranks: int, plan: Plan) -> int:
    """Return the number of ranks that serve clients."""
    return ranks if ranks == 1 or plan.job.server.trains else ranks - 1


def _seconds(answer: dict[str, Any], rounds: int) -> float:
    """Return the median seconds of a round; Refused where the job ended too early to tell."""
    if not answer.get("seconds"):
        raise Refused(f"bench: the job ended before it had {rounds} rounds: its [stop] must not be met so soon")
    return float(statistics.median(answer["seconds"]))


def write(found: dict[str, Any], folder: Path) -> Path:
    """Write all figures as JSON into a folder; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bench.json"
    aside = folder / ".bench.json.part"
    aside.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)
    return path


def scaling_default(ranks: int) -> Sequence[int]:
    """Return the numbers of ranks to measure by default: one alone, then a server with 1, 2, 4, ... clients' ranks."""
    steps = [1]
    serving = 1
    while serving + 1 < ranks:
        steps.append(serving + 1)
        serving *= 2
    return [*steps, ranks] if ranks > 1 else steps
