"""Keys of randomness: the seed, the round, the client, never a rank or an order."""

from __future__ import annotations

import numpy as np


def entropy(*numbers: int) -> list[int]:
    """Return numbers below 2^64 as 32-bit words, two each: no two tuples of numbers make the same key."""
    return [word for number in numbers for word in (number & 0xFFFFFFFF, number >> 32)]


def key(seed: int, round: int, client: int, use: int = 0) -> int:
    """Return the 63-bit key of one client's randomness in a round, for each `use` another: never of the rank.

    torch's generator on the host takes 32 bits of it.
    """
    words = np.random.SeedSequence(entropy(seed, round, client, use)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))
