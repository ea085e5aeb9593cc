"""The learning of one client: engines, batches, schedules, memory."""

from fedmpi.training.course import Course
from fedmpi.training.keepsake import keepsake_sizes
from fedmpi.training.schedules import SCHEDULES
from fedmpi.training.sequential import Sequential

__all__ = ["SCHEDULES", "Course", "Sequential", "keepsake_sizes"]
