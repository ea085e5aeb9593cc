"""The engines, by name: how a rank trains its clients."""

from fedmpi.flow import Engine
from fedmpi.job import Registry
from fedmpi.training.sequential import Sequential
from fedmpi.training.traced import Traced

ENGINES: Registry[Engine] = Registry(
    "local.engine",
    {
        "sequential": Sequential,
        "traced": Traced,
    },
    given=("course", "flat", "layout", "state", "examples", "memory", "staged", "keeps", "learner"),
    of=Engine,
)
