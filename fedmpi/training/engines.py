"""The engines, by name: how a rank trains its clients."""

from fedmpi.flow import Engine
from fedmpi.job import Registry
from fedmpi.training.batched import Batched
from fedmpi.training.sequential import Sequential
from fedmpi.training.traced import Traced

ENGINES: Registry[Engine] = Registry(
    "local.engine",
    {
        "sequential": Sequential,
        "traced": Traced,
        "batched": Batched,
    },
    given=("course", "flat", "layout", "state", "examples", "memory", "staged", "keeps", "learner", "cohort"),
    of=Engine,
)
