"""One client at a time by recorded steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fedmpi.flow import Batch, Client, Rule
from fedmpi.training.single import Single
from fedmpi.training.traced.program import Program
from fedmpi.training.traced.recording import Recording, Slot, difference, recorded
from fedmpi.training.traced.traces import Traces

MOST = 16  # steps kept, each of another shape of batches
APART = 200  # recorded steps between two comparisons, at least: one costs several eager steps
PIECE = 2**18  # values compared at once
CLOSE = 1e-2  # of a fused step's largest change: how far it may be from an eager one


@dataclass
class Step:
    """A recorded step: a function of inputs, targets and the loss's own gradient, to the loss and gradients.

    A fused one adds the gradients that it does not return to their weights; `views` are the weights of the others.
    """

    function: Callable[..., tuple[Tensor, ...]]
    seed: Tensor  # the loss's own gradient: 1, or minus the learning rate where the step is fused
    views: list[Tensor] = field(default_factory=list)
    compared: bool = False  # with an eager step

    def __call__(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        with torch.inference_mode():
            loss, *gradients = self.function(*batch, self.seed)
        return loss, gradients


class Recorded(Single):
    """Trains one client at a time by steps that are recorded once and then made again, call after call of ATen.

    A recorded step has the bits of an eager one.  Where plain SGD needs no gradient by itself, and `fuses` is True,
    batches of the job's own size take fused steps: the product that is a weight's gradient is added to the weight as
    it is made.  Which batches do follows from the job and their shape alone.

    No recording holds what a model does in Python.  So a step is recorded twice, and one that looks at values or comes
    to other calls the second time is taken as always.  A model that leaves something behind in Python, in whatever
    step, is never recorded: others may look at it.  The first recorded step of a round is compared with an eager one,
    and where they part, this rank's steps are eager from there on.
    """

    def __init__(self, *parts: Any, fuses: bool = True) -> None:
        super().__init__(*parts)
        self.fuses = fuses
        self.records = self.strategy.records
        self.steps_made: dict[tuple[Any, ...], Step | None] = {}
        self.met: set[tuple[Any, ...]] = set()
        self.since, self.compared = 0, 0  # recorded steps since the last comparison, and its round
        self.eager = self.parted = 0
        self.keeps = False  # the model keeps something in Python from step to step
        self.new = False  # a batch is the first of its shape

    def counted(self) -> dict[str, int]:
        """Return this rank's counters since the last call."""
        counted = {"eager": self.eager, "parted": self.parted}
        self.eager = self.parted = 0
        return counted

    def _take(self, client: Client, batch: Batch, correct: Rule | None, direct: bool) -> Tensor:
        full = len(batch[1]) == self.course.local.batch
        step = self._step_of(client, batch, fused=True) if direct and full and self.fuses else None
        if step is None:
            return super()._take(client, batch, correct, direct)
        step.seed.fill_(-client.lr)
        before, eager = None, None
        if self._due(client, step):
            received = self.landing.model[self.flat.trained]  # a client's first step needs no copy
            before = received if torch.equal(self.values, received) else self.values.clone()
            with self.aside():
                eager = super()._pass(client, batch)
        loss, rest = step(batch)
        self._counted(batch)
        with torch.no_grad():
            if rest:
                torch._foreach_add_(step.views, rest)
            if before is not None and eager is not None and not self._close(client, before, eager[1]):
                self.parted, self.fuses = self.parted + 1, False
                self.values.copy_(before)
                torch._foreach_add_(self.flat.views, eager[1], alpha=-client.lr)
                return eager[0]
        return loss

    def _pass(self, client: Client, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        self.new = False
        step = self._step_of(client, batch, fused=False)
        if step is None:
            traces = Traces(self.model) if self.new else None
            taken = super()._pass(client, batch)
            self.keeps |= traces is not None and traces.left() is not None
            return taken
        if not self._due(client, step):
            return step(batch)
        with self.aside():
            loss, gradients = step(batch)
        eager = super()._pass(client, batch)
        if not _equal([loss, *gradients], [eager[0], *eager[1]]):
            self.parted, self.records = self.parted + 1, False
        return eager

    def _counted(self, batch: Batch) -> None:
        """Count a training pass; no code of the module ran that could have laid a tensor elsewhere."""
        self.turn.passes += 1
        self.turn.used += len(batch[1])

    # Making steps.

    def _step_of(self, client: Client, batch: Batch, fused: bool) -> Step | None:
        """Return the recorded step of a batch; None where it is taken as always.

        One that is not fused has the eager one's bits, so it may wait until its shape comes back.
        """
        if self.keeps:
            self.eager += fused
            return None
        if not self.records:
            return None
        shapes = [(part.shape, part.stride(), part.dtype) for part in batch]
        key = (fused, self.model.training, batch[0] is batch[1], *shapes)
        if key not in self.steps_made:
            if not fused and (key not in self.met or len(self.steps_made) >= MOST):
                self.new = key not in self.met
                self.met.add(key)
                return None
            self.steps_made[key] = self._made(client, batch, fused)
        step = None if self.keeps else self.steps_made[key]
        self.eager += step is None and fused
        return step

    def _made(self, client: Client, batch: Batch, fused: bool) -> Step | None:
        """Record the step of a batch twice, and return it; None where it cannot be recorded, or not fused."""
        self.keeps |= self.flat.scratch.moved() is not None
        if self.keeps:
            return None
        with self.aside():
            one = self._recorded(client, batch)
        with self.aside():
            other = self._recorded(client, batch)
        self.keeps |= one.leaves or other.leaves
        if one.reason or other.reason or difference(one, other) or (fused and not one.linear):
            return None
        views = self.flat.views
        program = Program(one, dict(zip(map(Slot, range(len(views))), views, strict=True)))
        rest = program.fuse(views) if fused else list(zip(program.gradients, views, strict=True))
        function = program.compiled(one.inputs, [slot for slot, _ in rest])
        return Step(function, torch.ones_like(one.seed), [view for _, view in rest])

    def _recorded(self, client: Client, batch: Batch) -> Recording:
        strategy, task, model = self.strategy, self.task, self.model
        return recorded(
            lambda: strategy.loss(task, model, *batch, client),
            model,
            self.flat.parameters,
            batch,
            [*self.flat.moving, *client.memory.values(), *client.notes.values()],
        )

    # Comparing them.

    def _due(self, client: Client, step: Step) -> bool:
        """Return whether a recorded step is to be compared: its first, or the first of a round some steps later."""
        self.since += 1
        if step.compared and (client.round == self.compared or self.since <= APART):
            return False
        step.compared, self.compared, self.since = True, client.round, 0
        return True

    def _close(self, client: Client, before: Tensor, gradients: list[Tensor]) -> bool:
        """Return whether a fused step, from `before` `(trained,)`, came to what an eager one comes to."""
        far = moved = 0.0
        for was, now, gradient in zip(self.flat.pieces(before), self.flat.views, gradients, strict=True):
            sides = (torch.split(side.reshape(-1), PIECE) for side in (was, now, gradient))
            for one, other, slope in zip(*sides, strict=True):  # by pieces: no vector is needed for the differences
                far = max(far, _largest((one - other).sub_(slope, alpha=client.lr)))
                moved = max(moved, client.lr * _largest(slope))
        room = CLOSE * moved + 4 * torch.finfo(before.dtype).eps * _largest(before)
        return not far > room  # NaN where training diverged: that is said elsewhere

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the model's buffers, its generators and what it keeps in Python as they were."""
        self.chance.mark()
        traces = Traces(self.model)
        with self.flat.aside():
            yield
        traces.undo()
        self.chance.back()


def _largest(vector: Tensor) -> float:
    """Return the largest magnitude in a vector, without another one for magnitudes."""
    least, most = torch.aminmax(vector)
    return max(-float(least), float(most))


def _equal(some: list[Tensor], others: list[Tensor]) -> bool:
    """Return whether tensors have the same values, NaN among them."""
    return all(
        one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())
        for one, other in zip(some, others, strict=True)
    )
