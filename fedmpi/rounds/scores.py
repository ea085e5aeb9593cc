"""Scores of the received model: home's on all held-out examples, and each client's on its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedmpi.cohort.seating import Seating
from fedmpi.evaluation import Scorer, ready
from fedmpi.flow import Comm, Engine
from fedmpi.plan import Plan
from fedmpi.records.profile import Profile
from fedmpi.rounds.beside import Beside


@dataclass(frozen=True)
class Central:
    """Home's scores on test examples, and the seconds that they took."""

    scores: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


NONE = Central()
BLOCK = 8192  # clients scored between two reductions at the close


class Scores:
    """The scores of `model`, the run's product, and of clients' own models where the strategy has some.

    `kinds` are the kinds of model scored on clients' examples: the common one ("clients"), their own ("personal"), or
    both.  `columns` are the names in a client's row of scores: every score, of each kind of model.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        model: nn.Module,
        travelling: nn.Module,
        scorer: Scorer,
        beside: bool = False,
        profile: Profile | None = None,
    ) -> None:
        self.beside, self.profile = Beside(beside), profile
        self.imported: Callable[[], object] = lambda: None
        self.plan, self.engine, self.model, self.travelling, self.scorer = plan, engine, model, travelling, scorer
        strategy, shards = plan.strategy, plan.shards
        self.common = strategy.common or plan.loop.votes
        self.kinds = (("clients",) if self.common else ()) + (("personal",) if strategy.personalises else ())
        held = plan.job.evaluation.clients and shards.heldout_examples and not plan.stages.hides
        self.names = tuple(scorer.names) if held else ()  # of clients' scores
        self.columns = tuple(f"{kind}.{name}" for kind in self.kinds for name in self.names)

    def ready(self) -> None:
        """Import the modules for scores on test examples, beside the first rounds where home waits."""
        if self.plan.shards.test_examples and self.common:
            self.imported = self.beside.start(partial(ready, self.plan.task, self.plan.metrics))

    def due(self, round: int) -> bool:
        """Return whether the model received in a round is to be scored: not the first, but then `every` so often."""
        finished, every = round - 1, self.plan.job.evaluation.every
        return finished > 0 and every > 0 and finished % every == 0

    def central(self) -> Callable[[], Central]:
        """Begin to score the received model on all test examples; return what waits for home's scores.

        Home's model stays in place until then.  There are none where the received model is none to use.
        """
        if "clients" not in self.kinds:
            return lambda: NONE
        self.engine.begin()
        return self.beside.start(self._central)

    def _central(self) -> Central:
        self.imported()
        began = time.perf_counter()
        scores = self.scorer.central(self.model, *self.plan.shards.test())
        ended = time.perf_counter()
        if self.profile is not None and scores:
            self.profile.span("scores", "score", began, ended)
        return Central(scores, ended - began)

    def client(self, index: int) -> NDArray[np.float64]:
        """Return a client's row of scores `(columns,)`; the received model is in place before and after."""
        x, y = self.plan.shards.heldout(index)
        rows = []
        for kind in self.kinds:
            if kind == "personal" and len(y):
                self.engine.personal(index)
            rows.append(self.scorer.client(self.model if kind == "clients" else self.travelling, x, y))
        if self.kinds[-1:] == ("personal",):
            self.engine.begin()
        return np.concatenate(rows)

    def evaluation(self, central: dict[str, Any], rows: NDArray[np.float64]) -> dict[str, Any]:
        """Return a line's `evaluation`: the central score, and the spread of rows `(K, columns)` by kind of model."""
        parts = {"test": central}
        if self.names:
            split = rows.reshape(len(rows), len(self.kinds), len(self.names))
            parts |= {kind: self.scorer.summarise(split[:, place]) for place, kind in enumerate(self.kinds)}
        return {name: part for name, part in parts.items() if part}

    def final(self, comm: Comm, seating: Seating) -> dict[str, Any]:
        """Score the model in place on all held-out examples and every client's.  Collective; the scores are home's."""
        shards = self.plan.shards
        central = self.central()().scores if comm.is_home else {}
        blocks = [np.zeros((0, len(self.columns)))]
        for start in range(0, shards.clients if self.names else 0, BLOCK):
            clients = np.arange(start, min(start + BLOCK, shards.clients))
            block = torch.zeros(len(clients), len(self.columns), dtype=torch.float64)
            for place in seating.places(clients, lambda some: shards.heldout_sizes(some) + 1):
                block[place] = torch.from_numpy(self.client(int(clients[place])))
            comm.reduce(block)
            blocks += [block.numpy()] if comm.is_home else []
        return self.evaluation(central, np.concatenate(blocks))
