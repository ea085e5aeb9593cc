"""One client at a time on a rank's model, as a strategy sees the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmpi.flat import FlatModel, zeros
from fedmpi.flow import Batch, Client, Examples, Layout, Rule, State
from fedmpi.job import JobError, nearest
from fedmpi.training.batches import batches
from fedmpi.training.chance import Chance
from fedmpi.training.course import Course
from fedmpi.training.keepsake import Keepsake
from fedmpi.training.landing import Landing
from fedmpi.training.notes import notes_of
from fedmpi.training.whole import whole_gradient, whole_loss


@dataclass
class Turn:
    """The client under way: its examples, and its training so far in numbers."""

    x: Tensor
    y: Tensor
    loss: float = float("nan")  # mean loss where its whole gradient was taken
    passes: int = 0  # training passes of the model
    used: int = 0  # examples in them
    counts: Tensor | None = None  # how far its first loop moved the model's counts and flags


class Single:
    """Trains one client at a time on this rank's model, from the received one in place: a strategy's `Learner`.

    `recall` lays a client's private part in place, `learn` trains it from there and fills its `row` of the wire.
    Losses stay on the device until the client is done, so that no step waits for the host.
    """

    def __init__(
        self,
        course: Course,
        flat: FlatModel,
        layout: Layout,
        state: State,
        examples: Examples,
        landing: Landing,
        keepsake: Keepsake,
    ) -> None:
        self.course, self.flat, self.layout, self.state, self.examples = course, flat, layout, state, examples
        self.task, self.strategy, self.model = course.task, course.strategy, flat.model
        self.values, self.grads = flat.values[flat.trained], flat.grads
        self.private = flat.shared.start - flat.trained.start
        self.landing, self.keepsake = landing, keepsake
        self.chance = Chance(course.seed, flat.device)
        self.optimizer = course.optimizer(self.values, course.local.lr)
        self.row = zeros(layout.width, layout.dtype, flat.device)
        self.notes = notes_of(course.strategy, flat)
        self.turn = Turn(torch.empty(0), torch.empty(0))

    def recall(self, index: int, times: int = 1) -> Client:
        """Return client `index` of the round under way, with its memory and the private part of its model in place."""
        x, y = self.examples.train(index)
        self.turn = turn = Turn(x, y)
        round = self.state.round
        self.chance.turn(round, index)
        known = self.keepsake.recall(index, round - 1)
        for note in self.notes.values():
            note.zero_()
        return Client(
            index=index,
            examples=len(y),
            round=round,
            crossing=self.state.crossing,
            lr=self.course.lr(round),
            trained=self.layout.trained,
            values=self.flat.values[self.flat.shared],
            down=self.landing.down,
            said=self.state.said,
            planes=self.layout.planes(self.row),
            gradient=lambda: self._gradient(turn),  # of this engine, never of the client: a cycle would keep buffers
            objective=lambda: whole_loss(self.flat, self.task, x, y),
            memory=dict(self.keepsake.parts),
            named=self.flat.named,
            times=times,
            fresh=not (known and len(y)),
            notes=dict(self.notes),
        )

    def learn(self, index: int, times: int = 1) -> Client:
        """Train client `index` from the model in place, and return it; its `row` is valid until the next call.

        It trains once, however many `times` it was drawn.  In a crossing before the last it is surveyed.
        """
        client = self.recall(index, times)
        self.model.train()
        if client.crossing + 1 < self.strategy.passes:
            client.planes.zero_()
            sums = self.strategy.survey(client)
        else:
            sums = self._learn(client)
            client.loss = self.turn.loss if np.isnan(client.loss) else client.loss
            self.keepsake.take(client.memory)
        self.row_sums(self.row, sums)
        return client

    def _learn(self, client: Client) -> Mapping[str, float]:
        """Let the strategy train the client and write its planes; return its sums."""
        strategy, flat = self.strategy, self.flat
        strategy.prepare(client)
        if client.examples:
            strategy.learn(client, self)
        flat.check()
        for here in flat.passing:  # no part of the model: it does not travel
            flat.values[here].copy_(self.landing.model[here])
        with torch.no_grad():
            if strategy.fills:
                client.planes.zero_()
            return strategy.result(client)

    def counts(self) -> Tensor:
        """Return how far this client's first loop moved the model's counts and flags."""
        turn = self.turn
        if turn.counts is None:
            turn.counts = self.flat.whole.changes(turn.passes, turn.used)
        return turn.counts

    def row_sums(self, row: Tensor, sums: Mapping[str, float]) -> None:
        """Write the strategy's sums on a row of the wire; JobError for an undeclared one, which would be lost."""
        layout, names = self.layout, self.layout.sums
        tail = layout.tail(row).zero_()
        if not sums.keys() <= set(names):
            lost = next(name for name in sums if name not in names)
            raise JobError(
                f"strategy: {type(self.strategy).__name__} gave the sum {lost!r}, which its `sums` does not declare"
                f"{nearest(lost, names)}"
            )
        for place, name in enumerate(names, len(layout.scalars) - len(names) - len(layout.notes)):
            tail[place] = sums.get(name, 0.0)

    # What a strategy may call while a client learns: the Learner of `fedmpi.flow`.

    def train(self, client: Client, correct: Rule | None = None, steps: int | None = None) -> None:
        """Take the job's local loop from `values`; its steps are added to the client's, the first loop's loss is its.

        Plain SGD without a rule or penalty needs no gradient written: it is added to the values as it comes.
        """
        if not client.examples:
            return
        flat, local = self.flat, self.course.local
        if self.turn.passes:  # a second loop counts from where the first did
            self.counts()
            flat.restore()
        direct = correct is None and self.optimizer.plain and not (local.l1 or local.l2 or local.clip)
        self.optimizer.restart(client.lr)
        losses, sizes = [], []
        for inputs, targets in self.batches(client, steps):
            losses.append(self._take(client, (inputs, targets), correct, direct))
            sizes.append(len(targets))
        client.reach = self.optimizer.reach(len(sizes))
        client.steps += len(sizes)
        if np.isnan(client.loss):
            weights = torch.tensor(sizes, dtype=torch.float64)
            client.loss = float(torch.stack(losses).to("cpu", torch.float64) @ weights / weights.sum())

    def batches(self, client: Client, steps: int | None = None) -> Iterator[Batch]:
        """Yield the client's batches of the round from their beginning, the same ones each time."""
        if not client.examples:
            return iter(())
        local, wanted = self.course.local, self.steps(client) if steps is None else steps
        x, y, order = self.turn.x, self.turn.y, self.chance.order()
        return batches(x, y, self.task, local.batch, wanted, order, self.flat.device, local.remainder)

    def steps(self, client: Client) -> int:
        """Return the job's number of steps for a client."""
        return self.course.steps(client.examples)

    def gradient(self, client: Client, batch: Batch, again: bool = False) -> Tensor:
        """Return a batch's loss at `values`; its gradient, with the penalties, is in `grads`; `again`: as before."""
        if again:
            self.chance.back()
        else:
            self.chance.mark()
        with self.flat.aside() if again else nullcontext():
            loss, gradients = self._pass(client, batch)
            if not again:
                self._passed(batch[1])
        with torch.no_grad():
            self.flat.write(gradients)
            self._penalise(self.grads)
        return loss

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the model's tensors as views of a vector `(size,)`."""
        return self.flat.named(vector)

    def differentiate(self, loss: Tensor) -> list[Tensor]:
        """Return the gradients of the trained tensors, in their order."""
        return self.flat.gradient(loss)

    def _gradient(self, turn: Turn) -> Tensor:
        """Return the mean gradient `(trained,)` over all of a client's examples, with the penalties' share."""
        self.chance.whole()
        total, turn.loss = whole_gradient(self.flat, self.task, turn.x, turn.y, self.differentiate)
        local = self.course.local
        with torch.no_grad():
            total.add_(self.values, alpha=local.l2).add_(self.values.sign(), alpha=local.l1)
        return total[self.private :]

    def _take(self, client: Client, batch: Batch, correct: Rule | None, direct: bool) -> Tensor:
        """Take one step on a batch and return its loss; a `direct` one needs no gradient written."""
        loss, gradients = self._pass(client, batch)
        self._passed(batch[1])
        with torch.no_grad():
            if direct:
                torch._foreach_add_(self.flat.views, gradients, alpha=-client.lr)
            else:
                self.flat.write(gradients)
                self._step(client, correct)
        return loss

    def _pass(self, client: Client, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return a batch's loss and the gradients of the trained tensors, at `values`."""
        with torch.enable_grad():
            loss = self.strategy.loss(self.task, self.model, *batch, client)
            return loss.detach(), self.differentiate(loss)

    def _passed(self, targets: Tensor) -> None:
        """Count a training pass of the model, and take over tensors that its code laid elsewhere."""
        self.flat.take_over()
        self.turn.passes += 1
        self.turn.used += len(targets)

    def _penalise(self, grads: Tensor) -> None:
        local = self.course.local
        if local.l2:
            grads.add_(self.values, alpha=local.l2)
        if local.l1:
            grads.add_(self.values.sign(), alpha=local.l1)

    def _step(self, client: Client, correct: Rule | None) -> None:
        """Take one optimiser step on `grads`: the penalties are part of the objective, the clip comes last."""
        grads, values, clip = self.grads, self.values, self.course.local.clip
        self._penalise(grads)
        if correct is not None:
            correct(grads, values, self.landing.model[self.flat.trained], client)
        if clip:
            grads.mul_((clip / client.norm(grads)).clamp(max=1.0))
        if self.optimizer.plain:
            values.add_(grads, alpha=-client.lr)
        else:
            self.optimizer.step(grads)
