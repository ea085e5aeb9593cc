"""The sequential engine: one resident flat model, clients one after another, no allocation per client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmpi.flat import FlatModel
from fedmpi.flow import Batch, Client, Examples, Layout, Memory, Rule, State, Strategy, Task, entropy
from fedmpi.job import JobError, Local, nearest
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
    counts: Tensor  # (flat.whole.size,) int64: how far the model's counts and flags moved


def key(seed: int, round: int, client: int, use: int = 0) -> int:
    """The 63-bit key of what is random in what a client learns, for each `use` its own: never the rank that serves it.

    torch's generator on the host takes 32 bits of it.
    """
    words = np.random.SeedSequence(entropy(seed, round, client, use)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def kept_by_clients(strategy: Strategy, flat: FlatModel) -> dict[str, int]:
    """How many values each client keeps from round to round, by name: what stays home of the model, then the memory."""
    private = flat.shared.start
    sizes = {"model": flat.size, "trained": flat.trained.stop - private, "scalar": 1}
    kept = {"private": private} if private else {}
    return kept | {name: sizes[kind] for name, kind in strategy.memory.items()}


class Sequential:
    """Trains one client after another on the model that this rank keeps; a strategy sees it as its `Learner`.

    `begin` lays the received model into the flat values, with what stays home of one client's; `learn` trains from
    there, and keeps the client's memory.  Losses stay on the device until the client is done, so that no step waits
    for the host.  `memory` is where clients' vectors of `remembers` values come from and go to.
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
        self.state, self.model, self.grads = state, flat.model, flat.grads
        self.private, self.home = flat.shared.start, flat.shared.start - flat.trained.start
        # What a broadcast brings, on the model's device: unless `staged`, the very buffer that it lands in.
        landed = state.buffer[: self.private + state.planes.numel()]
        self.landed = torch.zeros_like(landed, device=flat.device) if staged else landed
        self.landed[: self.private].copy_(flat.values[: self.private])  # never sent: as the model was built
        self.received = self.landed[: len(flat.values)]
        self.values = flat.values[flat.trained]
        self.optimizer = optimizer(self.values, local.lr)
        self.wire = torch.zeros(layout.width, dtype=layout.dtype, device=flat.device)
        self.generator = torch.Generator()
        self.bare = self.optimizer.plain and not (local.l1 or local.l2 or local.clip)
        self.seen = float("nan")  # mean loss where this client's whole gradient was taken
        self.memory: Memory | None = None
        self.random: list[Tensor] = []  # where the generators stood before the last batch
        self.passes = self.used = 0  # a client's training passes so far, and the examples in them
        self.counts: Tensor | None = None  # what its first loop changed of the model's counts and flags
        self._remember()

    def _remember(self) -> None:
        """Lay out what a client keeps: `kept` is one client's at a time, `first` what each begins with."""
        self.places: dict[str, slice] = {}
        at = 0
        for name, size in kept_by_clients(self.strategy, self.flat).items():
            self.places[name] = slice(at, at + size)
            at += size
        self.kept = torch.zeros(at, dtype=self.flat.dtype, device=self.flat.device)
        for name, place in self.places.items():
            if name == "private":
                self.kept[place].copy_(self.flat.values[: self.private])
            elif self.strategy.memory[name] == "model":
                self.kept[place].copy_(self.flat.values[self.flat.shared])
        self.first = self.kept.clone()

    def start(self) -> None:
        """Take the model as it is now for what every client begins with: before the first round."""
        self.landed[: self.private].copy_(self.flat.values[: self.private])
        self._remember()

    @property
    def remembers(self) -> int:
        """Values that a client keeps from round to round; 0 where it keeps nothing."""
        return len(self.kept)

    def receive(self) -> None:
        """What the broadcast brought, on this rank's device, for all its clients of the round."""
        if self.landed.data_ptr() != self.state.buffer.data_ptr():
            self.landed[self.private :].copy_(self.state.planes.view(-1), non_blocking=True)
        if self.flat.whole.size:
            self.flat.whole.received.copy_(torch.from_numpy(self.state.counts))

    def begin(self) -> None:
        """The received model in place, as every client starts from it."""
        self.flat.values.copy_(self.received)
        self.flat.restore()

    def client(self, index: int) -> Client:
        """Client `index` of the round under way, its memory recalled and what stays home of its model in place."""
        self.x, self.y = x, y = self.shards.train(index)
        self.seen, self.passes, self.used, self.counts = float("nan"), 0, 0, None
        flat, shared, round = self.flat, self.flat.shared, self.state.round
        self.key, self.chance, self.whole = (key(self.seed, round, index, use) for use in range(3))
        found = self.memory.load(index, round - 1) if self.memory is not None and self.places else None
        self.kept.copy_(self.first if found is None else found)
        if self.private and found is not None:
            flat.values[: self.private].copy_(self.kept[self.places["private"]])
        return Client(
            index=index,
            examples=len(y),
            round=round,
            crossing=self.state.crossing,
            lr=self.local.lr * self.schedule(round, self.rounds),
            trained=self.layout.trained,
            values=flat.values[shared],
            down=self.landed[self.private :].view(-1, self.layout.size),
            said=self.state.said,
            planes=self.layout.planes(self.wire),
            gradient=lambda: self._gradient(x, y),  # of this engine, never of the client: a cycle would keep buffers
            objective=lambda: self._objective(x, y),
            memory={name: self.kept[place] for name, place in self.places.items()},
            fresh=found is None,
        )

    def learn(self, index: int, times: int = 1) -> Learned:
        """Train client `index` from the model that `begin` laid out; the wire returned is valid until the next call.

        It trains once, however many `times` it was drawn.
        """
        client, flat = self.client(index), self.flat
        client.times = times
        flat.model.train()
        if client.crossing + 1 < self.strategy.passes:
            client.planes.zero_()
            sums = self.strategy.survey(client)
        else:
            self.strategy.prepare(client)
            if client.examples:
                self.strategy.learn(client, self)
            flat.check()
            for here in flat.passing:  # no part of the model: it does not travel
                flat.values[here].copy_(self.received[here])
            with torch.no_grad():
                if self.strategy.fills:
                    client.planes.zero_()
                sums = self.strategy.result(client)
            client.loss = self.seen if np.isnan(client.loss) else client.loss
            if self.memory is not None and self.places and client.examples:
                if self.private:
                    self.kept[self.places["private"]].copy_(flat.values[: self.private])
                self.memory.save(index, client.round, self.kept)
        self._sums(sums)
        return Learned(self.wire, client.examples, client.steps, client.loss, self._counted())

    def _counted(self) -> Tensor:
        """How far this client's first loop moved the model's counts and flags."""
        if self.counts is None:
            self.counts = self.flat.whole.changes(self.passes, self.used)
        return self.counts

    def _sums(self, sums: Mapping[str, float]) -> None:
        """The strategy's sums on the wire; JobError for one that it did not declare, which would be lost."""
        tail = self.layout.tail(self.wire)
        if not sums.keys() <= set(self.layout.sums):
            lost = next(name for name in sums if name not in self.layout.sums)
            raise JobError(
                f"strategy: {type(self.strategy).__name__} gave the sum {lost!r}, which its `sums` does not declare"
                f"{nearest(lost, self.layout.sums)}"
            )
        for place, name in enumerate(self.layout.sums):
            tail[2 + place] = sums.get(name, 0.0)

    def personal(self, index: int) -> None:
        """Client `index`'s own model in place of the one that `begin` laid out; nothing is kept of it."""
        client = self.client(index)
        made = max(1, client.round - 1)  # what is scored is the model that this round made
        client.lr = self.local.lr * self.schedule(made, self.rounds)
        self.flat.model.train()
        self.strategy.personal(client, self)

    def _seed(self, seed: int) -> None:
        """What is random inside the model: dropout.  torch.manual_seed does the same in half a millisecond more."""
        torch.default_generator.manual_seed(seed)
        if self.flat.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _random(self) -> list[Tensor]:
        on_gpu = self.flat.device.type == "cuda"
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.flat.device)] if on_gpu else [])]

    def _set_random(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for state in states[1:]:
            torch.cuda.set_rng_state(state, self.flat.device)

    # What a strategy may call while a client learns.

    def train(self, client: Client, correct: Rule | None = None, steps: int | None = None) -> None:
        """The job's local loop from `values`; its steps are added to the client's, the first loop's loss is told."""
        if not client.examples:
            return
        flat, lr = self.flat, client.lr
        if self.passes:  # a second loop counts from where the first did
            self._counted()
            flat.restore()
        direct = self.bare and correct is None
        self.optimizer.restart(lr)
        losses, counts = [], []
        for inputs, targets in self.batches(client, steps):
            loss = self.strategy.loss(self.task, flat.model, inputs, targets, client)
            gradients = flat.gradient(loss)
            self._passed(targets)
            with torch.no_grad():
                if direct:
                    torch._foreach_add_(flat.views, gradients, alpha=-lr)
                else:
                    flat.write(gradients)
                    self._step(client, correct)
            losses.append(loss.detach())
            counts.append(len(targets))
        client.reach = self.optimizer.reach(len(counts))
        client.steps += len(counts)
        if np.isnan(client.loss):
            weights = torch.tensor(counts, dtype=torch.float64)
            client.loss = float(torch.stack(losses).to("cpu", torch.float64) @ weights / weights.sum())

    def batches(self, client: Client, steps: int | None = None) -> Iterator[Batch]:
        """The client's batches of the round from their beginning: whoever asks again sees the same ones."""
        if not client.examples:
            return iter(())
        self.generator.manual_seed(self.key)
        self._seed(self.chance)
        wanted = self.steps(client) if steps is None else steps
        return batches(
            self.x, self.y, self.task, self.local.batch, wanted, self.generator, self.flat.device, self.local.remainder
        )

    def steps(self, client: Client) -> int:
        """Steps that the job lets a client take."""
        local = self.local
        return steps(client.examples, local.batch, local.epochs, local.steps, local.remainder)

    def gradient(self, client: Client, batch: Batch, again: bool = False) -> Tensor:
        """A batch's loss at `values`; its gradient, with the penalties, in `grads`; `again`, as it was before."""
        if again:
            self._set_random(self.random)
        else:
            self.random = self._random()
        with self.flat.aside() if again else nullcontext():
            with torch.enable_grad():
                loss = self.strategy.loss(self.task, self.flat.model, *batch, client)
                gradients = self.flat.gradient(loss)
            if not again:
                self._passed(batch[1])
        with torch.no_grad():
            self.flat.write(gradients)
            self._penalise()
        return loss.detach()

    def _passed(self, targets: Tensor) -> None:
        """After a training pass of the model: what its code laid elsewhere is taken over."""
        self.flat.take_over()
        self.passes += 1
        self.used += len(targets)

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The model's tensors as views of a vector `(size,)`."""
        return self.flat.named(vector)

    def _penalise(self) -> None:
        if self.local.l2:
            self.grads.add_(self.values, alpha=self.local.l2)
        if self.local.l1:
            self.grads.add_(self.values.sign(), alpha=self.local.l1)

    def _step(self, client: Client, correct: Rule | None) -> None:
        """One optimiser step on `grads`: the penalties are part of the objective, the clip comes last."""
        grads, values, local = self.grads, self.values, self.local
        self._penalise()
        if correct is not None:
            correct(grads, values, self.received[self.flat.trained], client)
        if local.clip:
            grads.mul_((local.clip / torch.linalg.vector_norm(grads)).clamp(max=1.0))
        if self.optimizer.plain:
            values.add_(grads, alpha=-client.lr)
        else:
            self.optimizer.step(grads)

    @torch.enable_grad()
    def _gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean gradient `(trained,)` over all examples, at `values`, with the penalties' share; taken in chunks.

        Buffers (BatchNorm's statistics) are left as they were.
        """
        flat, local = self.flat, self.local
        self._seed(self.whole)
        total, seen = torch.zeros_like(flat.grads), torch.zeros((), dtype=torch.float64, device=flat.device)
        with flat.aside():
            for part_x, part_y in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True):
                targets = part_y.to(flat.device)
                outputs = flat.model(self.task.inputs(part_x.to(flat.device)))
                loss = self.task.loss(outputs, targets)
                gradients = flat.gradient(loss)
                with torch.no_grad():
                    seen += loss.double() * len(part_y)
                    flat.write(gradients)
                    total.add_(flat.grads, alpha=len(part_y) / len(y))
        self.seen = float(seen) / max(1, len(y))
        with torch.no_grad():
            total.add_(self.values, alpha=local.l2).add_(self.values.sign(), alpha=local.l1)
        return total[self.home :]

    @torch.no_grad()
    def _objective(self, x: Tensor, y: Tensor) -> float:
        """Mean loss over all examples, at `values`; the model says what it would when it is used."""
        flat, seen = self.flat, torch.zeros((), dtype=torch.float64, device=self.flat.device)
        training = flat.model.training
        flat.model.eval()
        with flat.aside():
            for part_x, part_y in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True):
                outputs = flat.model(self.task.inputs(part_x.to(flat.device)))
                seen += self.task.loss(outputs, part_y.to(flat.device)).double() * len(part_y)
        flat.model.train(training)
        return float(seen) / len(y) if len(y) else float("nan")
