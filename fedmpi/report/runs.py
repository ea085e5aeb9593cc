"""Runs read back from their folders: the numbers of each for a report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from fedmpi.flow import LOWER, Refused
from fedmpi.records.folder import RunFolder
from fedmpi.records.journal import read_journal
from fedmpi.report.axes import Numbers
from fedmpi.report.tables import holds_number, number_at, table_at, value_at

BASELINES = {"pooled": "--", "local": "-."}  # folders below `baselines/`, and the dashes of their curves
TEST, CLIENTS, PERSONAL = (("evaluation", kind) for kind in ("test", "clients", "personal"))
MODELS = {"clients": "common model", "personal": "own model"}  # of a client's scores


@dataclass(frozen=True)
class RunRecord:
    """A run's record: its resolved job, and its journal with a line per round, rounds ascending."""

    folder: Path
    text: str
    job: dict[str, Any]
    lines: list[dict[str, Any]]
    when: datetime
    baselines: dict[str, RunRecord]

    @property
    def profile(self) -> Path:
        """The folder of the ranks' traces, where the run was profiled."""
        return RunFolder(self.folder).profile

    @property
    def name(self) -> str:
        """The job's name, else the folder's."""
        return str(self.job.get("name") or self.folder.name)

    @property
    def stopped(self) -> str:
        """The reason of the run's end."""
        reason = str(self.lines[-1].get("stopped") or "not finished")
        return "all rounds done" if reason == "rounds" else reason

    def values(self, *path: str) -> dict[int, float]:
        """Return the journal's numbers under `path`, by round: NaN for a null, no entry where a line has no value."""
        return {line["round"]: number_at(line, *path) for line in self.lines if value_at(line, *path) is not ...}

    def last(self, *path: str) -> float:
        """Return the newest value under `path`, NaN where there is none."""
        return next(reversed(self.values(*path).values()), math.nan)

    def tells(self, *path: str) -> bool:
        """Return whether some line has a number in the tables under `path`."""
        return any(holds_number(value_at(line, *path)) for line in self.lines)

    def lower(self, metric: str) -> bool:
        """Return whether a metric is better when lower: as noted in the run's job, else as in fedmpi's own metrics."""
        noted = value_at(self.job, "run", "lower")
        return metric in (noted if isinstance(noted, list) else LOWER)

    def best(self, metric: str, *path: str) -> tuple[float, int]:
        """Return the best value of a metric under `path`, and its round; NaN and 0 where there is none."""
        pairs = [(value, round_) for round_, value in self.values(*path).items() if math.isfinite(value)]
        return (min if self.lower(metric) else max)(pairs, key=lambda pair: pair[0], default=(math.nan, 0))

    def seconds(self) -> float:
        """Return the wall seconds of the whole run."""
        elapsed = self.last("seconds", "elapsed")
        return float(np.nansum([*self.values("seconds", "total").values()])) if math.isnan(elapsed) else elapsed

    def moved(self) -> dict[int, float]:
        """Return the bytes received and sent by a rank up to each round, by round."""
        down, up = self.values("bytes", "down"), self.values("bytes", "up")
        rounds = sorted({*down, *up})
        each = [np.nansum([down.get(round_, 0.0), up.get(round_, 0.0)]) for round_ in rounds]
        return dict(zip(rounds, np.cumsum(each).tolist(), strict=True))

    def columns(self, table: str) -> dict[str, Numbers]:
        """Return the numbers of a table of the lines (`seconds`, `bytes`) as columns `(lines,)`, NaN for a gap."""
        names = dict.fromkeys(name for line in self.lines for name in table_at(line, table))
        return {name: np.array([number_at(line, table, name) for line in self.lines]) for name in names}

    def phases(self) -> dict[str, Numbers]:
        """Return the seconds of each phase as columns `(lines,)`; `other` is the rest of a round's total.

        A round's model is scored in the next round, while clients train.  So `evaluate` counts in the next round, with
        no more than the time by which scoring made it longer.
        """
        columns = self.columns("seconds")
        columns.pop("elapsed", None)
        train = {"train": columns["train"]} if "train" in columns else {}
        phases = {**train, **columns}  # training is the base of every stack
        scored, total = phases.pop("evaluate", None), np.nan_to_num(phases.pop("total", np.zeros(len(self.lines))))
        rest = total - sum(np.nan_to_num(column) for column in phases.values())
        if scored is not None:
            phases["evaluate"] = np.minimum(np.append(0.0, np.nan_to_num(scored[:-1])), np.maximum(rest, 0.0))
            rest -= phases["evaluate"]
        return {**phases, "other": np.maximum(rest, 0.0)} if rest.sum() > 0.01 * total.sum() else phases

    def lost(self) -> list[tuple[int, list[Any], list[Any]]]:
        """Return the rounds with lost ranks or clients, each with both lists."""
        rows = []
        for line in self.lines:
            lists = (value_at(line, "lost", kind) for kind in ("ranks", "clients"))
            ranks, clients = (value if isinstance(value, list) else [] for value in lists)
            if ranks or clients:
                rows.append((line["round"], ranks, clients))
        return rows

    def lead(self, metric: str) -> tuple[str, ...]:
        """Return the path of a run's leading scores: on test examples, else clients' mean, with own models first."""
        paths = ((*TEST, metric), (*PERSONAL, metric, "mean"), (*CLIENTS, metric, "mean"))
        return next((path for path in paths if self.tells(*path)), paths[0])

    def summary(self, metric: str | None) -> dict[str, Any]:
        """Return the values for a comparison of runs, NaN for a gap in the journal: scores by `metric`, and costs.

        `best_of` names the table of `best`: "test", "personal" or "clients".
        """
        lead = self.lead(metric) if metric else TEST
        best, best_round = self.best(metric, *lead) if metric else (math.nan, 0)
        words = [(kind, word) for kind in MODELS for word in ("mean", "worst_tenth")]
        return {
            "final": self.last(*TEST, metric) if metric else math.nan,
            "best": best,
            "best_round": best_round,
            "best_of": lead[1],
            **{f"{kind}_{word}": self.last("evaluation", kind, metric or "", word) for kind, word in words},
            "rounds": self.lines[-1]["round"],
            "seconds": self.seconds(),
            "bytes": next(reversed(self.moved().values()), math.nan),
        }

    def metrics(self) -> list[str]:
        """Return the names of the metrics in the run's scores, in the order of the journal."""
        paths = (TEST, CLIENTS, PERSONAL)
        return list(dict.fromkeys(name for line in self.lines for path in paths for name in table_at(line, *path)))

    def ledger(self) -> list[tuple[str, str]]:
        """Return the entries of the stages' ledgers, as pairs of stage and name."""
        stages = [(stage, entries) for line in self.lines for stage, entries in table_at(line, "stages").items()]
        return list(dict.fromkeys((stage, name) for stage, entries in stages for name in table_at(entries)))


def read_run(folder: Path) -> RunRecord:
    """Return the record of the run in a folder, with its baselines'; Refused for no run, a damaged or an empty one."""
    run_folder = RunFolder(folder)
    job = run_folder.read_job()
    try:
        text = run_folder.job.read_text(encoding="utf-8")
        when = datetime.fromtimestamp(run_folder.journal.stat().st_mtime)
    except FileNotFoundError as error:
        raise Refused(f"{folder}: holds no run: there is no {Path(error.filename).name} in it") from None
    except OSError as error:
        raise Refused(f"{folder}: holds no run that can be read: {error}") from None
    lines: list[dict[str, Any]] = []
    for line in read_journal(run_folder.journal):
        round_ = line["round"] if type(line.get("round")) is int else lines[-1]["round"] + 1 if lines else 1
        while lines and lines[-1]["round"] >= round_:  # a line without its round is of the next one
            lines.pop()
        lines += [{**line, "round": round_}] if line else []
    if not lines:
        raise Refused(f"{run_folder.journal}: holds no round; the run was stopped before its first was done")
    folders = {name: folder / "baselines" / name for name in BASELINES}
    baselines = {name: read_run(inner) for name, inner in folders.items() if _holds_journal(inner)}
    return RunRecord(folder, text, job, lines, when, baselines)


def _holds_journal(folder: Path) -> bool:
    """Return whether a folder has a journal with at least one byte."""
    journal = folder / "journal.jsonl"
    return journal.exists() and journal.stat().st_size > 0
