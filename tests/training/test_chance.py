"""Laws of a client's randomness: its own, from its beginning as often as it is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmpi.training.chance import Chance

CPU = torch.device("cpu")


def drawn(chance: Chance) -> tuple[list[int], list[float]]:
    """The order of some batches, and what a model would draw in them."""
    order = torch.randperm(9, generator=chance.order()).tolist()
    return order, torch.rand(3).tolist()


def test_a_client_draws_the_same_whoever_was_served_before() -> None:
    alone, busy = Chance(7, CPU), Chance(7, CPU)
    alone.turn(2, 5)
    for other in (1, 9):
        busy.turn(2, other)
        drawn(busy)
    busy.turn(2, 5)
    assert drawn(alone) == drawn(busy) == drawn(busy)


def test_seeds_rounds_and_clients_draw_apart() -> None:
    seen = set()
    for seed in (1, 2):
        chance = Chance(seed, CPU)
        for round, client in ((1, 1), (1, 2), (2, 1)):
            chance.turn(round, client)
            order, numbers = drawn(chance)
            seen.add((tuple(order), tuple(numbers)))
            chance.whole()
            seen.add(tuple(torch.rand(3).tolist()))
    assert len(seen) == 12


@pytest.mark.parametrize("expected", [[5], [9, 5, 5, 1], [1, 9], []])
@pytest.mark.parametrize("round", [1, 2])
def test_an_expected_client_draws_as_any_other(expected: list[int], round: int) -> None:
    """Whoever was expected, in this round or another; 0 is the index of a client like all others."""
    chance = Chance(7, CPU)
    chance.expect(round, np.array(expected, np.int64))
    for client in (5, 0, 10):
        alone = Chance(7, CPU)
        for each in (alone, chance):
            each.turn(2, client)
        assert drawn(chance) == drawn(alone)
        chance.whole()
        numbers = torch.rand(3)
        alone.whole()
        assert torch.equal(numbers, torch.rand(3))


def test_back_repeats_the_draws_behind_the_mark() -> None:
    chance = Chance(7, CPU)
    chance.turn(1, 1)
    chance.order()
    torch.rand(4)
    chance.mark()
    first = torch.rand(5)
    chance.back()
    assert torch.equal(torch.rand(5), first)
