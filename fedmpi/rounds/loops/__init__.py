"""The kinds of round, by name: the loops, made with their options."""

from fedmpi.job import Registry
from fedmpi.plan.plan import Loop
from fedmpi.rounds.loops.cyclic import Cyclic
from fedmpi.rounds.loops.ensemble import Ensemble
from fedmpi.rounds.loops.synchronous import Synchronous

LOOPS: Registry[Loop] = Registry(
    "loop",
    {
        "synchronous": Synchronous,
        "cyclic": Cyclic,
        "ensemble": Ensemble,
    },
    of=Loop,
)
