"""Small buffers of whole numbers, free to change: a BatchNorm's count, a flag."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flat.places import Place, described
from fedmpi.job import JobError

COUNTED = "num_batches_tracked"  # BatchNorm's own: a count, whatever it looks like


class Whole:
    """Small buffers of whole numbers, `(values,)` int64 laid end to end, and the meaning of their changes.

    `received` are the values of the broadcast, every client's start.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        unique: dict[str, list[Place]] = {}
        for place in places:
            unique.setdefault(place.name, []).append(place)
        self.buffers = list(unique.values())
        ends = [0, *itertools.accumulate(owners[0].tensor.numel() for owners in self.buffers)]
        self.spans = [slice(*pair) for pair in itertools.pairwise(ends)]
        self.size = ends[-1]
        for owners in self.buffers:
            if not owners[0].tensor.is_contiguous():  # one that was expanded cannot be written to
                dense = owners[0].tensor.contiguous()
                for place in owners:
                    place.tensor = dense
                    place.put_back()
        self.kinds = [(owners[0].tensor.shape, owners[0].tensor.dtype) for owners in self.buffers]
        self.received = self.values()

    def values(self) -> Tensor:
        """Return the values of now `(values,)`, on the host; JobError where a buffer has another shape or type."""
        parts = []
        for owners, (shape, dtype) in zip(self.buffers, self.kinds, strict=True):
            for place in owners:
                now = place.now
                if not isinstance(now, Tensor) or now.shape != shape or now.dtype != dtype:
                    raise JobError(
                        f"model: its buffer {place.name!r} was {dtype} of shape {tuple(shape)} and became "
                        f"{described(now)} while a client trained; keep its type and shape"
                    )
            changed = next((place.now for place in owners if place.now is not place.tensor), owners[0].now)
            parts.append(changed.detach().reshape(-1).to(torch.int64))
        return torch.cat(parts).cpu() if parts else torch.zeros(0, dtype=torch.int64)

    def restore(self) -> None:
        """Put the received values back, for the next client."""
        for owners, span in zip(self.buffers, self.spans, strict=True):
            tensor = owners[0].tensor
            with torch.no_grad():
                tensor.copy_(self.received[span].view(tensor.shape))
            for place in owners:
                place.put_back()

    def changes(self, forwards: int, examples: int) -> Tensor:
        """Return the change from the received values `(values,)`, after so many `forwards` over so many `examples`.

        Raises JobError, naming the buffer, for a change neither of a count nor of a flag: it could not be added up.
        """
        if not self.size:
            return self.received
        changed = self.values() - self.received
        for owners, span in zip(self.buffers, self.spans, strict=True):
            moved, name = changed[span], owners[0].name
            if not moved.any():
                continue
            total = int(moved.sum())
            ones = bool((moved <= 1).all())
            sets = ones and bool((self.received[span][moved > 0] == 0).all())
            counts = any(total % unit == 0 for unit in (forwards, examples) if unit > 1) or (ones and forwards == 1)
            flag = owners[0].tensor.dtype is torch.bool
            if (moved < 0).any() or not (sets or (counts and not flag) or COUNTED in name):
                before, after = self.received[span].tolist(), (self.received[span] + moved).tolist()
                raise JobError(
                    f"model: its buffer {name!r} went from {_few(before)} to {_few(after)} while a client trained; of "
                    "whole numbers a count (so many for each batch or example) is added up over clients and a flag "
                    "once set stays set, and this is neither: keep it as it was, register it with persistent=False, "
                    "or make it one of floating numbers, which is averaged"
                )
        return changed

    def merged(self, changes: NDArray[Any], clients: NDArray[Any]) -> NDArray[np.int64]:
        """Return the values `(values,)` after a round, by `changes` summed over clients and the number of `clients`.

        Where each of them took a 0 to 1 it is a flag, and set; else a count, and the changes are added up.
        """
        before = self.received.numpy()
        merged: NDArray[np.int64] = before + changes.astype(np.int64)
        for owners, span in zip(self.buffers, self.spans, strict=True):
            moved = changes[span] > 0
            sets = (before[span] == 0) & (changes[span] == clients[span])
            if COUNTED not in owners[0].name and sets[moved].all():
                merged[span][moved] = 1
            tensor = owners[0].tensor
            most = 1 if tensor.dtype is torch.bool else torch.iinfo(tensor.dtype).max
            if (merged[span] > most).any():
                raise JobError(
                    f"model: its buffer {owners[0].name!r} came to more than {most}, which {tensor.dtype} cannot hold"
                )
        return merged

    def moved(self, before: NDArray[Any], after: NDArray[Any]) -> tuple[list[str], list[str]]:
        """Return names of the counts and of the flags moved by a round, BatchNorm's own counts aside."""
        counts: list[str] = []
        flags: list[str] = []
        for owners, span in zip(self.buffers, self.spans, strict=True):
            if (before[span] != after[span]).any() and COUNTED not in owners[0].name:
                sets = ((before[span] == 0) & (after[span] == 1))[before[span] != after[span]].all()
                (flags if sets else counts).append(owners[0].name)
        return counts, flags


def _few(values: list[int]) -> str:
    return ", ".join(map(str, values[:4])) + (", ..." if len(values) > 4 else "")
