"""A model as one flat vector, and what its tensors are bound to."""

from fedmpi.flat.model import ALIGNMENT, FlatModel, keep_private

__all__ = ["ALIGNMENT", "FlatModel", "keep_private"]
