"""What code of a module does to its tensors and in Python counts by recorded steps as it does by eager ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fedmpi
from tests.flat import test_rebinding, test_scratch
from tests.flat.odd import Change, make, quietly, training, whole
from tests.rounds.test_run import FIXED, on


def late(self: Any, x: Tensor) -> None:
    """What the last batch of an epoch leaves, smaller than the others, the next epoch's look at."""
    if len(x) < 4:
        self.kept = x.mean(0).detach()
    with torch.no_grad():
        self.mean.copy_(getattr(self, "kept", self.scale))


def counted(self: Any, x: Tensor) -> None:
    """Each step is another one, and the number is Python's."""
    self.number = getattr(self, "number", 0) + 1
    with torch.no_grad():
        self.mean.fill_(self.number / 10)


def listed(self: Any, x: Tensor) -> None:
    self.rows = [*getattr(self, "rows", []), x.detach().mean(0)][-3:]
    with torch.no_grad():
        self.mean.copy_(torch.stack(self.rows).mean(0))


def numbered(self: Any, x: Tensor) -> None:
    """A buffer of whole numbers that is no state, looked at."""
    with torch.no_grad():
        self.places.add_(1)
        self.mean.copy_(self.places[:6] / 10)


def places(self: Any, x: Tensor) -> None:
    if not hasattr(self, "places"):
        self.register_buffer("places", torch.arange(6), persistent=False)
    numbered(self, x)


CHANGES: dict[str, Change] = {
    **{change.__name__: training(change) for change in (late, counted, listed, places)},
    **{name: training(getattr(test_scratch, name)) for name in ("cache", "scratch", "grown", "built")},
    **test_rebinding.IN_PLACE,
    **{f"twin, {name}": change for name, (_, change) in test_rebinding.TWINS.items()},
    "nothing": quietly(lambda self, x: None),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [4, 11])
def test_recorded_steps_come_to_the_eager_bits(job: dict[str, Any], change: str, size: int) -> None:
    """Ragged batches of many sizes, several epochs; on one rank and on several."""
    job |= FIXED | {"model": {"name": "mine", "dtype": "float64"}, "rounds": 3}

    def final(engine: Any, ranks: int = 1) -> dict[str, Tensor]:
        local = {**job["local"], "batch": size, "epochs": 3, "engine": engine}
        run: fedmpi.Run = on(ranks, {**job, "local": local}, model=make(CHANGES[change]))[0]
        return whole(run)

    eager = final("sequential")
    for engine, ranks in (("traced", 1), ("traced", 4), ("auto", 1), ("batched", 3)):
        exact = final({"name": "traced", "fuse": False}, ranks)
        assert all(torch.equal(exact[name], eager[name]) for name in eager)
        fused = final(engine, ranks)
        for name in eager:
            torch.testing.assert_close(fused[name], eager[name], rtol=1e-8, atol=1e-8, msg=f"{engine}: {name}")
