"""Training of several clients at once."""

from fedmpi.training.batched.engine import Batched, one_by_one

__all__ = ["Batched", "one_by_one"]
