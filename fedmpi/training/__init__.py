"""The learning of clients: engines, batches, schedules, memory."""

from fedmpi.training.batched import Batched
from fedmpi.training.course import Course
from fedmpi.training.engines import ENGINES, choice
from fedmpi.training.keepsake import keepsake_sizes
from fedmpi.training.schedules import SCHEDULES
from fedmpi.training.sequential import Sequential
from fedmpi.training.single import Single
from fedmpi.training.traced import Traced

__all__ = ["ENGINES", "SCHEDULES", "Batched", "Course", "Sequential", "Single", "Traced", "choice", "keepsake_sizes"]
