"""K clients that learn at once, as a strategy sees the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fedmpi.flow import Batch, Client, Learner, Passage, Rule
from fedmpi.training.batched.rows import Parted, Rows
from fedmpi.training.batched.stream import Batches, order, stream
from fedmpi.training.chance import Chance
from fedmpi.training.notes import notes_of
from fedmpi.training.traced.single import APART, CLOSE, Recorded

LISTS = ("index", "examples", "times", "fresh", "steps", "reach", "loss")  # numbers of one client, arrays of several


class Many:
    """The learner of K clients: vectors are `(K, ...)`, and one recorded step moves all of them.

    Its memory is laid out once and used for group after group.  `single` is the learner of one client: for what a
    strategy does client by client, and for all that is asked of the whole of a client's examples.
    """

    def __init__(self, single: Recorded, count: int) -> None:
        flat, layout, kept = single.flat, single.layout, len(single.keepsake.vector)
        self.single, self.count = single, count
        self.model, self.task, self.private = single.model, single.task, single.private
        self.full = torch.zeros(count, len(flat.values), dtype=flat.dtype, device=flat.device)
        self.values = self.full[:, flat.trained]
        self.wire = torch.zeros(count, layout.width, dtype=layout.dtype, device=flat.device)
        self.keepsakes = torch.zeros(count, kept, dtype=flat.dtype, device=flat.device)
        self.memory, self.staged = single.keepsake.cut(self.keepsakes)
        self.notes = notes_of(single.strategy, flat, (count,))
        self.steps_of = Rows(flat, single.task, self.full)
        self.chances = [Chance(single.course.seed, flat.device) for _ in range(count)]
        self.columns = [(self.full, self.full)] * count  # each client's examples
        self._grads: Tensor | None = None
        self.since = self.compared = self.turn = 0  # recorded steps since the last comparison, its round, their number

    @property
    def grads(self) -> Tensor:
        """The last gradients `(K, trained)`, made when they are first asked for."""
        if self._grads is None:
            self._grads = torch.zeros(self.values.shape, dtype=self.values.dtype, device=self.values.device)
            start = self.single.flat.trained.start
            self.grad_views = [
                self._grads[:, here.start - start : here.stop - start].view(view.shape)
                for name, view in zip(self.steps_of.names, self.steps_of.views, strict=True)
                for here in [self.single.flat.slices[name]]
            ]
        return self._grads

    def learn(self, passage: Passage, places: Sequence[int]) -> list[Client]:
        """Train the clients at these places of a cohort, at most K; return them.  The first rows are theirs.

        The rows of those that are missing repeat the last one, and come to nothing.
        """
        single, strategy = self.single, self.single.strategy
        all_places = [*places, *[places[-1]] * (self.count - len(places))]
        clients, times = passage.clients[all_places].tolist(), passage.times[all_places].tolist()
        rows = [
            self._row(row, int(index), int(often))
            for row, (index, often) in enumerate(zip(clients, times, strict=True))
        ]
        arrays: dict[str, Any] = {name: np.array([getattr(row, name) for row in rows]) for name in LISTS}
        planes = single.layout.planes(self.wire)
        self.losses = np.full(self.count, np.nan)
        client = replace(
            rows[0],
            **arrays,
            values=self.full[:, single.flat.shared],
            planes=planes,
            memory=dict(self.memory),
            notes=dict(self.notes),
        )
        for row in rows:
            strategy.prepare(row)
        single.model.train()
        strategy.learn(client, cast(Learner, self))
        for name, part in self.memory.items():
            if client.memory[name] is not part:
                part.copy_(client.memory[name])
        self._numbers(client, rows)
        with torch.no_grad():
            if strategy.fills:
                planes.zero_()
            for row, place in zip(rows, range(len(places)), strict=False):
                single.row_sums(self.wire[place], strategy.result(row))
        private = single.keepsake.private
        if private is not None:
            self.keepsakes[:, : len(private)] = self.full[:, : len(private)]
        return rows[: len(places)]

    def _row(self, row: int, index: int, times: int) -> Client:
        """Return a client with its row in place: the received model, its memory, notes of zeros."""
        single, flat = self.single, self.single.flat
        one = single.recall(index, times)
        self.columns[row] = single.turn.x, single.turn.y
        self.keepsakes[row].copy_(single.keepsake.vector)
        private = single.keepsake.private
        self.full[row].copy_(single.landing.model)
        if private is not None:
            self.full[row, : len(private)].copy_(private)
        for part in self.notes.values():
            part[row].zero_()
        self.chances[row].share(single.chance)
        self.chances[row].turn(one.round, index)
        return replace(
            one,
            values=self.full[row, flat.shared],
            planes=single.layout.planes(self.wire[row]),
            memory={name: part[row] for name, part in self.memory.items()},
            notes={name: part[row] for name, part in self.notes.items()},
            gradient=lambda: self._whole(row, index),
            objective=lambda: self._laid(row, index).objective(),
        )

    def _laid(self, row: int, index: int) -> Client:
        """Return a client with its model in the place of the rank's."""
        one = self.single.recall(index)
        self.single.flat.values.copy_(self.full[row])
        return one

    def _whole(self, row: int, index: int) -> Tensor:
        gradient = self._laid(row, index).gradient()
        self.losses[row] = self.single.turn.loss
        return gradient

    def _numbers(self, client: Client, rows: Sequence[Client]) -> None:
        """Give each client its own of the numbers that its strategy left."""
        steps, reach, loss = (np.broadcast_to(part, self.count) for part in (client.steps, client.reach, client.loss))
        for place, row in enumerate(rows):
            row.steps, row.reach, row.loss = int(steps[place]), float(reach[place]), float(loss[place])
            if np.isnan(row.loss):
                row.loss = float(self.losses[place])

    # What a strategy may call.

    def train(self, client: Client, correct: Rule | None = None, steps: int | None = None) -> None:
        """Take the job's local loop, each client its own number of steps; those that are through stay as they are."""
        single, local, lr = self.single, self.single.course.local, client.lr
        optimizer = single.course.optimizer(self.values, lr)
        direct = correct is None and optimizer.plain and not (local.l1 or local.l2 or local.clip)
        received = single.landing.model[single.flat.trained]
        losses, counts = [], []
        for batches in self._stream(client, steps):
            if direct:
                rows = self._due(client.round) if lr else []
                before = self.full[rows] if rows else None
                losses.append(self.steps_of.direct(batches, lr))
                if before is not None:
                    change = self.values[rows].sub_(before[:, single.flat.trained]).mul_(-1 / lr)
                    self._compare(rows, before, batches, change, lr)
            else:
                losses.append(self._gradient(batches, client))
                with torch.no_grad():
                    self._step(client, correct, received, optimizer, batches)
            counts.append(batches.counts)
        taken = np.stack(counts)
        each = (taken > 0).sum(0)
        client.steps = client.steps + each
        client.reach = np.array([optimizer.reach(int(number)) for number in each])
        if np.isnan(client.loss).all():
            found = torch.stack(losses).to("cpu", torch.float64).numpy()
            client.loss = np.where(taken > 0, found * taken, 0.0).sum(0) / taken.sum(0)

    def batches(self, client: Client, steps: int | None = None) -> Iterator[Batch]:
        """Yield the clients' batches; all of them have as many steps, of as many examples."""
        for batches in self._stream(client, steps):
            size = int(batches.counts[0])
            yield batches.inputs[:, :size].contiguous(), batches.targets[:, :size].contiguous()

    def steps(self, client: Client) -> int:
        """Return the job's number of steps for each of the clients."""
        return self.single.course.steps(int(client.examples[0]))

    def gradient(self, client: Client, batch: Batch, again: bool = False) -> Tensor:
        """Return the losses `(K,)` of a batch; the gradients, with the job's penalties, are in `grads`."""
        size = batch[1].shape[1]
        weights = torch.full((self.count, size), 1 / size, dtype=self.values.dtype, device=self.values.device)
        batches = Batches(batch[0], batch[1], weights, weights.new_ones(self.count), np.full(self.count, size))
        loss = self._gradient(batches, client)
        with torch.no_grad():
            self._penalise()
        return loss

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        return self.single.named(vector)

    def _stream(self, client: Client, steps: int | None) -> Iterator[Batches]:
        course, local = self.single.course, self.single.course.local
        orders = []
        for examples, chance in zip(client.examples.tolist(), self.chances, strict=True):
            wanted = course.steps(examples) if steps is None else steps
            orders.append(order(examples, local.batch, wanted, local.remainder, chance.order()))
        return stream(self.columns, orders, self.task, local.batch, self.values.device, self.values.dtype)

    def _gradient(self, batches: Batches, client: Client) -> Tensor:
        """Lay the gradients of a step into `grads`, and return the losses `(K,)`."""
        losses, gradients = self.steps_of.gradients(batches)
        assert self.grads is not None
        with torch.no_grad():
            torch._foreach_copy_(self.grad_views, gradients)
        if rows := self._due(client.round):
            self._compare(rows, self.full[rows], batches, self.grads[rows], client.lr)
        return losses

    def _due(self, round: int) -> list[int]:
        """Return the rows to compare with eager steps: all in the first, then one in a round's first, some steps on."""
        self.since += 1
        if self.compared and (round == self.compared or self.since <= APART):
            return []
        rows = [self.turn % self.count] if self.compared else list(range(self.count))
        self.compared, self.since, self.turn = round, 0, self.turn + 1
        return rows

    def _compare(self, rows: list[int], models: Tensor, batches: Batches, found: Tensor, lr: float) -> None:
        """Compare gradients `(rows, trained)` with eager ones at `models` `(rows, values)`; Parted where they differ.

        No recording holds what a model does in Python: where that changes from step to step, the rows go astray.  In
        the rank's own model nobody is at home meanwhile.
        """
        single, flat = self.single, self.single.flat
        for place, row in enumerate(rows):
            count = int(batches.counts[row])
            if not count:
                continue
            flat.values.copy_(models[place])
            batch = batches.inputs[row, :count], batches.targets[row, :count]
            with single.aside(), torch.enable_grad():
                gradients = single.differentiate(single.task.loss(single.model(batch[0]), batch[1]))
            flat.write(gradients)
            largest = float(flat.grads.abs().max())
            rounding = torch.finfo(flat.dtype).eps * float(models[place].abs().max()) / lr if lr else 0.0
            room = CLOSE * largest + 8 * rounding
            if float((flat.grads - found[place]).abs().max()) > room:  # NaN where training diverged
                raise Parted("its recorded steps part from eager ones")

    def _penalise(self) -> None:
        local = self.single.course.local
        if local.l2:
            self.grads.add_(self.values, alpha=local.l2)
        if local.l1:
            self.grads.add_(self.values.sign(), alpha=local.l1)

    def _step(self, client: Client, correct: Rule | None, received: Tensor, optimizer: Any, batches: Batches) -> None:
        """Take one step along `grads`, as the learner of one client does."""
        grads, clip = self.grads, self.single.course.local.clip
        self._penalise()
        if correct is not None:
            correct(grads, self.values, received, client)
        if clip:
            grads.mul_((clip / client.norm(grads)).clamp(max=1.0)[:, None])
        through = batches.counts == 0
        if through.any():
            grads[torch.from_numpy(through).to(grads.device)] = 0.0
        if optimizer.plain:
            self.values.sub_(grads, alpha=client.lr)
        else:
            optimizer.step(grads)
