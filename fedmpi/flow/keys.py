"""Keys of randomness: the seed, the round, the client, never a rank or an order."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

WORD = 0xFFFFFFFF
POOL = 4  # words of NumPy's pool
LEFT, RIGHT, HALF = np.uint32(0xCA01F9DD), np.uint32(0x4973F715), np.uint32(16)
Words = NDArray[np.uint32]


def _chain(first: int, factor: int, hashes: int) -> Words:
    """Return the constants `(hashes + 1,)` of NumPy's hashes: each hash takes its own and the next one."""
    return np.array([first * pow(factor, place, 1 << 32) & WORD for place in range(hashes + 1)], np.uint32)


MIXING, DRAWING = _chain(0x43B0D7E5, 0x931E8875, 8 * POOL), _chain(0x8B51F9DD, 0x58F38DED, 2)


def entropy(*numbers: int) -> list[int]:
    """Return numbers below 2^64 as 32-bit words, two each: no two tuples of numbers make the same key."""
    return [word for number in numbers for word in (number & WORD, number >> 32)]


def key(seed: int, round: int, client: int, use: int = 0) -> int:
    """Return the 63-bit key of one client's randomness in a round, for each `use` another: never of the rank.

    torch's generator on the host takes 32 bits of it.
    """
    words = np.random.SeedSequence(entropy(seed, round, client, use)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def keys(seed: int, round: int, clients: ArrayLike, use: ArrayLike = 0) -> NDArray[np.int64]:
    """Return `key` of many clients and uses at once, arrays of whole numbers that NumPy broadcasts together.

    It is NumPy's SeedSequence word for word (O'Neill 2015, "Developing a seed_seq alternative"), in all keys at a time.
    """
    laid = np.broadcast_arrays(*(np.asarray(number, np.uint64) for number in (seed, round, clients, use)))
    numbers = np.stack([number.reshape(-1) for number in laid])
    words = np.stack((numbers & np.uint64(WORD), numbers >> np.uint64(32)), 1).reshape(2 * len(laid), -1)
    words = words.astype(np.uint32)
    pool, at = _hash(words[:POOL], MIXING[: POOL + 1]), POOL
    for source in range(POOL):  # each word of the pool into all others
        others = [place for place in range(POOL) if place != source]
        pool[others] = _mix(pool[others], _hash(pool[source], MIXING[at : at + POOL]))
        at += POOL - 1
    for word in words[POOL:]:
        pool = _mix(pool, _hash(word, MIXING[at : at + POOL + 1]))
        at += POOL
    low, high = _hash(pool[:2], DRAWING).astype(np.int64)
    flat: NDArray[np.int64] = (high << 31) | (low >> 1)
    return flat.reshape(laid[0].shape)


def _hash(words: Words, constants: Words) -> Words:
    """Return hashes `(h, n)` of words `(h, n)` or `(n,)`, by a chain of `h + 1` constants."""
    hashes: Words = (words ^ constants[:-1, None]) * constants[1:, None]
    hashes ^= hashes >> HALF
    return hashes


def _mix(pool: Words, hashes: Words) -> Words:
    mixed: Words = LEFT * pool - RIGHT * hashes
    mixed ^= mixed >> HALF
    return mixed
