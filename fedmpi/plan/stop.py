"""The early end of a run: a target met, patience spent, time up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedmpi.job import JobError, Stop, nearest, shown


class Stopper:
    """A watch over the finished lines; its counters are checkpointed.

    Targets, patience and the best checkpoint go by the central score where there are held-out examples
    for one, else the clients' mean; where clients have models of their `own`, the clients' mean of those.
    """

    def __init__(self, stop: Stop, scores: Sequence[str], higher: Callable[[str], bool], own: bool = False) -> None:
        self.stop, self.higher, self.own = stop, higher, own
        for name, target in stop.targets.items():
            if name not in scores:
                fields = [*Stop.model_fields, *scores]
                raise JobError(
                    f"stop.{name}: is not a field, nor scored in evaluation.metrics; there are {', '.join(fields)}"
                    f"{nearest(name, fields)}"
                )
            if isinstance(target, bool) or not isinstance(target, (int, float)) or not math.isfinite(target):
                raise JobError(f"stop.{name}: {shown(target)} given; should be a number")
        if stop.metric is not None and stop.metric not in scores:
            raise JobError(
                f"stop.metric: {stop.metric!r} given; scored are {', '.join(scores)}{nearest(stop.metric, scores)}"
            )
        self.metric = stop.metric or (scores[1] if len(scores) > 1 else scores[0])
        self.best: float | None = None
        self.best_round = 0
        self.since = 0  # evaluations without improvement

    def look(self, line: Mapping[str, Any]) -> str | None:
        """Return the reason to end the run with the model of this line, in a few words; None to go on."""
        scores = self._scores(line)
        value = scores.get(self.metric)
        if value is not None:
            if self.best is None or (value > self.best if self.higher(self.metric) else value < self.best):
                self.best, self.best_round, self.since = value, int(line["round"]), 0
            else:
                self.since += 1
        for name, target in self.stop.targets.items():
            reached = scores.get(name)
            if reached is not None and (reached >= target if self.higher(name) else reached <= target):
                return f"{name} {target:g} reached"
        if self.stop.patience is not None and self.since >= self.stop.patience:
            return f"patience: {self.since} evaluations without a better {self.metric}"
        if self.stop.seconds is not None and line["seconds"]["elapsed"] >= self.stop.seconds:
            return f"{self.stop.seconds:g} seconds"
        return None

    def improved(self, line: Mapping[str, Any]) -> bool:
        """Return whether this line's model is the best so far."""
        return self.best is not None and self.best_round == line["round"]

    def _scores(self, line: Mapping[str, Any]) -> dict[str, float | None]:
        evaluation = line.get("evaluation", {})
        own = evaluation.get("personal", {}) if self.own else {}
        if evaluation.get("test") and not own:
            return dict(evaluation["test"])
        return {name: spread["mean"] for name, spread in (own or evaluation.get("clients", {})).items()}

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_round": self.best_round, "since": self.since, "metric": self.metric}

    def load(self, state: Mapping[str, Any]) -> None:
        if state.get("metric", self.metric) != self.metric:
            return  # the best so far is of another metric
        self.best, self.best_round, self.since = state["best"], state["best_round"], state["since"]
