"""The constants of a model: they do not travel, and must stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fedmpi.flat.fates import RIDES
from fedmpi.flat.places import Place
from fedmpi.job import JobError

LOOKED = 2**20  # values of a constant that are looked at after every client: a larger one's once in a launch


class Constants:
    """Frozen parameters and large whole-number buffers: they do not travel, and must stay as they are."""

    def __init__(self, places: Sequence[tuple[str, Place]]) -> None:
        self.places = list(places)
        self.note()

    def note(self) -> None:
        """Take the values of now for the right ones."""
        self.looked = False
        self.marks = [(place.tensor.data_ptr(), place.tensor._version) for _, place in self.places]
        self.sums: list[Any] = [_sum(place.tensor) for _, place in self.places]

    def check(self) -> None:
        """Raise JobError, naming it, where one has moved; of large ones the values are looked at once in a launch."""
        for at, ((kind, place), mark, total) in enumerate(zip(self.places, self.marks, self.sums, strict=True)):
            now = place.now
            if isinstance(now, Tensor) and not (kind == "parameter" and now.requires_grad):
                same = now is place.tensor and (now.data_ptr(), now._version) == mark
                if same and self.looked and now.numel() > LOOKED:
                    continue
                if _sum(now) == total:
                    place.tensor, self.marks[at] = now, (now.data_ptr(), now._version)
                    continue
            what = "is frozen (requires_grad = False)" if kind == "parameter" else f"holds more than {RIDES:,} integers"
            way = "make it a buffer, which is averaged" if kind == "parameter" else "make it one of floating numbers"
            raise JobError(
                f"model: its {kind} {place.name!r} {what} and so does not travel, but it changed while a client "
                f"trained; {way}, or leave it as it is"
            )
        self.looked = True


def _sum(tensor: Tensor) -> Any:
    """Return the sum of a tensor's bits in two ways, exact and quick: a change of the tensor changes one of them."""
    if not tensor.numel():
        return 0
    flat = tensor.detach().contiguous().view(-1)
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(flat.itemsize)
    bits = flat.view(torch.uint8 if kind is None else kind)
    rows = bits[: len(bits) // 64 * 64].view(-1, 64)
    return bits.sum(dtype=torch.int64).item(), rows.sum(0, dtype=torch.int64).tolist()
