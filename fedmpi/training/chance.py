"""The randomness of a client's learning: the order of its batches, and the model's own draws (dropout)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedmpi.flow import Clients, key, keys

USES = 3  # of a client's keys: of the batches' order, of the model in them, of the model over a whole client


class Chance:
    """One client's randomness at a time, keyed by seed, round and client: never by the rank that serves it."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        self.on_gpu = device.type == "cuda"
        self.generator = torch.Generator()
        self.keys = [0] * USES
        self.marks: list[Tensor] = []
        self.expect(0, np.zeros(0, np.int64))

    def expect(self, round: int, clients: Clients) -> None:
        """Make the keys of the `clients (n,)` of a round at once: one by one each takes some 30 us."""
        self.round, self.clients = round, np.unique(clients)
        self.rows = keys(self.seed, round, self.clients[:, None], np.arange(USES))

    def share(self, other: Chance) -> None:
        """Expect the clients that another expects."""
        self.round, self.clients, self.rows = other.round, other.clients, other.rows

    def turn(self, round: int, client: int) -> None:
        """Go on to another client, expected or not."""
        at = int(np.searchsorted(self.clients, client))
        if round == self.round and at < len(self.clients) and self.clients[at] == client:
            self.keys = self.rows[at].tolist()
        else:
            self.keys = [key(self.seed, round, client, use) for use in range(USES)]

    def order(self) -> torch.Generator:
        """Return the generator that shuffles the client's batches, from its beginning; the model draws anew too."""
        self.generator.manual_seed(self.keys[0])
        self._model(self.keys[1])
        return self.generator

    def whole(self) -> None:
        """Seed the model's draws for a gradient over all the client's examples."""
        self._model(self.keys[2])

    def mark(self) -> None:
        """Remember where the model's generators stand."""
        self.marks = [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.device)] if self.on_gpu else [])]

    def back(self) -> None:
        """Let the model make its draws since the last mark again."""
        torch.set_rng_state(self.marks[0])
        for state in self.marks[1:]:
            torch.cuda.set_rng_state(state, self.device)

    def _model(self, seed: int) -> None:
        """Seed torch's own generators: torch.manual_seed does the same in half a millisecond more."""
        torch.default_generator.manual_seed(seed)
        if self.on_gpu:
            torch.cuda.manual_seed(seed)
