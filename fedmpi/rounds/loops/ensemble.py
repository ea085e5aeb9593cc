"""Ensemble rounds: each client trains a model of its own, and their soft vote is used.

Breiman 1996, "Bagging Predictors": the clients' examples are the bags, or with `bootstrap` a sample of them drawn with
replacement.  Models travel only to be scored together and kept.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmpi.aggregation.paths.entry import first
from fedmpi.evaluation import vote
from fedmpi.flat import FlatModel
from fedmpi.flow import Examples, Learned, key
from fedmpi.job import JobError
from fedmpi.plan.plan import Loop, Plan
from fedmpi.rounds.crossing import crossings
from fedmpi.rounds.parts import Parts
from fedmpi.training import keepsake_sizes


@dataclass
class Ensemble(Loop):
    """Clients' own models and their soft vote; `bootstrap`: each learns from a sample of its examples (bagging)."""

    bootstrap: bool = False
    votes = True
    once = True

    def check(self, plan: Plan) -> None:
        """Refuse strategies and stages made for a sum or a server."""
        job = plan.job
        if not plan.strategy.alone:
            raise JobError(
                f'loop: ensemble has each client train by itself, not {job.strategy.name}; use strategy "local"'
            )
        if job.aggregation.stages:
            raise JobError("loop: ensemble sums nothing, so aggregation.stages have no place; leave them out")

    def examples(self, plan: Plan) -> Examples:
        """Return the shard set, or the bags drawn from it."""
        return Bags(plan.shards, plan.job.seed) if self.bootstrap else plan.shards

    def model(self, plan: Plan, flat: FlatModel) -> nn.Module:
        """Return the vote of a copy of the model for each client."""
        return Members(plan, flat.device)

    def run(self, parts: Parts) -> None:
        """Take a rank through every round; afterwards every rank holds the ensemble."""
        comm, state, members = parts.comm, parts.state, parts.model
        own, received = _own(parts), state.received[parts.flat.shared.start :]
        assert isinstance(members, Members)
        for crossing in crossings(parts):
            if crossing.due:
                gather(parts, members)
            crossing.score()
            for learned in crossing.train():
                crossing.enter(learned, _faults(learned, own, received))
            comm.reduce(crossing.arrive())
            crossing.commit()
            if comm.is_home and not crossing.ends():
                crossing.count()
                crossing.close({"weight": float(len(crossing.drawn.clients))})
        if not state.interrupted:
            gather(parts, members)
            members.voting()


class Members(vote.SoftVote):
    """The clients' models, each laid flat; `gather` fills them."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        flats = [
            FlatModel(copy.deepcopy(plan.model), dtype=plan.dtype, device=device) for _ in range(plan.shards.clients)
        ]
        super().__init__([flat.model for flat in flats], plan.task)
        self.flats = flats


@dataclass
class Bags:
    """A shard set with a bag for each client: as many of its examples, drawn with replacement once and for all."""

    shards: Any
    seed: int

    def train(self, client: int) -> tuple[Tensor, Tensor]:
        """Return the columns x and y of a client's bag."""
        x, y = self.shards.train(client)
        random = np.random.default_rng(key(self.seed, 0, client, use=3))
        chosen = torch.from_numpy(random.integers(0, max(1, len(y)), len(y)))
        return x[chosen], y[chosen]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.shards, name)


def _own(parts: Parts) -> slice:
    """Return the place of a client's own model in its keepsake."""
    sizes = keepsake_sizes(parts.plan.strategy, parts.flat)
    start = sum(size for _, size in itertools.takewhile(lambda pair: pair[0] != ("strategy", "own"), sizes.items()))
    return slice(start, start + sizes["strategy", "own"])


def _faults(learned: Learned, own: slice, received: Tensor) -> NDArray[np.int64]:
    """Return the faults `(K, 2)` of clients' models in which training made a value infinite or NaN; zeros otherwise."""
    faults = np.zeros((len(learned.places), 2), np.int64)
    for row, values in enumerate(learned.keepsakes[:, own] if learned.keepsakes is not None else ()):
        wrong = ~torch.isfinite(values)
        if wrong.any():  # an untouched mask of -inf is no fault
            wrong &= values != received.to(values.device)
        if wrong.any():
            faults[row] = 1, first(wrong)
    return faults


def gather(parts: Parts, members: Members) -> None:
    """Lay every client's model, as of the last round, in place on every rank.  Collective.

    A client that never trained has no vote.
    """
    seating, size = parts.seating, parts.layout.size
    sent = torch.zeros(size + 1, dtype=parts.flat.dtype)
    for seat, hand in enumerate(seating.hands(np.arange(len(members.flats)))):
        for index in hand:
            if seat == seating.seat:
                client = parts.engine.recall(index)
                sent[:size].copy_(client.memory["own"])
                sent[size] = 0 if client.fresh else 1
            parts.comm.broadcast(sent, seating.rank(seat))
            member = members.flats[index]
            member.values.copy_(sent[:size])
            member.whole.received.copy_(parts.flat.whole.received)
            member.restore()
            members.votes[index] = bool(sent[size])
