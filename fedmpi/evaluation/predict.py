"""A model's predictions of unlabelled examples."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmpi.evaluation.forward import frozen, outputs
from fedmpi.flow import Task


def predictions(
    model: nn.Module, task: Task, x: Tensor, batch: int, device: torch.device | str
) -> dict[str, NDArray[Any]]:
    """Return columns, a row per example of `x` `(N, ...)`: "prediction" and, of classes, "probability" `(N, K)`.

    N is at least 1.  A prediction is a class's index, a number, or the character after each position.  A task without
    `predict` gives the model's outputs as they are.
    """
    predict = getattr(task, "predict", lambda batch_outputs: {"prediction": batch_outputs})
    with frozen(model):
        parts: list[dict[str, Tensor]] = [
            {name: column.cpu() for name, column in predict(batch_outputs).items()}
            for batch_outputs in outputs(model, task, x, batch, device)
        ]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
