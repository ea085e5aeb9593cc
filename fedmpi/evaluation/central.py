"""The score of all test examples, streamed through torchmetrics, equal to `metrics` on few examples."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedmpi.evaluation.forward import frozen, outputs
from fedmpi.evaluation.metrics import Metric, explained, measured
from fedmpi.flow import Task
from fedmpi.job import JobError


def central(
    model: nn.Module,
    task: Task,
    x: Tensor,
    y: Tensor,
    metrics: Sequence[str],
    batch: int,
    device: torch.device | str,
) -> dict[str, float]:
    """Return the loss, then `metrics`, of examples `(N, ...)` on the host, N at least 1; NaN where undefined.

    Batches pass by and only sums stay; but auroc stores a number per example and class, and a user's own metric all
    outputs, because they are no sums.
    """
    loss = torch.zeros((), dtype=torch.float64, device=device)
    streams: dict[str, _Stream | _Whole] = {}
    with frozen(model):
        for predictions, part in zip(outputs(model, task, x, batch, device), torch.split(y, batch), strict=True):
            targets = part.to(device, non_blocking=True)
            loss += task.loss(predictions, targets).double() * len(targets)
            for name in metrics:
                if name not in streams:
                    metric = task.metrics[name]
                    whole = not isinstance(metric, Metric)
                    streams[name] = _Whole(name, metric) if whole else _Stream(metric, predictions, targets)
                streams[name].update(predictions, targets)
        return {"loss": float(loss) / len(y), **{name: float(streams[name].compute()) for name in metrics}}


def ready(task: Task, metrics: Sequence[str]) -> None:
    """Import the modules of the central score of `metrics`: the seconds are then no part of a round's."""
    for name in metrics:
        metric = task.metrics.get(name)
        if isinstance(metric, Metric):
            _kind(metric)


def _kind(metric: Metric) -> Callable[..., Any]:
    """Return the torchmetrics class of a metric."""
    room, _, name = metric.stream.partition(".")
    try:
        kind: Callable[..., Any] = getattr(importlib.import_module(f"torchmetrics.{room}"), name)
    except (ImportError, AttributeError):
        raise JobError(f"evaluation.metrics: a metric streams {metric.stream!r}, which torchmetrics has not") from None
    return kind


class _Stream:
    """A torchmetrics object, fed batch by batch.

    It counts in double precision (its float32 would say 0.94999999 for 95 of 100) and knows nothing of processes.
    """

    def __init__(self, metric: Metric, outputs: Tensor, y: Tensor) -> None:
        room, _, name = metric.stream.partition(".")
        options = dict(metric.options, sync_on_compute=False)
        if room == "classification":
            options["validate_args"] = False  # a check of every batch for a form already given by the task
        if name.startswith("Multiclass"):
            options["num_classes"] = outputs.shape[-1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that auroc keeps its examples
            stream = _kind(metric)(**options)
        self.torch = stream.set_dtype(torch.float64).to(outputs.device)
        self.prepare, self.finish = metric.prepare, FINISH.get(name, _compute)
        _, target = metric.prepare(outputs[:1], y[:1])
        # Errors are differences: measured from the first target, sums of squares of large numbers keep their digits.
        self.origin = target if target.is_floating_point() else None

    def update(self, outputs: Tensor, y: Tensor) -> None:
        preds, target = self.prepare(outputs, y)
        if self.origin is not None:
            preds, target = preds - self.origin, target - self.origin
        self.torch.update(preds, target)

    def compute(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a class is absent, which FINISH sees to
            return self.finish(self.torch)


class _Whole:
    """A user's function, which need not be a mean over batches: called once, with everything."""

    def __init__(self, name: str, function: Callable[[Tensor, Tensor], Tensor | float]) -> None:
        self.name, self.function = name, function
        self.seen: list[tuple[Tensor, Tensor]] = []

    def update(self, outputs: Tensor, y: Tensor) -> None:
        self.seen.append((outputs, y))

    def compute(self) -> Tensor:
        outputs, targets = zip(*self.seen, strict=True)
        return measured(self.name, self.function, torch.cat(outputs), torch.cat(targets))


def _compute(metric: Any) -> Tensor:
    value: Tensor = metric.compute()
    return value


def _defined(metric: Any) -> Tensor:
    """Return the mean area over classes that have one: torchmetrics gives 0 to a class without examples."""
    areas, target, preds = metric.compute(), torch.cat(metric.target), torch.cat(metric.preds)
    many = torch.bincount(target, minlength=max(2, areas.numel()))
    areas = torch.where((many > 0) & (many < len(target)), areas, torch.nan)
    return areas.nanmean() + 0 * preds.sum()  # what is not a number has no rank


def _unrounded(metric: Any) -> Tensor:
    """Return R2 of torchmetrics' sums; its own result takes sums below 1e-4 for zero, whatever the targets' unit."""
    return explained(metric.residual, metric.sum_squared_error - metric.sum_error.square() / metric.total)


FINISH: dict[str, Callable[[Any], Tensor]] = {
    "MulticlassAUROC": _defined,
    "BinaryAUROC": _defined,
    "R2Score": _unrounded,
}
