"""How updates become one, by name."""

from fedmpi.aggregation.paths.path import Outcome, Path
from fedmpi.aggregation.paths.reduce import ReducePath
from fedmpi.job import Registry

__all__ = ["PATHS", "Outcome", "Path", "ReducePath"]

PATHS: Registry[Path] = Registry(
    "aggregation.path",
    {
        "reduce": ReducePath,
    },
    given=("comm", "stages", "layout", "device", "staged"),
    of=Path,
)
