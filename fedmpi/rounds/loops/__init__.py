"""What a round is, by name: a factory of each loop, which takes its options."""

from collections.abc import Callable

from fedmpi.plan.plan import Loop
from fedmpi.rounds.loops import cyclic, ensemble, synchronous

LOOPS: dict[str, Callable[..., Loop]] = {
    "synchronous": synchronous.loop,
    "cyclic": cyclic.loop,
    "ensemble": ensemble.loop,
}
