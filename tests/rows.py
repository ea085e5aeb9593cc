"""An engine of several clients at once, as rows of one vmapped gradient: what a strategy that is `batched` promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from fedmpi.flow import Batch, Client, Learned, Passage, Places, Rule
from fedmpi.training import Sequential
from fedmpi.training.batches import batches
from fedmpi.training.chance import Chance
from fedmpi.training.notes import notes_of


class Loss(nn.Module):
    """A strategy's loss as a module that holds the model, so that its tensors can be given from outside."""

    def __init__(self, engine: Rows) -> None:
        super().__init__()
        self.model, self.task, self.strategy = engine.single.model, engine.single.task, engine.single.strategy

    def forward(self, inputs: Tensor, y: Tensor, client: Client) -> Tensor:
        return self.strategy.loss(self.task, self.model, inputs, y, client)


class Rows(Sequential):
    """Clients of one size learn together where the strategy lets them; a model without buffers, no dropout."""

    together = 0  # the clients that did

    def train(self, places: Places, passage: Passage) -> Iterator[Learned]:
        strategy, state = self.course.strategy, self.state
        if state.crossing + 1 < strategy.passes or not strategy.batched:
            yield from super().train(places, passage)
            return
        many = Many(self, places, passage)
        strategy_s = many.client
        for row in many.rows:
            strategy.prepare(row)
        strategy.learn(strategy_s, many)
        steps, reach, loss = (np.broadcast_to(part, len(places)) for part in
                              (strategy_s.steps, strategy_s.reach, strategy_s.loss))  # fmt: skip
        tail = self.single.layout.tail(many.wire)
        with torch.no_grad():
            if strategy.fills:
                strategy_s.planes.zero_()
            for place, row in enumerate(many.rows):
                row.steps, row.reach, row.loss = int(steps[place]), float(reach[place]), float(loss[place])
                for name, value in strategy.result(row).items():
                    self.single.layout.scalar(many.wire[place], name).fill_(value)
        assert tail.isfinite().all()
        many.keep()
        Rows.together += len(places)
        losses = [many.losses[place] if np.isnan(loss[place]) else loss[place] for place in range(len(places))]
        counts = torch.zeros(len(places), 0, dtype=torch.int64)
        sizes = np.array([row.examples for row in many.rows])
        yield Learned(places, many.wire, sizes, steps, np.array(losses), counts, {}, many.keepsakes)


@dataclass
class Many:
    """The learner of K clients: the strategy sees it as it sees that of one."""

    engine: Rows
    places: Places
    passage: Passage
    losses: dict[int, float] = field(default_factory=dict)  # of those whose whole gradient was taken

    def __post_init__(self) -> None:
        engine, single = self.engine, self.engine.single
        flat, layout, count = single.flat, single.layout, len(self.places)
        self.model, self.task, self.private = single.model, single.task, single.private
        self.full = engine.landing.model.repeat(count, 1)  # (K, values)
        self.values, self.grads = self.full[:, flat.trained], torch.zeros(count, len(flat.grads), dtype=flat.dtype)
        self.wire = torch.zeros(count, layout.width, dtype=layout.dtype)
        self.keepsakes = torch.zeros(count, len(engine.keepsake.vector), dtype=flat.dtype)
        memory, at = {}, 0 if engine.keepsake.private is None else len(engine.keepsake.private)
        for name, part in engine.keepsake.parts.items():
            memory[name] = self.keepsakes[:, at : at + len(part)]
            at += len(part)
        notes = notes_of(single.strategy, flat, (count,))
        self.rows, self.columns, self.chances = [], [], []
        for row, client in enumerate(self.passage.clients[self.places].tolist()):
            engine.begin()
            one = engine.recall(client)
            self.keepsakes[row] = engine.keepsake.vector
            self.full[row] = flat.values
            self.columns.append(single.examples.train(client))
            self.chances.append(Chance(engine.course.seed, flat.device))
            self.chances[row].turn(self.passage.round, client)
            self.rows.append(
                replace(
                    one,
                    times=int(self.passage.times[self.places[row]]),
                    values=self.full[row, flat.shared],
                    planes=layout.planes(self.wire[row]),
                    memory={name: part[row] for name, part in memory.items()},
                    notes={name: part[row] for name, part in notes.items()},
                    gradient=lambda row=row: self.whole(row),
                    objective=lambda row=row: self.objective(row),
                )
            )
        self.client = replace(
            self.rows[0],
            **{name: np.array([getattr(row, name) for row in self.rows])
               for name in ("index", "examples", "times", "fresh", "steps", "reach", "loss")},
            values=self.full[:, flat.shared], planes=layout.planes(self.wire), memory=memory, notes=notes,
        )  # fmt: skip
        self.loss = Loss(engine)

    def keep(self) -> None:
        """Lay the private part of each model at the head of what its client keeps."""
        private = self.engine.keepsake.private
        if private is not None:
            self.keepsakes[:, : len(private)] = self.full[:, : len(private)]

    def _laid(self, row: int) -> Any:
        """Lay a client's model in the place of the rank's, and return the learner of one client, as it then stands."""
        single, index = self.engine.single, self.rows[row].index
        single.recall(index)
        single.flat.values.copy_(self.full[row])
        return single

    def whole(self, row: int) -> Tensor:
        single = self._laid(row)
        gradient: Tensor = single._gradient(single.turn)
        self.losses[row] = single.turn.loss
        return gradient

    def objective(self, row: int) -> float:
        from fedmpi.training.whole import whole_loss

        single = self._laid(row)
        return whole_loss(single.flat, single.task, *self.columns[row])

    # What a strategy may call.

    def train(self, client: Client, correct: Rule | None = None, steps: int | None = None) -> None:
        local, lr = self.engine.course.local, client.lr
        optimizer = self.engine.course.optimizer(self.values, lr)
        optimizer.restart(lr)
        losses, sizes = [], []
        received = self.engine.landing.model[self.engine.single.flat.trained]
        for batch in self.batches(client, steps):
            losses.append(self._grad(client, batch))
            self._penalise()
            with torch.no_grad():
                if correct is not None:
                    correct(self.grads, self.values, received, client)
                if local.clip:
                    self.grads.mul_((local.clip / client.norm(self.grads)).clamp(max=1.0)[:, None])
                if optimizer.plain:
                    self.values.sub_(self.grads, alpha=lr)
                else:
                    optimizer.step(self.grads)
            sizes.append(batch[1].shape[1])
        client.reach = optimizer.reach(len(sizes))
        client.steps = client.steps + len(sizes)
        if np.isnan(client.loss).all():
            client.loss = (torch.stack(losses).double().T @ torch.tensor(sizes).double() / sum(sizes)).numpy()

    def batches(self, client: Client, steps: int | None = None) -> Iterator[Batch]:
        local, wanted = self.engine.course.local, self.steps(client) if steps is None else steps
        streams = [
            batches(x, y, self.task, local.batch, wanted, chance.order(), x.device, local.remainder)
            for (x, y), chance in zip(self.columns, self.chances, strict=True)
        ]
        for parts in zip(*streams, strict=True):
            yield torch.stack([inputs for inputs, _ in parts]), torch.stack([y for _, y in parts])

    def steps(self, client: Client) -> int:
        [steps] = {self.engine.course.steps(int(row.examples)) for row in self.rows}
        return steps

    def gradient(self, client: Client, batch: Batch, again: bool = False) -> Tensor:
        loss = self._grad(client, batch)
        self._penalise()
        return loss

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        return self.engine.single.named(vector)

    def _penalise(self) -> None:
        local = self.engine.course.local
        with torch.no_grad():
            self.grads.add_(self.values, alpha=local.l2).add_(self.values.sign(), alpha=local.l1)

    def _grad(self, client: Client, batch: Batch) -> Tensor:
        """Lay the gradients of a batch `(K, N, ...)` into `grads`; return the losses `(K,)`."""
        flat = self.engine.single.flat
        shapes = {name: tensor.shape for name, tensor in flat.tensors().items() if name in flat.slices}

        def loss(trained: Tensor, inputs: Tensor, y: Tensor, memory: Any, notes: Any) -> Tensor:
            tensors = {f"model.{name}": trained[flat.slices[name]].view(shape) for name, shape in shapes.items()}
            one = replace(client, memory=memory, notes=notes, values=trained[flat.shared])
            value: Tensor = functional_call(self.loss, tensors, (inputs, y, one))
            return value

        self.model.train()
        gradients, losses = vmap(grad_and_value(loss))(self.values.detach(), *batch, client.memory, client.notes)
        self.grads.copy_(gradients)
        return losses.detach()
