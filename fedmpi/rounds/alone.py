"""A learner by itself, without server or sum: each round goes on from the end of the one before."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmpi import hear
from fedmpi.flow import Comm, Examples, Learned, Passage
from fedmpi.plan import Plan
from fedmpi.rounds.build import replica
from fedmpi.rounds.first import alike
from fedmpi.tell import Interrupted


class Alone:
    """Trains one client at a time as a plan says, on the clients' own examples or on `examples`.  Collective to make.

    Every rank begins with home's first model.
    """

    def __init__(self, plan: Plan, comm: Comm, examples: Examples | None = None) -> None:
        self.shards, evaluation = plan.shards, plan.job.evaluation
        # One client at a time, whose model is then in the place of the rank's.
        self.replica = replica(plan, comm, examples=examples, engine=partial(plan.engine, cohort=1))
        flat = self.replica.flat
        alike(comm, flat)
        self.replica.engine.start()
        self.model = flat.model
        self.first, self.counts = flat.values.clone(), flat.whole.received.numpy().copy()
        self.scorer = plan.scorer(flat.device)
        self.scored = bool(evaluation.clients and self.shards.heldout_examples)
        self.anew()

    def anew(self) -> None:
        """Go back to the first model."""
        self.replica.state.received.copy_(self.first)
        self.replica.state.counts[:] = self.counts

    def learn(self, client: int, round: int) -> Learned:
        """Train a client for a round.  Raises Interrupted where this rank was asked to stop."""
        if hear.asked():
            raise Interrupted("stopped before its end: a baseline keeps nothing halfway, it is begun anew")
        state, engine = self.replica.state, self.replica.engine
        engine.receive()
        state.round = round
        one = np.array([client])
        passage = Passage(round, self.replica.layout, one, self.shards.sizes(one), np.ones(1, np.int64))
        [learned] = engine.train(np.zeros(1, np.int64), passage)
        learned.save(self.replica.memory, passage)
        state.received.copy_(self.replica.flat.values)
        state.counts += learned.counts[0].numpy()
        return learned

    def scores(self, client: int) -> NDArray[np.float64]:
        """Return the model's scores `(names,)` on a client's held-out examples."""
        return self.scorer.client(self.model, *self.shards.heldout(client))

    def central(self) -> dict[str, Any]:
        """Return the model's scores on all held-out examples."""
        return self.scorer.central(self.model, *self.shards.test())
