"""What the stages of every rank keep from round to round: brought home for checkpoints, dealt out on resuming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import load, save
from torch import Tensor

from fedmpi.rounds.parts import Parts

NOTHING = torch.zeros(0, dtype=torch.uint8)


def meet(parts: Parts) -> None:
    """Let the stages of all ranks meet, and go on from their states of the last checkpoint.  Collective."""
    comm, stages, state = parts.comm, parts.plan.stages, parts.state
    launch = torch.tensor([state.launch])
    comm.broadcast(launch)
    state.launch = int(launch)
    stages.join(comm, state.launch)
    if not stages.keeps:
        return
    packed = [NOTHING] * comm.size
    if parts.scribe is not None:
        states = parts.scribe.states
        hands: list[list[Tensor]] = [[] for _ in range(comm.size)]
        for place, rank in enumerate(sorted(states)):  # those of ranks that are no more are dealt to the rest
            seat = comm.alive.index(rank) if rank in comm.alive else place % comm.size
            hands[seat].append(_packed(states[rank]))
        packed = [_packed({str(place): one for place, one in enumerate(hand)}) if hand else NOTHING for hand in hands]
    dealt = _from_home(parts, comm.exchange(packed))
    if len(dealt):
        stages.load([_unpacked(one) for _, one in sorted(_unpacked(dealt).items(), key=lambda pair: int(pair[0]))])


def keep_states(parts: Parts, round: int) -> None:
    """Bring the states of all ranks' stages home, where a checkpoint of `round` is due now.  Collective."""
    every = parts.plan.job.checkpoint.every
    if every and round and round % every == 0:
        bring(parts)


def bring(parts: Parts) -> None:
    """Bring the states of all ranks' stages home, for the next checkpoint.  Collective."""
    comm, stages = parts.comm, parts.plan.stages
    if not stages.keeps:
        return
    own = _packed(stages.state())
    brought = comm.exchange([own if rank == comm.home[0] else NOTHING for rank in comm.alive])
    if parts.scribe is not None:
        parts.scribe.states = {rank: _unpacked(one) for rank, one in zip(comm.alive, brought, strict=True) if len(one)}


def _from_home(parts: Parts, received: Sequence[Tensor]) -> Tensor:
    return received[parts.comm.alive.index(parts.comm.home[0])]


def _packed(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return tensors with their names as bytes `(n,)`, as a safetensors file holds them."""
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return torch.frombuffer(bytearray(save(plain)), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> dict[str, Tensor]:
    return load(packed.numpy().tobytes())
