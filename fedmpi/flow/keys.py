"""What is random is keyed: by the seed, the round, the client, never by a rank or an order."""

from __future__ import annotations


def entropy(*numbers: int) -> list[int]:
    """Numbers below 2^64 as 32-bit words, two each: what a key is made of, so that no two tuples make the same one."""
    return [word for number in numbers for word in (number & 0xFFFFFFFF, number >> 32)]
