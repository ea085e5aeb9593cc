"""A model as one flat vector, with its tensors bound to it."""

from fedmpi.flat.model import ALIGNMENT, FlatModel, keep_private
from fedmpi.flat.places import places
from fedmpi.flat.scratch import OWN
from fedmpi.flat.zeros import zeros

__all__ = ["ALIGNMENT", "OWN", "FlatModel", "keep_private", "places", "zeros"]
