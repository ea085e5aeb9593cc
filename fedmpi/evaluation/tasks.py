"""The tasks of a model: inputs from stored examples, a loss, predictions and metrics.

A task of your own is `package.module:Task`.  Any class with these will do; of `scale`, `dtype`, `classes`
and `target_shape` the trainer passes those named in `__init__`; a job's `[task]` table gives its other arguments:

    class Masked:
        name = "masked"
        metrics = {"bias": lambda outputs, y: (outputs - y).mean()}     # (all outputs, all y) -> a number, or {}

        def inputs(self, x): return x.float()                           # stored (N, ...) -> the model's inputs
        def loss(self, outputs, y): return (outputs - y)[y > 0].square().mean()      # a scalar tensor, mean of a batch
        def outputs(self, classes): return 1                            # how many outputs a built-in model gets

or begin from one of these, and keep its metrics:

    class Smoothed(Classification):
        metrics = {**Classification.metrics, "top5": top5}

        def loss(self, outputs, y): return cross_entropy(outputs, y, label_smoothing=0.1)

A metric function may carry an attribute `higher_is_better`; True where it has none.  `predict(outputs)`, where there is
one, gives the columns of `fedmpi predict`; `vote(outputs)` makes one model's outputs of several models' `(K, N, ...)`
(their mean, where there is none).

`losses(outputs, y)`, where there is one, gives the loss of each example by itself, `(N,)`, and `loss` is their mean on
every batch.  `Masked` cannot have it: one example may have more targets that count than another.  A class with a `loss`
of its own that begins from one of ours needs `losses` of its own too: those of ours no longer count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fedmpi.evaluation import metrics
from fedmpi.evaluation.metrics import aligned
from fedmpi.flow import Task
from fedmpi.job import Registry

Shape = tuple[int, ...]


class Scaled:
    """Examples of numbers: stored values times `scale` (1/255 for bytes of an image), in the model's `dtype`."""

    def __init__(self, scale: float = 1.0, dtype: torch.dtype = torch.float32, classes: tuple[str, ...] = ()) -> None:
        self.scale, self.dtype, self.classes = scale, dtype, classes

    def inputs(self, x: Tensor) -> Tensor:
        cast = x.to(self.dtype)
        if self.scale == 1:
            return cast
        return cast * self.scale if cast is x else cast.mul_(self.scale)  # stored columns are never written to


class Classification(Scaled):
    """One of several classes: `y` `(N,)` class indices, outputs `(N, classes)` logits, cross-entropy."""

    name = "classification"
    metrics: Mapping[str, Any] = metrics.CLASSIFICATION

    def __init__(self, scale: float = 1.0, dtype: torch.dtype = torch.float32, classes: tuple[str, ...] = ()) -> None:
        super().__init__(scale, dtype, classes)
        if len(classes) < 2:
            raise ValueError(f"needs at least two classes; the shard set has {len(classes)}")

    @property
    def label_count(self) -> int:
        """Return the number of labels, from 0 up."""
        return len(self.classes)

    def outputs(self, classes: tuple[str, ...]) -> int:
        return len(classes)

    def misfit(self, shape: Shape, y: Shape) -> Shape | None:
        """Return the right shape of outputs beside targets `y`, where `shape` is another."""
        wanted = (y[0], len(self.classes), *y[1:])
        return None if shape == wanted else wanted

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, y.long())

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return _by_row(functional.cross_entropy(outputs, y.long(), reduction="none"))

    def predict(self, outputs: Tensor) -> dict[str, Tensor]:
        return {"prediction": outputs.argmax(-1), "probability": outputs.softmax(-1)}

    def vote(self, outputs: Tensor) -> Tensor:
        return _log(outputs.softmax(-1).mean(0))


class Binary(Scaled):
    """One of two classes: `y` `(N,)` of 0 and 1, outputs `(N, 1)` the logit of 1, binary cross-entropy."""

    name = "binary"
    metrics: Mapping[str, Any] = metrics.BINARY

    def __init__(self, scale: float = 1.0, dtype: torch.dtype = torch.float32, classes: tuple[str, ...] = ()) -> None:
        super().__init__(scale, dtype, classes)
        if len(classes) not in (0, 2):
            raise ValueError(f"takes two classes; the shard set has {len(classes)}: try the task classification")

    @property
    def label_count(self) -> int:
        """Return the number of labels, from 0 up."""
        return 2

    def outputs(self, classes: tuple[str, ...]) -> int:
        return 1

    def misfit(self, shape: Shape, y: Shape) -> Shape | None:
        """Return the right shape of outputs beside targets `y`, where `shape` is another."""
        return _as_many(shape, y)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs.reshape(y.shape), y.to(outputs.dtype))

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        laid, right = outputs.reshape(y.shape), y.to(outputs.dtype)
        return _by_row(functional.binary_cross_entropy_with_logits(laid, right, reduction="none"))

    def predict(self, outputs: Tensor) -> dict[str, Tensor]:
        logits = outputs.reshape(-1)
        return {"prediction": (logits > 0).long(), "probability": torch.stack((-logits, logits), -1).sigmoid()}

    def vote(self, outputs: Tensor) -> Tensor:
        return _log(outputs.sigmoid().mean(0)) - _log((-outputs).sigmoid().mean(0))


class Regression(Scaled):
    """Numbers: `y` `(N,)` or `(N, ...)`, outputs as many, mean squared error."""

    name = "regression"
    metrics: Mapping[str, Any] = metrics.REGRESSION

    def __init__(
        self,
        scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        classes: tuple[str, ...] = (),
        target_shape: tuple[int, ...] = (),
    ) -> None:
        super().__init__(scale, dtype, classes)
        self.target_shape = target_shape

    def outputs(self, classes: tuple[str, ...]) -> int:
        return math.prod(self.target_shape)

    def misfit(self, shape: Shape, y: Shape) -> Shape | None:
        """Return the right shape of outputs beside targets `y`, where `shape` is another."""
        return _as_many(shape, y)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return functional.mse_loss(outputs.reshape(y.shape), y.to(outputs.dtype))

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return _by_row(functional.mse_loss(outputs.reshape(y.shape), y.to(outputs.dtype), reduction="none"))

    def predict(self, outputs: Tensor) -> dict[str, Tensor]:
        return {"prediction": outputs.reshape(len(outputs), *self.target_shape)}


class NextCharacter:
    """The next character: `x` `(N, T)` indices, logits `(N, T, vocabulary)`, cross-entropy.

    `y` is `(N, T)`, the next character of every position, or `(N,)`, the one after the last position alone.
    """

    name = "next-character"
    metrics: Mapping[str, Any] = metrics.NEXT_CHARACTER

    def __init__(self, classes: tuple[str, ...] = ()) -> None:
        if len(classes) < 2:
            raise ValueError(f"needs the vocabulary as class names; the shard set has {len(classes)}")
        self.classes = classes

    def inputs(self, x: Tensor) -> Tensor:
        return x.long()

    @property
    def label_count(self) -> int:
        """Return the number of labels, from 0 up."""
        return len(self.classes)

    def outputs(self, classes: tuple[str, ...]) -> int:
        return len(classes)

    def misfit(self, shape: Shape, y: Shape) -> Shape | None:
        """Return the right shape of outputs beside targets `y`, where `shape` is another."""
        wanted = (*y, len(self.classes))
        each = len(y) == 1 and len(shape) == 3 and (shape[0], shape[2]) == wanted  # the last position counts
        return None if each or shape == wanted else wanted

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(*aligned(outputs, y))

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return _by_row(functional.cross_entropy(*aligned(outputs, y), reduction="none").reshape(y.shape))

    def predict(self, outputs: Tensor) -> dict[str, Tensor]:
        return {"prediction": outputs.argmax(-1)}

    def vote(self, outputs: Tensor) -> Tensor:
        return _log(outputs.softmax(-1).mean(0))


def _by_row(losses: Tensor) -> Tensor:
    """Return the means `(N,)` of the rows of losses `(N, ...)`.

    Every row has as many targets: a job's labels are classes, and -100, which torch leaves out, is refused.
    """
    return losses.flatten(1).mean(1) if losses.dim() > 1 else losses


def _as_many(shape: Shape, y: Shape) -> Shape | None:
    """Return the right shape of a number for each of `y`, where `shape` is another.

    Right are their shape and one row an example; dimensions of one do not count.
    """
    wanted = (y[0], math.prod(y[1:]))
    laid = {tuple(size for size in one if size != 1) for one in (y, wanted)}
    return None if tuple(size for size in shape if size != 1) in laid else wanted


def _log(chances: Tensor) -> Tensor:
    """Return logarithms of probabilities, none of them taken for impossible."""
    return chances.clamp_min(torch.finfo(chances.dtype).tiny).log()


TASKS: Registry[Task] = Registry(
    "task",
    {
        "classification": Classification,
        "binary": Binary,
        "regression": Regression,
        "next-character": NextCharacter,
    },
    given=("scale", "dtype", "classes", "target_shape"),
)
