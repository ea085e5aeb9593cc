"""Groups of runs alike but for their seeds, and the names and fields to tell groups apart."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedmpi.report.axes import Numbers
from fedmpi.report.curves import Curve
from fedmpi.report.runs import RunRecord
from fedmpi.report.tables import flat


@dataclass(frozen=True)
class Group:
    """Runs alike but for their seeds (often just one), drawn as one."""

    name: str
    runs: list[RunRecord]
    local: bool = False  # each client trained by itself: the clients' scores are of their own models

    @property
    def label(self) -> str:
        """The name, with the number of seeds where there are several."""
        return self.name if len(self.runs) == 1 else f"{self.name}, {len(self.runs)} seeds"

    def curve(self, *path: str, over: str = "", **looks: Any) -> Curve:
        """Return the curve of the runs' mean and range, at the rounds common to all of them, else at those of any.

        It goes over rounds, or `over` "seconds" elapsed or "bytes" moved.
        """
        runs = [run for run in self.runs if run.values(*path)]
        if not runs:
            return Curve(self.label, np.zeros(0), np.zeros(0))
        each = [run.values(*path) for run in runs]
        rounds = sorted(set.intersection(*map(set, each)) or set.union(*map(set, each)))
        y, x = _rows(each, rounds), np.array(rounds, dtype=np.float64)
        if over:
            costs = [run.moved() if over == "bytes" else run.values("seconds", "elapsed") for run in runs]
            x = _rows(costs, rounds).mean(axis=0)
        y, x = y[:, np.isfinite(x)], x[np.isfinite(x)]
        band = {"low": y.min(axis=0), "high": y.max(axis=0)} if len(runs) > 1 else {}
        return Curve(**{"label": self.label, "x": x, "y": y.mean(axis=0), **band, **looks})

    def tells(self, *path: str) -> bool:
        """Whether one of the runs has a number under `path`."""
        return any(run.tells(*path) for run in self.runs)

    def final(self, *path: str) -> float:
        """Return the mean over the runs of the newest value under `path`, NaN where none has one."""
        values = [value for run in self.runs if math.isfinite(value := run.last(*path))]
        return sum(values) / len(values) if values else math.nan

    def baseline(self, name: str) -> Group | None:
        """Return the runs' baselines of a name as a group; None where no run has one."""
        runs = [run.baselines[name] for run in self.runs if name in run.baselines]
        return Group(f"{self.name}: {name} baseline", runs, name == "local") if runs else None

    def timing(self) -> dict[str, tuple[float, float, float, float]]:
        """Return each phase's median and 90th percentile per round, its sum per run, its share of the median round.

        The shares are of the sum of the medians: one slow round, such as the first, counts in the sum alone.
        """
        each = [run.phases() for run in self.runs]
        rows = {}
        for name in dict.fromkeys(name for phases in each for name in phases):
            seconds = np.concatenate([phases[name] for phases in each if name in phases])
            if (seconds := seconds[np.isfinite(seconds)]).size:
                middle, most = np.percentile(seconds, [50, 90])
                rows[name] = (float(middle), float(most), float(seconds.sum() / len(each)))
        whole = sum(middle for middle, _, _ in rows.values())
        return {name: (*row, row[0] / whole if whole > 0 else math.nan) for name, row in rows.items()}


def grouped(runs: Sequence[RunRecord]) -> list[Group]:
    """Return the runs in groups alike but for their seeds, each under a name of its own, in the order given."""
    alike: dict[tuple[str, int], list[RunRecord]] = {}
    for run in runs:
        fields = {key: value for key, value in run.job.items() if key not in ("name", "seed", "run")}
        key, again = json.dumps(fields, sort_keys=True, default=str), 0
        while any(run.job.get("seed") == other.job.get("seed") for other in alike.get((key, again), ())):
            again += 1  # the same seed run twice is no second seed
        alike.setdefault((key, again), []).append(run)
    groups = []
    for members in alike.values():
        names = dict.fromkeys(run.name for run in members)
        if len(names) > 1:  # digits-s1, digits-s2
            names = dict.fromkeys(re.sub(r"[-_. ]*(s|seed)?[-_. ]*\d+$", "", name) or name for name in names)
        groups.append(Group(next(iter(names)), members))
    return [replace(group, name=_own_name(group, groups)) for group in groups]


def _own_name(group: Group, groups: Sequence[Group]) -> str:
    """Return a group's name; where others have it too, with the fields they differ in, or its folder, or a number."""
    same = [other for other in groups if other.name == group.name]
    rows = [(field.removesuffix(".name"), row) for field, row in differences(same).items() if field != "seed"]
    words = [[f"{field} {row[place]}" for field, row in rows if row[place]] for place, _ in enumerate(same)]
    few = sum(len(field) + max(map(len, row)) for field, row in rows) <= 36
    fields = [", ".join([group.name, *each]) for each in words if few]
    folders = [f"{group.name} ({other.runs[0].folder.name})" for other in same]
    places = [f"{group.name} ({place})" for place, _ in enumerate(same, 1)]
    names = next(names for names in (fields, folders, places) if len(set(names)) == len(same))
    return next(name for name, other in zip(names, same, strict=True) if other is group)


def differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Return the fields of jobs with other values in other groups, each with its text per group, "" for none."""
    jobs = [[flat({**run.job, "name": {}, "run": {}}) for run in group.runs] for group in groups]
    fields = dict.fromkeys(name for members in jobs for job in members for name in job)
    rows = {
        name: [", ".join(dict.fromkeys(job.get(name, "") for job in members)) for members in jobs] for name in fields
    }
    return {name: row for name, row in rows.items() if len(set(row)) > 1}


def _rows(each: Sequence[Mapping[int, float]], rounds: Sequence[int]) -> Numbers:
    """Return values by round as an array `(runs, rounds)`, NaN where a run has none."""
    return np.array([[values.get(round_, math.nan) for round_ in rounds] for values in each])
