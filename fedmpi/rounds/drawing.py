"""The cohort of a round: the same on every rank, chosen by candidates' losses where the sampler asks for them."""

from __future__ import annotations

import torch

from fedmpi.cohort.samplers import Drawn
from fedmpi.flow import Refused
from fedmpi.rounds.parts import Parts


def draw(parts: Parts) -> Drawn | None:
    """Return the cohort of the round under way, the same on every rank.  Collective where candidates' losses are asked.

    None where no client is available in any later round: the run is over, with the model received.  Refused if this is
    the first round.
    """
    sampler, state, clients = parts.plan.sampler, parts.state, parts.plan.shards.clients
    try:
        drawn = sampler.draw(state.round)
    except Refused as refused:  # the same on every rank
        if state.round == 1:
            parts.comm.settle(refused)
        if parts.scribe is not None:
            parts.scribe.stopped = str(refused)
        state.ended()
        return None
    sampler.sound(drawn, clients if sampler.asks else sampler.most)
    if not sampler.asks:
        return drawn
    losses = torch.zeros(len(drawn.clients), dtype=torch.float64)
    for place in parts.seating.places(drawn.clients):
        losses[place] = parts.engine.objective(int(drawn.clients[place]))
    parts.comm.reduce(losses)
    parts.comm.broadcast(losses)
    return sampler.sound(sampler.choose(drawn, losses.numpy()), sampler.most)
