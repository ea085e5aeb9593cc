"""The floor: what federated averaging costs in plain eager PyTorch, one Allreduce a round and no trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector


class Floor:
    """FedAvg over an mpi4py communicator whose every rank trains; `round(cohort)` is what one round costs.

    `columns` are the inputs and targets of the clients that this rank trains, ready for the model before anything is
    timed, `sizes` the examples of each client; batches are cut by index, the optimiser is torch's own SGD, and `steps`,
    where given, count in place of `epochs`.  Without a communicator this rank is alone.
    """

    def __init__(
        self,
        comm: Any,
        columns: Mapping[int, tuple[Tensor, Tensor]],
        sizes: NDArray[np.int64],
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        lr: float,
        batch: int,
        epochs: int = 1,
        steps: int | None = None,
    ) -> None:
        self.comm, self.columns, self.sizes, self.model, self.loss = comm, columns, sizes, model, loss
        self.batch, self.epochs, self.steps = batch, epochs, steps
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        self.received = parameters_to_vector(model.parameters()).detach().clone()
        self.parts = [parameter.numel() for parameter in model.parameters()]
        self.sent, self.total = torch.zeros_like(self.received), torch.zeros_like(self.received)

    def round(self, cohort: NDArray[np.int64]) -> None:
        """Train this rank's every n-th client of the cohort, and average over all ranks."""
        rank, size = (self.comm.rank, self.comm.size) if self.comm else (0, 1)
        everyone = int(self.sizes[cohort].sum())
        self.sent.zero_()
        for client in cohort[rank::size]:
            x, y = self.columns[int(client)]
            self.lay()
            self._train(x, y)
            with torch.no_grad():
                self.sent.add_(parameters_to_vector(self.model.parameters()), alpha=len(y) / everyone)
        if self.comm:
            self.comm.Allreduce(self.sent.numpy(), self.total.numpy())
        else:
            self.total.copy_(self.sent)
        self.received.copy_(self.total)

    @torch.no_grad()
    def lay(self) -> None:
        """Lay the averaged model in the parameters, which keep memory of their own."""
        parts = torch.split(self.received, self.parts)
        for parameter, part in zip(self.model.parameters(), parts, strict=True):
            parameter.copy_(part.view_as(parameter))

    def _train(self, x: Tensor, y: Tensor) -> None:
        batch, taken = self.batch or len(y), 0
        wanted = self.steps or self.epochs * -(-len(y) // batch)
        while taken < wanted:
            order = torch.randperm(len(y))
            for start in range(0, len(y), batch):
                chosen = order[start : start + batch]
                self.optimizer.zero_grad()
                loss = self.loss(self.model(x[chosen]), y[chosen])
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                taken += 1
                if taken == wanted:
                    return
