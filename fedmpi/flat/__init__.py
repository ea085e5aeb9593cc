"""A model as one flat vector, with its tensors bound to it."""

from fedmpi.flat.model import ALIGNMENT, FlatModel, keep_private

__all__ = ["ALIGNMENT", "FlatModel", "keep_private"]
