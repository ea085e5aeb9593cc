"""Drawn sets: the model to be learned from them is known."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from fedmpi.data.columns import Columns


def linear(
    rng: np.random.Generator,
    examples: Annotated[int, Field(ge=1, description="how many are drawn")] = 1000,
    slope: Annotated[float, Field(description="of the line")] = 3.0,
    intercept: Annotated[float, Field(description="of the line")] = 2.0,
    noise: Annotated[float, Field(ge=0, description="the standard deviation around the line")] = 0.1,
) -> Columns:
    """A line: y = slope * x + intercept + noise, x (N, 1) uniform in [-1, 1].

    `examples` is the number of points drawn, `slope` and `intercept` are the line's.  `noise` is the standard deviation
    of the normal noise around it.
    """
    x = rng.uniform(-1.0, 1.0, examples)
    y = slope * x + intercept + noise * rng.standard_normal(examples)
    return Columns(x=x[:, None].astype(np.float32), y=y.astype(np.float32), task="regression")
