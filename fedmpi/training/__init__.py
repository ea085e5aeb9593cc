"""How a client learns."""

from fedmpi.training.schedules import SCHEDULES
from fedmpi.training.sequential import Sequential

__all__ = ["SCHEDULES", "Sequential"]
