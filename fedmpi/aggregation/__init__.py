"""How updates travel: a path, and the stages on it."""

from fedmpi.aggregation.paths.reduce import ReducePath
from fedmpi.aggregation.pipeline import pipeline
from fedmpi.aggregation.stages import STAGES, Stage

__all__ = ["STAGES", "ReducePath", "Stage", "pipeline"]
