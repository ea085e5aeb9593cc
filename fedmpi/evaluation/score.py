"""The scores of a model for the journal: of all test examples at once, and of each client's own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmpi.evaluation.central import central
from fedmpi.evaluation.forward import frozen, outputs
from fedmpi.evaluation.metrics import client_scores, higher_is_better
from fedmpi.flow import Task
from fedmpi.job import JobError, nearest


class Scorer:
    """A scorer of models on a task: the loss, then `metrics` (the task's leading one where None), in this order.

    `x` and `y` are columns on the host; batches of `batch` are moved to `device`, where the model is.  Raises JobError
    for a metric missing from the task.
    """

    def __init__(self, task: Task, metrics: Sequence[str] | None, batch: int, device: torch.device | str) -> None:
        wanted = list(task.metrics)[:1] if metrics is None else metrics
        for name in wanted:
            if name != "loss" and name not in task.metrics:
                known = ["loss", *task.metrics]
                raise JobError(
                    f"evaluation.metrics: {name!r} given; the task has {', '.join(known)}{nearest(name, known)}"
                )
        self.task, self.batch, self.device = task, batch, device
        self.metrics = tuple(name for name in dict.fromkeys(wanted) if name != "loss")
        self.names = ("loss", *self.metrics)

    def central(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float | None]:
        """Return each name's score over all examples, None where undefined or not finite; {} of no examples."""
        if not len(y):
            return {}
        scores = central(model, self.task, x, y, self.metrics, self.batch, self.device)
        return {name: _finite(score) for name, score in scores.items()}

    def client(self, model: nn.Module, x: Tensor, y: Tensor) -> NDArray[np.float64]:
        """Return one client's row `(len(names),)`, NaN where undefined or where it holds no examples.

        It depends on the model and these examples alone, so any rank comes to the same row.
        """
        if not len(y):
            return np.full(len(self.names), np.nan)
        with frozen(model):
            predictions = torch.cat(list(outputs(model, self.task, x, self.batch, self.device)))
            row = client_scores(predictions, y.to(self.device), self.task, self.metrics)
        scores: NDArray[np.float64] = row.cpu().numpy()
        return scores

    def summarise(self, rows: NDArray[np.float64]) -> dict[str, dict[str, float | None]]:
        """Return each name's mean, worst tenth and standard deviation over clients' rows `(K, len(names))`.

        Clients count alike, whatever their size, and only where their score is a number; the worst tenth is the mean of
        the worst ceil(K / 10) of those.  {} where no client has a score, None for an undefined or infinite score.
        """
        if np.isnan(rows).all():
            return {}
        return {name: self._spread(name, rows[:, place]) for place, name in enumerate(self.names)}

    def _spread(self, name: str, column: NDArray[np.float64]) -> dict[str, float | None]:
        scores = np.sort(column[~np.isnan(column)])
        if not len(scores):
            return {"mean": None, "worst_tenth": None, "std": None}
        tenth = -(-len(scores) // 10)
        worst = scores[:tenth] if higher_is_better(name, self.task) else scores[-tenth:]
        with np.errstate(invalid="ignore", over="ignore"):  # infinite losses: None, without a warning
            return {
                "mean": _finite(scores.mean()),
                "worst_tenth": _finite(worst.mean()),
                "std": _finite(scores.std()),
            }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
