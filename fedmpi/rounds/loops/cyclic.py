"""Cyclic rounds: the model goes from client to client along a ring, and each trains it before it hands it on.

Chang, Balachandar, Lam, Yi, Brown, Beers, Rosen, Rubin, Kalpathy-Cramer 2018, "Distributed Deep Learning Networks among
Institutions for Medical Imaging": cyclical weight transfer.  There is no sum, and so no stage, weight or server step.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from fedmpi.aggregation.paths.entry import first
from fedmpi.flow import entropy
from fedmpi.job import JobError, nearest
from fedmpi.plan.plan import Loop, Plan
from fedmpi.rounds.crossing import Crossing, crossings
from fedmpi.rounds.parts import Parts
from fedmpi.strategies import STRATEGIES


@dataclass
class Cyclic(Loop):
    """The model is handed from client to client; the ring's `order` is that of the shard set, or new in each round."""

    order: Literal["fixed", "random"] = "fixed"
    once = True
    hands_on = True

    def check(self, plan: Plan) -> None:
        """Refuse strategies, stages and options made for a sum or a server."""
        job = plan.job
        if not plan.strategy.local_rule:
            rules = [name for name in STRATEGIES if STRATEGIES[name](server=plan.strategy.server).local_rule]
            raise JobError(
                f"loop: cyclic takes a local rule alone, not {job.strategy.name}; there are {', '.join(rules)}"
                f"{nearest(job.strategy.name, rules)}"
            )
        if job.aggregation.stages:
            raise JobError(
                "loop: cyclic hands the model on as it is, so aggregation.stages have no place; leave them out"
            )
        server = job.server
        if (server.optimizer.name, server.lr, server.schedule.name) != ("sgd", 1, "constant") or any(
            server.optimizer.options.values()
        ):
            raise JobError("loop: cyclic has no server step; leave server.optimizer, server.lr and server.schedule out")

    def run(self, parts: Parts) -> None:
        """Take a rank through every round; each client's training ends in a broadcast from its rank."""
        comm, state = parts.comm, parts.state
        model = state.planes[0]
        for crossing in crossings(parts):
            crossing.score()
            scored = _score(parts, crossing)
            received = state.travels.clone() if comm.is_home else state.travels
            crossing.seconds = self._hand_round(parts, crossing), scored
            comm.reduce(crossing.arrive())
            crossing.commit()
            if not comm.is_home:
                continue
            passed = state.travels.clone()
            state.travels.copy_(received)  # the run's model, until its scores and its line are written
            if crossing.ends():
                continue
            state.travels.copy_(passed)
            hops = len(crossing.drawn.clients) * model.numel() * model.itemsize
            crossing.close({"weight": _weight(parts, crossing)}, down=hops)

    def _hand_round(self, parts: Parts, crossing: Crossing) -> float:
        """Hand the model once round the ring, in every rank's state; return this rank's seconds of training."""
        state, seating, clients = parts.state, parts.seating, crossing.drawn.clients
        model, trained = state.planes[0], 0.0
        seats = {place: seat for seat, hand in enumerate(seating.hands(clients)) for place in hand}
        for place in self._ring(parts.plan.job.seed, state.round, len(clients)):
            if seats[place] == seating.seat:
                began = time.perf_counter()
                parts.engine.receive()
                for learned in parts.engine.train(np.array([place]), crossing.passage):
                    update = parts.layout.planes(learned.rows[0])[0]
                    wrong = ~torch.isfinite(update)
                    fault = [1, first(wrong)] if wrong.any() else [0, 0]
                    if not fault[0]:
                        model.add_(update.cpu())
                        state.counts += learned.counts[0].numpy()
                    crossing.enter(learned, np.array([fault]))
                trained += time.perf_counter() - began
            parts.comm.broadcast(state.travels, seating.rank(seats[place]))
        return trained

    def _ring(self, seed: int, round: int, clients: int) -> list[int]:
        """Return the places of a cohort in the order of the ring."""
        ring = np.arange(clients)
        if self.order == "random":
            ring = np.random.default_rng(np.random.SeedSequence(entropy(seed, round, 1))).permutation(ring)
        return [int(place) for place in ring]


def _score(parts: Parts, crossing: Crossing) -> float:
    """Score this rank's clients on the received model, before any of them trains it; return the seconds."""
    began = time.perf_counter()
    for place in parts.seating.places(crossing.drawn.clients):
        crossing.score_client(place)
    return time.perf_counter() - began


def _weight(parts: Parts, crossing: Crossing) -> float:
    """Return the weight of the cohort's examples in a sum."""
    cap = parts.plan.job.aggregation.cap
    assert cap is not None
    return float(np.minimum(crossing.tally.rows[:, 0] / cap, 1.0).sum())
