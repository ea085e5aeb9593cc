"""The sequential engine: one resident flat model, clients one after another, no allocation per client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from fedmpi.flat import FlatModel
from fedmpi.flow import Client, Examples, Layout, Learned, Memory, Passage, Places, State
from fedmpi.training.course import Course
from fedmpi.training.keepsake import Keepsake
from fedmpi.training.landing import Landing
from fedmpi.training.single import Single


class Sequential:
    """Trains one client after another on this rank's model.

    `keeps` is what the stages keep of each client, by name and kind; `learner` makes the learner of one client.
    """

    def __init__(
        self,
        course: Course,
        flat: FlatModel,
        layout: Layout,
        state: State,
        examples: Examples,
        memory: Memory | None = None,
        staged: bool = False,
        keeps: Mapping[str, str] | None = None,
        learner: Callable[..., Single] = Single,
    ) -> None:
        self.course, self.state = course, state
        self.landing = Landing(flat, state, staged)
        self.keepsake = Keepsake(course.strategy, flat, memory, keeps or {}, layout.up)
        self.single = learner(course, flat, layout, state, examples, self.landing, self.keepsake)

    def start(self) -> None:
        """Take the model as it is now as every client's first, before the first round."""
        self.landing.start()
        self.keepsake.start()

    def receive(self) -> None:
        """Fetch the last broadcast to this rank's device, for all its clients of the round."""
        self.landing.receive()

    def begin(self) -> None:
        """Lay the received model in place, as every client starts from it."""
        self.landing.lay()

    def train(self, places: Places, passage: Passage) -> Iterator[Learned]:
        """Train the clients at `places` of the cohort, each from the received model; yield one update after another."""
        single, keepsake = self.single, self.keepsake
        single.chance.expect(passage.round, passage.clients[places])
        for place in places:
            self.begin()
            client = single.learn(int(passage.clients[place]), int(passage.times[place]))
            last = client.crossing + 1 == self.course.strategy.passes
            keeps = last and len(keepsake.vector) > 0 and (client.examples > 0 or keepsake.staged)
            yield Learned(
                np.array([place]),
                single.row[None],
                np.array([client.examples]),
                np.array([client.steps]),
                np.array([client.loss]),
                single.counts()[None],
                {name: part[None] for name, part in keepsake.staged.items()},
                keepsake.vector[None] if keeps else None,
            )

    def objective(self, client: int) -> float:
        """Return a client's mean loss over all its examples, at the received model."""
        self.begin()
        return self.recall(client).objective()

    def recall(self, client: int) -> Client:
        """Return a client, with its memory and the private part of its model in place."""
        return self.single.recall(client)

    def personal(self, client: int) -> None:
        """Put a client's own model in place; nothing is kept of it."""
        one, single = self.recall(client), self.single
        one.lr = self.course.lr(max(1, one.round - 1))  # the round that made the model
        single.model.train()
        self.course.strategy.personal(one, single)
