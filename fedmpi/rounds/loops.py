"""What a round is, by name: a factory of each loop, which takes its options."""

from collections.abc import Callable

from fedmpi.rounds import cyclic, ensemble, synchronous
from fedmpi.rounds.plan import Loop

LOOPS: dict[str, Callable[..., Loop]] = {
    "synchronous": synchronous.loop,
    "cyclic": cyclic.loop,
    "ensemble": ensemble.loop,
}
