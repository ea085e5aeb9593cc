"""Laws of keys: whatever is random is keyed by words that never run together."""

from __future__ import annotations

from fedmpi.flow import key


def test_keys_do_not_collide() -> None:
    seeds = (0, 1, 2, 1000, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1)
    grid = [(seed, round, client) for seed in seeds for round in range(12) for client in (*range(40), 99_999)]
    keys = {key(*words) for words in grid}
    assert len(keys) == len(grid)
    assert all(0 <= one < 2**63 for one in keys)


def test_a_key_knows_its_words_apart() -> None:
    assert len({key(1, 2, 3), key(3, 2, 1), key(2, 1, 3), key(1, 3, 2)}) == 4
