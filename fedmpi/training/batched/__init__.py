"""Training of several clients at once."""

from fedmpi.training.batched.engine import Batched

__all__ = ["Batched"]
