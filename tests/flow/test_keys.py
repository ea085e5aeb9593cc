"""Laws of keys: whatever is random is keyed by words that never run together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from fedmpi.flow import key, keys

CORNERS = (0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1)


def numpys(*numbers: int) -> int:
    """The key by NumPy alone, from the words of each number, low before high."""
    words = np.array(numbers, "<u8").view("<u4").tolist()
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]) // 2


def many(seed: int, round: int, clients: Iterable[int], use: int) -> None:
    numbers = list(clients)
    right = [numpys(seed, round, client, use) for client in numbers]
    assert keys(seed, round, np.array(numbers), use).tolist() == right
    assert [key(seed, round, client, use) for client in numbers] == right


def test_keys_do_not_collide() -> None:
    seeds = (0, 1, 2, 1000, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1)
    grid = [(seed, round, client) for seed in seeds for round in range(12) for client in (*range(40), 99_999)]
    keys = {key(*words) for words in grid}
    assert len(keys) == len(grid)
    assert all(0 <= one < 2**63 for one in keys)


def test_a_key_knows_its_words_apart() -> None:
    assert len({key(1, 2, 3), key(3, 2, 1), key(2, 1, 3), key(1, 3, 2)}) == 4


@pytest.mark.parametrize("seed", CORNERS)
def test_the_keys_of_a_cohort_have_numpys_bits(seed: int) -> None:
    for round in CORNERS:
        for use in CORNERS:
            many(seed, round, (*CORNERS, 3, 99_999), use)
    random = np.random.default_rng(seed)
    many(seed, 17, random.integers(0, 2**63, 500).tolist(), 1)
    many(seed, 18, range(500), 0)


def test_keys_are_laid_out_as_their_numbers_are() -> None:
    table = keys(1, 2, np.array([[5], [6], [7], [5]]), np.arange(3))
    assert table.tolist() == [[key(1, 2, client, use) for use in range(3)] for client in (5, 6, 7, 5)]
    assert keys(1, 2, np.zeros(0, np.int64)).shape == (0,)
    assert int(keys(1, 2, 5)) == key(1, 2, 5)
