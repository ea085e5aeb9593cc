"""The metrics of each task, as a few sums in plain torch: fast enough for every client of a round.

Of several classes, precision, recall and f1 are means over the classes seen or predicted, and auroc is the mean, one
class against the rest, over those with some examples inside and some outside.  A number is NaN where the examples do
not define it: auroc of one class, r2 of one value.  `central` has the same numbers from torchmetrics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fedmpi.flow import LOWER, Task
from fedmpi.job import JobError
from fedmpi.own import line, place

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Metric:
    """A metric of ours, called like a user's own function: `metric(outputs, y)` is a float64 scalar tensor.

    `prepare` makes the arguments of both `score` (the sums) and torchmetrics from outputs and targets; `stream` names
    the torchmetrics class with the same number batch by batch, made with `options`.
    """

    prepare: Callable[[Tensor, Tensor], Pair]
    score: Callable[[Tensor, Tensor], Tensor]
    stream: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.score(*self.prepare(outputs, y))


def higher_is_better(metric: str, task: Task) -> bool:
    """Return whether more is better: not of losses and errors; a user's function may say so in an attribute."""
    return bool(getattr(task.metrics.get(metric), "higher_is_better", metric not in LOWER))


def client_scores(outputs: Tensor, y: Tensor, task: Task, metrics: Sequence[str]) -> Tensor:
    """Return loss, then `metrics`, of one client's examples: float64 `(1 + len(metrics),)`, NaN where undefined.

    Raises JobError for a failing metric of a person's own, or one without a number.
    """
    loss = torch.as_tensor(task.loss(outputs, y), dtype=torch.float64, device=outputs.device)
    return torch.stack([loss, *(measured(name, task.metrics[name], outputs, y) for name in metrics)])


def measured(name: str, metric: Callable[[Tensor, Tensor], Any], outputs: Tensor, y: Tensor) -> Tensor:
    """Return a metric of examples, a float64 scalar tensor; JobError where one of a person's own gives no number."""
    try:
        score = metric(outputs, y)
    except Exception as error:
        if isinstance(metric, Metric) and place(error) is None:
            raise  # one of ours: it is the outputs that do not fit
        raise JobError(f"evaluation.metrics: {name!r} failed on {len(y)} examples: {line(error)}") from error
    kind = f"a {type(score).__name__}"
    if isinstance(score, Tensor):
        kind = f"a tensor of shape {tuple(score.shape)} and {str(score.dtype)[6:]}"
    if not (isinstance(score, complex) or (isinstance(score, Tensor) and score.is_complex())):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            number = torch.as_tensor(score, dtype=torch.float64, device=outputs.device)
            if not number.dim():
                return number
    raise JobError(f"evaluation.metrics: {name!r} gives {kind}; it should give one number")


# What the sums and torchmetrics take: labels, chances or numbers.


def aligned(outputs: Tensor, y: Tensor) -> Pair:
    """Return logits `(N, T, K)` and next characters `(N, T)`, or `(N,)` of the last position, as rows and labels."""
    if outputs.dim() > y.dim() + 1:
        outputs = outputs[:, -1]
    return outputs.flatten(0, -2), y.long().flatten()


def _labels(outputs: Tensor, y: Tensor) -> Pair:
    return outputs.argmax(-1), y.long()


def _binary_labels(outputs: Tensor, y: Tensor) -> Pair:
    return (outputs.reshape(y.shape) > 0).long(), y.long()  # a chance of more than a half


def _chances(outputs: Tensor, y: Tensor) -> Pair:
    return outputs.double().softmax(-1), y.long()  # double, so that confident outputs do not tie


def _binary_chances(outputs: Tensor, y: Tensor) -> Pair:
    return outputs.reshape(y.shape).double().sigmoid(), y.long()


def _numbers(outputs: Tensor, y: Tensor) -> Pair:
    target = y.double().reshape(len(y), -1)
    return outputs.double().reshape(target.shape), target


def _characters(outputs: Tensor, y: Tensor) -> Pair:
    return _labels(*aligned(outputs, y))


def _logits(outputs: Tensor, y: Tensor) -> Pair:
    rows, labels = aligned(outputs, y)
    return rows.double()[None], labels[None]


# The sums.


def _accuracy(preds: Tensor, target: Tensor) -> Tensor:
    return (preds == target).double().mean()


def _precision(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return hits / predicted.clamp(min=1)


def _recall(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return hits / actual.clamp(min=1)


def _f1(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return 2 * hits / (predicted + actual).clamp(min=1)


Rate = Callable[
    [Tensor, Tensor, Tensor], Tensor
]  # of a class: how many rightly predicted, how many predicted, how many


def _macro(rate: Rate) -> Callable[[Tensor, Tensor], Tensor]:
    def score(preds: Tensor, target: Tensor) -> Tensor:
        classes = 1 + int(torch.maximum(preds, target).max())  # those above were neither seen nor predicted
        hits = torch.bincount(target, weights=(preds == target).double(), minlength=classes)
        predicted, actual = torch.bincount(preds, minlength=classes), torch.bincount(target, minlength=classes)
        return rate(hits, predicted, actual).sum() / (predicted + actual > 0).sum()

    return score


def _positive(rate: Rate) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda preds, target: rate((preds * target).sum().double(), preds.sum(), target.sum())


def _auroc(preds: Tensor, target: Tensor) -> Tensor:
    """Return the mean area under the ROC curve of each class by ranks, ties at their mean rank (Mann, Whitney 1947).

    `preds` is `(N, K)`, or `(N,)` for the second of two classes.
    """
    if preds.dim() == 1:
        preds, inside = preds[None], target[None].double()
    else:
        preds, inside = preds.T.contiguous(), functional.one_hot(target, preds.shape[-1]).T.double()
    ordered = preds.sort(dim=-1).values
    ranks = (torch.searchsorted(ordered, preds) + torch.searchsorted(ordered, preds, right=True) + 1) / 2
    many = inside.sum(-1)
    pairs = many * (len(target) - many)
    areas = ((ranks * inside).sum(-1) - many * (many + 1) / 2) / pairs  # 0 / 0 where all or none are inside
    return areas.nanmean() + 0 * preds.sum()  # what is not a number has no rank


def _squared(preds: Tensor, target: Tensor) -> Tensor:
    return (preds - target).square().mean()


def _absolute(preds: Tensor, target: Tensor) -> Tensor:
    return (preds - target).abs().mean()


def _determination(preds: Tensor, target: Tensor) -> Tensor:
    around = target - target[:1]  # zeros, without rounding, where all targets are the same
    return explained((preds - target).square().sum(0), (around - around.mean(0)).square().sum(0))


def explained(residual: Tensor, spread: Tensor) -> Tensor:
    """Return R2 of each column from its sums of squares, averaged over columns with differing targets; NaN if none."""
    return torch.where(spread > 0, 1 - residual / spread, torch.nan).nanmean()


def _perplexity(preds: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(preds[0], target[0]).exp()


CLASSIFICATION: dict[str, Metric] = {
    "accuracy": Metric(_labels, _accuracy, "classification.MulticlassAccuracy", {"average": "micro"}),
    "precision": Metric(_labels, _macro(_precision), "classification.MulticlassPrecision", {"average": "macro"}),
    "recall": Metric(_labels, _macro(_recall), "classification.MulticlassRecall", {"average": "macro"}),
    "f1": Metric(_labels, _macro(_f1), "classification.MulticlassF1Score", {"average": "macro"}),
    "auroc": Metric(_chances, _auroc, "classification.MulticlassAUROC", {"average": "none"}),
}
BINARY: dict[str, Metric] = {
    "accuracy": Metric(_binary_labels, _accuracy, "classification.BinaryAccuracy"),
    "precision": Metric(_binary_labels, _positive(_precision), "classification.BinaryPrecision"),
    "recall": Metric(_binary_labels, _positive(_recall), "classification.BinaryRecall"),
    "f1": Metric(_binary_labels, _positive(_f1), "classification.BinaryF1Score"),
    "auroc": Metric(_binary_chances, _auroc, "classification.BinaryAUROC"),
}
REGRESSION: dict[str, Metric] = {
    "mse": Metric(_numbers, _squared, "regression.MeanSquaredError"),
    "mae": Metric(_numbers, _absolute, "regression.MeanAbsoluteError"),
    "r2": Metric(_numbers, _determination, "regression.R2Score"),
}
NEXT_CHARACTER: dict[str, Metric] = {
    "accuracy": Metric(_characters, _accuracy, "classification.MulticlassAccuracy", {"average": "micro"}),
    "perplexity": Metric(_logits, _perplexity, "text.Perplexity"),
}
