"""Checks of a task and a gradient at work: a misfit is refused in a job's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedmpi import own
from fedmpi.flat import FlatModel
from fedmpi.flow import Refused, Task, losses_of
from fedmpi.flow.losses import Losses
from fedmpi.job import JobError
from fedmpi.plan.each import each


class Checked:
    """A task with checks of its outputs and losses; its loss is tried with the lowest and the highest label too.

    `labels` are these two, of all examples, None where targets are no labels.
    """

    def __init__(self, task: Task, labels: tuple[int, int] | None) -> None:
        self.task, self.labels = task, labels

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self.task.metrics

    def outputs(self, classes: tuple[str, ...]) -> int:
        return self.task.outputs(classes)

    def inputs(self, x: Tensor) -> Tensor:
        return self.task.inputs(x)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        if by_shape(self.task):
            _fits(self.task, outputs, y)
        loss = self.task.loss(outputs, y)
        number(loss, "task", len(y))
        each(self.task, loss, outputs, y)
        if self.labels is not None and not y.is_floating_point():
            self._extremes(outputs, y)
        return loss

    @property
    def losses(self) -> Losses | None:
        return losses_of(self.task)

    def _extremes(self, outputs: Any, y: Tensor) -> None:
        """Try the loss with the lowest label on an example, and with the highest: any batch may hold them."""
        for label in self.labels or ():
            target = y.clone().contiguous()
            target.view(-1)[:1] = label
            try:
                with torch.no_grad():
                    each(self.task, self.task.loss(outputs, target), outputs, target)
            except Refused:
                raise
            except Exception as error:
                beside = f" and the model's outputs {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else ""
                raise JobError(
                    f"task: its loss fails on the label {label}, which an example of the shard set has,{beside}: "
                    f"{own.line(error)}"
                ) from error


def by_shape(task: Task) -> bool:
    """Return whether a task's loss is the one known to its `misfit`: a subclass with its own loss may want others."""
    owners = [next((kind for kind in type(task).__mro__ if name in vars(kind)), None) for name in ("misfit", "loss")]
    return owners[0] is not None and owners[0] is owners[1]


def labelled(task: Task, labels: tuple[int, int] | None, where: str) -> None:
    """Refuse labels beyond the task's classes, of examples at `where`."""
    name = getattr(task, "name", type(task).__name__)
    count = getattr(task, "label_count", None)
    if labels is None or count is None or not by_shape(task):
        return
    for label in labels:
        if not 0 <= label < count:
            raise JobError(
                f"data.shards: {where} holds the label {label}, and the task {name!r} has {count} classes, "
                f"0 to {count - 1}"
            )


def _fits(task: Any, outputs: Any, y: Tensor) -> None:
    wanted = task.misfit(tuple(outputs.shape) if isinstance(outputs, Tensor) else (), tuple(y.shape))
    if not isinstance(outputs, Tensor):
        many = f" of {len(outputs)}" if isinstance(outputs, (tuple, list)) else ""
        raise JobError(
            f"model.name: your model gives a {type(outputs).__name__}{many}, the task wants one tensor {wanted}"
        )
    if wanted is not None:
        raise JobError(f"model.name: your model gives {tuple(outputs.shape)}, the task wants {wanted}")
    if not outputs.is_floating_point():
        raise JobError(f"model.name: your model gives {str(outputs.dtype)[6:]}, the task wants floating numbers")


def number(loss: Any, field: str, examples: int | None = None) -> None:
    """Refuse any loss but a scalar tensor."""
    batch = f" of {examples} examples" if examples is not None else ""
    if not isinstance(loss, Tensor):
        raise JobError(f"{field}: its loss{batch} is a {type(loss).__name__}; it should be a tensor with one number")
    if loss.dim() or not loss.is_floating_point():
        raise JobError(
            f"{field}: its loss{batch} has shape {tuple(loss.shape)} and type {str(loss.dtype)[6:]}; it should be one "
            f"floating number, such as the mean over the batch"
        )


def reached(loss: Any, flat: FlatModel, field: str) -> None:
    """Refuse a loss without a part of any trained parameter."""
    number(loss, field)
    gradients: tuple[Tensor | None, ...] = ()
    if loss.requires_grad:
        gradients = torch.autograd.grad(loss, flat.parameters, retain_graph=True, allow_unused=True)
    if all(gradient is None for gradient in gradients):
        raise JobError(
            f"{field}: its loss has no gradient with respect to any parameter that is trained; does the model or the "
            f"loss detach, or use torch.no_grad, argmax, .item() or NumPy on the way?"
        )
