"""Runs read back from their folders, alone and as groups of seeds: the numbers that a report shows."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from fedmpi.flow import LOWER, Refused
from fedmpi.records import journal
from fedmpi.records.folder import RunFolder
from fedmpi.report.pictures import Curve, Numbers

BASELINES = {"pooled": "--", "local": "-."}  # folders below `baselines/`, and how their curves are drawn
TEST, CLIENTS, PERSONAL = (("evaluation", kind) for kind in ("test", "clients", "personal"))
MODELS = {"clients": "common model", "personal": "own model"}  # by which a client is scored


@dataclass(frozen=True)
class Run:
    """A run folder, read back: its resolved job, and its journal with a line per round, rounds ascending."""

    folder: Path
    text: str
    job: dict[str, Any]
    lines: list[dict[str, Any]]
    when: datetime
    baselines: dict[str, Run]

    @property
    def name(self) -> str:
        return str(self.job.get("name") or self.folder.name)

    @property
    def stopped(self) -> str:
        why = str(self.lines[-1].get("stopped") or "not finished")
        return "all rounds done" if why == "rounds" else why

    def values(self, *path: str) -> dict[int, float]:
        """What the journal holds under `path`, by round; NaN where it says null, absent where it says nothing."""
        return {line["round"]: number(line, *path) for line in self.lines if at(line, *path) is not ...}

    def last(self, *path: str) -> float:
        """The newest value under `path`, NaN where there is none."""
        return next(reversed(self.values(*path).values()), math.nan)

    def tells(self, *path: str) -> bool:
        """There is a number somewhere in the tables under `path`."""
        return any(_numbers(at(line, *path)) for line in self.lines)

    def lower(self, metric: str) -> bool:
        """Whether less of a metric is better: as the run says, which could ask it, else as its name has it."""
        said = at(self.job, "run", "lower")
        return metric in (said if isinstance(said, list) else LOWER)

    def best(self, metric: str, *path: str) -> tuple[float, int]:
        """The best value of a metric under `path` and the round it is of; NaN and 0 where there is none."""
        known = [(value, round_) for round_, value in self.values(*path).items() if math.isfinite(value)]
        return (min if self.lower(metric) else max)(known, key=lambda pair: pair[0], default=(math.nan, 0))

    def seconds(self) -> float:
        """Wall seconds of the whole run."""
        elapsed = self.last("seconds", "elapsed")
        return float(np.nansum([*self.values("seconds", "total").values()])) if math.isnan(elapsed) else elapsed

    def moved(self) -> dict[int, float]:
        """Bytes that a rank received and sent, up to each round."""
        down, up = self.values("bytes", "down"), self.values("bytes", "up")
        rounds = sorted({*down, *up})
        each = [np.nansum([down.get(round_, 0.0), up.get(round_, 0.0)]) for round_ in rounds]
        return dict(zip(rounds, np.cumsum(each).tolist(), strict=True))

    def columns(self, table: str) -> dict[str, Numbers]:
        """Every number of a table of the lines (`seconds`, `bytes`) as a column `(lines,)`, NaN where there is none."""
        names = dict.fromkeys(name for line in self.lines for name in _table(at(line, table)))
        return {name: np.array([number(line, table, name) for line in self.lines]) for name in names}

    def phases(self) -> dict[str, Numbers]:
        """Seconds of each phase as a column `(lines,)`; `other` is what a round's total holds beyond them.

        A model is scored in the round after the one that made it, so `evaluate` counts there, as what it added to that
        round: clients may have trained meanwhile.
        """
        found = self.columns("seconds")
        found.pop("elapsed", None)
        found = {**{name: found[name] for name in ("train",) if name in found}, **found}  # the base of every stack
        scored, total = found.pop("evaluate", None), np.nan_to_num(found.pop("total", np.zeros(len(self.lines))))
        rest = total - sum(np.nan_to_num(column) for column in found.values())
        if scored is not None:
            found["evaluate"] = np.minimum(np.append(0.0, np.nan_to_num(scored[:-1])), np.maximum(rest, 0.0))
            rest -= found["evaluate"]
        return {**found, "other": np.maximum(rest, 0.0)} if rest.sum() > 0.01 * total.sum() else found

    def lost(self) -> list[tuple[int, list[Any], list[Any]]]:
        """The rounds that lost ranks or clients, and which."""
        found = []
        for line in self.lines:
            told = (at(line, "lost", kind) for kind in ("ranks", "clients"))
            ranks, clients = (value if isinstance(value, list) else [] for value in told)
            if ranks or clients:
                found.append((line["round"], ranks, clients))
        return found

    def lead(self, metric: str) -> tuple[str, ...]:
        """Where the scores lie whose best is told: on the test examples, else clients' mean, own models first."""
        paths = ((*TEST, metric), (*PERSONAL, metric, "mean"), (*CLIENTS, metric, "mean"))
        return next((path for path in paths if self.tells(*path)), paths[0])

    def summary(self, metric: str | None) -> dict[str, Any]:
        """What runs are compared by, NaN where the journal does not say: scores by `metric`, and what they cost.

        `best_of` names the table that `best` is of: "test", "personal" or "clients".
        """
        lead = self.lead(metric) if metric else TEST
        best, when = self.best(metric, *lead) if metric else (math.nan, 0)
        words = [(kind, word) for kind in MODELS for word in ("mean", "worst_tenth")]
        return {
            "final": self.last(*TEST, metric) if metric else math.nan,
            "best": best,
            "best_round": when,
            "best_of": lead[1],
            **{f"{kind}_{word}": self.last("evaluation", kind, metric or "", word) for kind, word in words},
            "rounds": self.lines[-1]["round"],
            "seconds": self.seconds(),
            "bytes": next(reversed(self.moved().values()), math.nan),
        }

    def metrics(self) -> list[str]:
        """What it was scored by, in the order first told."""
        paths = (TEST, CLIENTS, PERSONAL)
        return list(dict.fromkeys(name for line in self.lines for path in paths for name in _table(at(line, *path))))

    def ledger(self) -> list[tuple[str, str]]:
        """What the stages told of themselves: the stage, the word."""
        stages = [(stage, words) for line in self.lines for stage, words in _table(at(line, "stages")).items()]
        return list(dict.fromkeys((stage, word) for stage, words in stages for word in _table(words)))


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone (often just one), drawn as one."""

    name: str
    runs: list[Run]
    local: bool = False  # each client by itself: what its clients are scored by are models of their own

    @property
    def label(self) -> str:
        return self.name if len(self.runs) == 1 else f"{self.name}, {len(self.runs)} seeds"

    def curve(self, *path: str, over: str = "", **looks: Any) -> Curve:
        """The mean over the runs and their range, at the rounds that all of them have (else: that any has).

        Drawn over rounds, or `over` "seconds" elapsed or "bytes" moved.
        """
        runs = [run for run in self.runs if run.values(*path)]
        if not runs:
            return Curve(self.label, np.zeros(0), np.zeros(0))
        each = [run.values(*path) for run in runs]
        rounds = sorted(set.intersection(*map(set, each)) or set.union(*map(set, each)))
        y, x = _rows(each, rounds), np.array(rounds, dtype=np.float64)
        if over:
            axes = [run.moved() if over == "bytes" else run.values("seconds", "elapsed") for run in runs]
            x = _rows(axes, rounds).mean(axis=0)
        y, x = y[:, np.isfinite(x)], x[np.isfinite(x)]
        band = {"low": y.min(axis=0), "high": y.max(axis=0)} if len(runs) > 1 else {}
        return Curve(**{"label": self.label, "x": x, "y": y.mean(axis=0), **band, **looks})

    def tells(self, *path: str) -> bool:
        """One of the runs tells a number under `path`."""
        return any(run.tells(*path) for run in self.runs)

    def final(self, *path: str) -> float:
        """The mean over the runs of the newest value under `path`, NaN where none has one."""
        known = [value for run in self.runs if math.isfinite(value := run.last(*path))]
        return sum(known) / len(known) if known else math.nan

    def baseline(self, name: str) -> Group | None:
        found = [run.baselines[name] for run in self.runs if name in run.baselines]
        return Group(f"{self.name}: {name} baseline", found, name == "local") if found else None

    def timing(self) -> dict[str, tuple[float, float, float, float]]:
        """Of each phase: its median and 90th percentile per round, its sum per run, its share of the median round.

        The shares are of what the medians come to together: one slow round, such as the first, tells in the sum alone.
        """
        each = [run.phases() for run in self.runs]
        found = {}
        for name in dict.fromkeys(name for phases in each for name in phases):
            known = np.concatenate([phases[name] for phases in each if name in phases])
            if (known := known[np.isfinite(known)]).size:
                middle, most = np.percentile(known, [50, 90])
                found[name] = (float(middle), float(most), float(known.sum() / len(each)))
        whole = sum(middle for middle, _, _ in found.values())
        return {name: (*row, row[0] / whole if whole > 0 else math.nan) for name, row in found.items()}


def read(folder: Path) -> Run:
    """The run in a folder, with its baselines.  Raises Refused where there is none, or it is damaged or empty."""
    kept_in = RunFolder(folder)
    job = kept_in.read_job()
    try:
        text = kept_in.job.read_text(encoding="utf-8")
        when = datetime.fromtimestamp(kept_in.journal.stat().st_mtime)
    except FileNotFoundError as error:
        raise Refused(f"{folder}: holds no run: there is no {Path(error.filename).name} in it") from None
    except OSError as error:
        raise Refused(f"{folder}: holds no run that can be read: {error}") from None
    kept: list[dict[str, Any]] = []
    for line in journal.read(kept_in.journal):
        round_ = line["round"] if type(line.get("round")) is int else kept[-1]["round"] + 1 if kept else 1
        while kept and kept[-1]["round"] >= round_:  # a line that does not say its round is of the next one
            kept.pop()
        kept += [{**line, "round": round_}] if line else []
    if not kept:
        raise Refused(f"{kept_in.journal}: holds no round; the run was stopped before its first was done")
    below = {name: folder / "baselines" / name for name in BASELINES}
    baselines = {name: read(inner) for name, inner in below.items() if _size(inner / "journal.jsonl")}
    return Run(folder, text, job, kept, when, baselines)


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Runs that differ in their seed alone together, each group under a name of its own, in the order given."""
    alike: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        what = {key: value for key, value in run.job.items() if key not in ("name", "seed", "run")}
        key, again = json.dumps(what, sort_keys=True, default=str), 0
        while any(run.job.get("seed") == other.job.get("seed") for other in alike.get((key, again), ())):
            again += 1  # a seed that was run twice is no second seed
        alike.setdefault((key, again), []).append(run)
    groups = []
    for members in alike.values():
        names = dict.fromkeys(run.name for run in members)
        if len(names) > 1:  # digits-s1, digits-s2
            names = dict.fromkeys(re.sub(r"[-_. ]*(s|seed)?[-_. ]*\d+$", "", name) or name for name in names)
        groups.append(Group(next(iter(names)), members))
    return [replace(group, name=_named(group, groups)) for group in groups]


def _named(group: Group, groups: Sequence[Group]) -> str:
    """A group's name; where others have it too, with the fields that tell them apart, or else with its folder."""
    same = [one for one in groups if one.name == group.name]
    told = [(field.removesuffix(".name"), row) for field, row in differences(same).items() if field != "seed"]
    words = [[f"{field} {row[place]}" for field, row in told if row[place]] for place, _ in enumerate(same)]
    few = sum(len(field) + max(map(len, row)) for field, row in told) <= 36
    fields = [", ".join([group.name, *each]) for each in words if few]
    folders = [f"{group.name} ({one.runs[0].folder.name})" for one in same]
    places = [f"{group.name} ({place})" for place, _ in enumerate(same, 1)]
    names = next(names for names in (fields, folders, places) if len(set(names)) == len(same))
    return next(name for name, one in zip(names, same, strict=True) if one is group)


def differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The fields of the jobs that differ between groups, each with what it says in every group: "" where nothing."""
    jobs = [[flat({**run.job, "name": {}, "run": {}}) for run in group.runs] for group in groups]
    fields = dict.fromkeys(name for members in jobs for job in members for name in job)
    rows = {
        name: [", ".join(dict.fromkeys(job.get(name, "") for job in members)) for members in jobs] for name in fields
    }
    return {name: row for name, row in rows.items() if len(set(row)) > 1}


def at(table: Any, *path: str) -> Any:
    """What lies under `path` in tables of tables; `...` where nothing does."""
    for name in path:
        if not isinstance(table, Mapping) or name not in table:
            return ...
        table = table[name]
    return table


def number(table: Any, *path: str) -> float:
    """The finite number under `path`, else NaN."""
    value = at(table, *path)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) < 1e300 else math.nan


def flat(table: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """The fields of a table and of those below it, by dotted name, as text."""
    found: dict[str, str] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{where}{name}."))
        else:
            found[where + name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return found


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _numbers(value: Any) -> bool:
    return any(map(_numbers, value.values())) if isinstance(value, Mapping) else math.isfinite(number(value))


def _rows(each: Sequence[Mapping[int, float]], rounds: Sequence[int]) -> Numbers:
    return np.array([[values.get(round_, math.nan) for round_ in rounds] for values in each])
