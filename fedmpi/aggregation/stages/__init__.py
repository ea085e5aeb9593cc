"""Changes to how an update travels, by name."""

from fedmpi.aggregation.stages.clip import Clip
from fedmpi.aggregation.stages.fixed_point import FixedPoint
from fedmpi.aggregation.stages.stage import Stage
from fedmpi.aggregation.stages.weigh import Weigh
from fedmpi.job import Registry

__all__ = ["STAGES", "Clip", "FixedPoint", "Stage", "Weigh"]

STAGES: Registry[Stage] = Registry(
    "aggregation.stages",
    {
        "clip": Clip,
        "fixed-point": FixedPoint,
    },
    given=("cap", "clients", "clipped"),
    of=Stage,
    many=True,
)
