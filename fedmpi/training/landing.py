"""The model as the last broadcast brought it, on the model's device."""

from __future__ import annotations

import torch

from fedmpi.flat import FlatModel
from fedmpi.flow import State


class Landing:
    """The planes of the last broadcast, on the model's device: the very buffer of the state, unless `staged`.

    `model` is laid out like the model's values, its private part as the model was built; `down` `(down, size)` are all
    planes that were sent.
    """

    def __init__(self, flat: FlatModel, state: State, staged: bool) -> None:
        self.flat, self.state, self.staged = flat, state, staged
        self.private = flat.shared.start
        landed = state.buffer[: self.private + state.planes.numel()]
        self.buffer = torch.zeros_like(landed, device=flat.device) if staged else landed
        self.model = self.buffer[: len(flat.values)]
        self.down = self.buffer[self.private :].view(-1, flat.size)
        self.start()

    def start(self) -> None:
        """Take the private part of the model as it is now: it is never sent."""
        self.buffer[: self.private].copy_(self.flat.values[: self.private])

    def receive(self) -> None:
        """Fetch the planes from the host, and the model's counts with them."""
        if self.staged:
            self.buffer[self.private :].copy_(self.state.planes.view(-1), non_blocking=True)
        if self.flat.whole.size:
            self.flat.whole.received.copy_(torch.from_numpy(self.state.counts))

    def lay(self) -> None:
        """Lay the received model in place, as every client starts from it."""
        self.flat.values.copy_(self.model)
        self.flat.restore()
