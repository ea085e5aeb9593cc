"""Norms of vectors of trained values, in one place: a vector may one day be a slice of one that several ranks hold."""

from __future__ import annotations

import torch
from torch import Tensor


def norm(vector: Tensor, planes: bool = False) -> Tensor:
    """Return the L2 norm `(...,)` of vectors `(..., n)`, or of their planes `(..., up, n)` together."""
    length: Tensor = torch.linalg.vector_norm(vector, dim=(-2, -1) if planes else -1)
    return length


def square(vector: Tensor) -> Tensor:
    """Return the squared L2 norm `(...,)` of vectors `(..., n)`."""
    return vector.square().sum(-1)


def inner(one: Tensor, other: Tensor) -> Tensor:
    """Return the inner product `(...,)` of vectors `(..., n)`."""
    product: Tensor = torch.linalg.vecdot(one, other)
    return product
