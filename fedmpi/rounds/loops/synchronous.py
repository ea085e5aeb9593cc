"""Synchronous rounds: one Bcast, local training, one weighted Reduce, the server's step."""

from __future__ import annotations

import torch

from fedmpi.flow import Unfit
from fedmpi.plan.plan import Loop
from fedmpi.rounds.crossing import crossings
from fedmpi.rounds.parts import Parts


class Synchronous(Loop):
    """One broadcast, local training, one weighted reduction, the server's step."""

    def run(self, parts: Parts) -> None:
        """Take a rank through every round; with a strategy of two passes it is two crossings, by the same cohort."""
        path, state, strategy = parts.path, parts.state, parts.plan.strategy
        for crossing in crossings(parts, path.names):
            path.begin()
            crossing.score()
            for place, learned in crossing.train():
                unfit = None
                try:
                    path.add(learned.wire, crossing.of(place, learned))
                except Unfit as reason:
                    unfit = reason
                crossing.enter(place, learned, unfit)
            outcome = path.collect(crossing.passage, crossing.arrive(path.counters()))
            crossing.watch.mark("reduced")
            if outcome is None:  # home takes the step
                continue
            mean, sums = outcome
            if not torch.isfinite(mean.sum()):
                crossing.scribe.broken = (
                    f"round {state.round}: the mean update is not finite; a smaller local.lr may help"
                )
            if crossing.ends():
                continue
            if sums["clients"] > 0:  # a round to which nobody came changes nothing
                strategy.step(state, mean, sums)
                crossing.count()
            crossing.close(sums, path.bytes, stages=path.ledgers())
