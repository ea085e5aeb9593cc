"""The engines, by name: how a rank trains its clients."""

from fedmpi.flow import Engine
from fedmpi.job import Registry
from fedmpi.training.sequential import Sequential

ENGINES: Registry[Engine] = Registry(
    "local.engine",
    {
        "sequential": Sequential,
    },
    given=("course", "flat", "layout", "state", "examples", "memory", "staged", "keeps", "learner"),
    of=Engine,
)
