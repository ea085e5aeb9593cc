"""Changes to how an update travels, by name."""

from collections.abc import Callable

from fedmpi.aggregation.stages.clip import Clip
from fedmpi.aggregation.stages.fixed_point import FixedPoint
from fedmpi.aggregation.stages.stage import Stage
from fedmpi.aggregation.stages.weigh import Weigh

__all__ = ["STAGES", "Clip", "FixedPoint", "Stage", "Weigh"]

STAGES: dict[str, Callable[..., Stage]] = {
    "clip": Clip,
    "fixed-point": FixedPoint,
}
