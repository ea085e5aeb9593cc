"""The sequential engine: one resident flat model, clients one after another, no allocation per client."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmpi.flat import FlatModel
from fedmpi.flow import Client, Examples, Layout, State, Strategy, Task, entropy
from fedmpi.job import Local
from fedmpi.optim import Maker
from fedmpi.training.batches import batches, steps
from fedmpi.training.schedules import Schedule

CHUNK = 1024  # examples of a whole-client gradient taken at once: memory stays flat however large the client


@dataclass
class Learned:
    """A client's update on its way out, and what is told of it: examples, steps, mean training loss (NaN if none)."""

    wire: Tensor  # (width,) planes filled, then Σ's zeros, then the strategy's sums
    examples: int
    steps: int
    loss: float


def key(seed: int, round: int, client: int, use: int = 0) -> int:
    """The 63-bit key of what is random in what a client learns, for each `use` its own: never the rank that serves it.

    torch's generator on the host takes 32 bits of it.
    """
    words = np.random.SeedSequence(entropy(seed, round, client, use)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


class Sequential:
    """Trains one client after another on the model that this rank keeps.

    `begin` lays the received model into `values`; `learn` trains from there.  Losses stay on the device until the
    client is done, so that no step waits for the host.
    """

    def __init__(
        self,
        flat: FlatModel,
        task: Task,
        strategy: Strategy,
        layout: Layout,
        shards: Examples,
        local: Local,
        optimizer: Maker,
        schedule: Schedule,
        seed: int,
        rounds: int,
        state: State,
        staged: bool,
    ) -> None:
        self.flat, self.task, self.strategy, self.layout, self.shards = flat, task, strategy, layout, shards
        self.local, self.schedule, self.seed, self.rounds = local, schedule, seed, rounds
        self.state = state
        # Laid out like values, on their device: unless `staged`, the very buffer that a broadcast lands in.
        self.received = torch.zeros_like(flat.values) if staged else state.received
        self.trained = flat.values[flat.trained]
        self.optimizer = optimizer(self.trained, local.lr)
        self.wire = torch.zeros(layout.width, dtype=layout.dtype, device=flat.device)
        self.generator = torch.Generator()
        self.seen = float("nan")  # mean loss where the last whole gradient was taken
        bare = not (local.l1 or local.l2 or local.clip)
        self.direct = self.optimizer.plain and bare and not strategy.corrects

    def receive(self) -> None:
        """The broadcast's model, on this rank's device, for all its clients of the round."""
        if self.received is not self.state.received:
            self.received.copy_(self.state.received, non_blocking=True)

    def begin(self) -> None:
        """The received model in place, as every client starts from it."""
        self.flat.values.copy_(self.received)
        self.flat.restore()

    def learn(self, index: int, round: int) -> Learned:
        """Train client `index` from the model that `begin` laid out; the wire returned is valid until the next call."""
        x, y = self.shards.train(index)
        self.generator.manual_seed(key(self.seed, round, index))
        self._seed(key(self.seed, round, index, use=1))
        flat, shared = self.flat, self.flat.shared
        client = Client(
            index=index,
            examples=len(y),
            round=round,
            lr=self.local.lr * self.schedule(round, self.rounds),
            values=flat.values[shared],
            received=self.received[shared],
            planes=self.layout.planes(self.wire),
            gradient=lambda: self._gradient(x, y),  # of this engine, never of the client: a cycle would keep buffers
        )
        flat.model.train()
        self.strategy.prepare(client)
        if self.strategy.learns and len(y):
            client.loss = self._train(client, x, y)
        with torch.no_grad():
            sums = self.strategy.result(client)
        if not self.strategy.learns:
            client.loss = self.seen
        tail = self.layout.tail(self.wire)
        for place, name in enumerate(self.layout.sums):
            tail[2 + place] = sums[name]
        return Learned(self.wire, client.examples, client.steps, client.loss)

    def _seed(self, seed: int) -> None:
        """What is random inside the model: dropout.  torch.manual_seed does the same in half a millisecond more."""
        torch.default_generator.manual_seed(seed)
        if self.flat.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _train(self, client: Client, x: Tensor, y: Tensor) -> float:
        flat, local, lr = self.flat, self.local, client.lr
        client.steps = steps(len(y), local.batch, local.epochs, local.steps)
        self.optimizer.restart(lr)
        losses, counts = [], []
        for inputs, targets in batches(x, y, self.task, local.batch, client.steps, self.generator, flat.device):
            loss = self.strategy.loss(self.task, flat.model(inputs), targets, client)
            gradients = flat.gradient(loss)
            with torch.no_grad():
                if self.direct:
                    torch._foreach_add_(flat.views, gradients, alpha=-lr)
                else:
                    flat.write(gradients)
                    self._step(client)
            losses.append(loss.detach())
            counts.append(len(targets))
        weights = torch.tensor(counts, dtype=torch.float64)
        return float(torch.stack(losses).to("cpu", torch.float64) @ weights / weights.sum())

    def _step(self, client: Client) -> None:
        """One optimiser step on `grads`: the penalties are part of the objective, the clip comes last."""
        grads, values, local = self.flat.grads, self.trained, self.local
        if local.l2:
            grads.add_(values, alpha=local.l2)
        if local.l1:
            grads.add_(values.sign(), alpha=local.l1)
        if self.strategy.corrects:
            self.strategy.correct(grads, values, self.received[self.flat.trained], client)
        if local.clip:
            grads.mul_((local.clip / torch.linalg.vector_norm(grads)).clamp(max=1.0))
        if self.optimizer.plain:
            values.add_(grads, alpha=-client.lr)
        else:
            self.optimizer.step(grads)

    @torch.enable_grad()
    def _gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean gradient `(trained,)` over all examples, at `values`, with the penalties' share; taken in chunks."""
        flat, local = self.flat, self.local
        total, seen = torch.zeros_like(flat.grads), torch.zeros((), dtype=torch.float64, device=flat.device)
        for start in range(0, len(y), CHUNK):
            part = y[start : start + CHUNK].to(flat.device)
            outputs = flat.model(self.task.inputs(x[start : start + CHUNK].to(flat.device)))
            loss = self.task.loss(outputs, part)
            gradients = flat.gradient(loss)
            with torch.no_grad():
                seen += loss.double() * len(part)
                flat.write(gradients)
                total.add_(flat.grads, alpha=len(part) / len(y))
        self.seen = float(seen) / max(1, len(y))
        with torch.no_grad():
            return total.add_(self.trained, alpha=local.l2).add_(self.trained.sign(), alpha=local.l1)
