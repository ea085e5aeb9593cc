"""How updates travel: a path, and the stages on it."""

from fedmpi.aggregation.order import pipeline
from fedmpi.aggregation.paths import PATHS, Outcome, Path, ReducePath
from fedmpi.aggregation.pipeline import Pipeline
from fedmpi.aggregation.stages import STAGES, Stage

__all__ = ["PATHS", "STAGES", "Outcome", "Path", "Pipeline", "ReducePath", "Stage", "pipeline"]
