"""Synchronous rounds: one Bcast, local training, one weighted Reduce, the server's step."""

from __future__ import annotations

import torch

from fedmpi.plan.plan import Loop
from fedmpi.rounds.crossing import crossings
from fedmpi.rounds.parts import Parts


class Synchronous(Loop):
    """One broadcast, local training, one weighted reduction, the server's step."""

    def run(self, parts: Parts) -> None:
        """Take a rank through every round; with a strategy of two passes it is two crossings, by the same cohort."""
        path, state, strategy = parts.path, parts.state, parts.plan.strategy
        for crossing in crossings(parts):
            path.begin(crossing.passage)
            crossing.score()
            for learned in crossing.train():
                crossing.enter(learned, path.add(learned.rows, crossing.of(learned)))
            outcome = path.collect(crossing.passage, crossing.arrive())
            crossing.commit()
            if outcome is None:  # home takes the step
                continue
            mean, sums = outcome
            if not torch.isfinite(mean.sum()):
                crossing.scribe.broken = (
                    f"round {state.round}: the mean update is not finite; a smaller local.lr may help"
                )
            if crossing.ends():
                continue
            if strategy.moves(sums):
                strategy.step(state, mean, sums)
                crossing.count()
            crossing.close(sums, path.bytes)
