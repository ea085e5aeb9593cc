"""Models by name: factories `(shape, outputs, **options) -> nn.Module`.

`shape` is one example's, `outputs` the number of values the task asks for; the trainer fills in both.  A factory raises
ValueError where the shape cannot fit.  Tensors begin as PyTorch's own layers do.
"""

from __future__ import annotations

from torch import nn

from fedmpi.job import Registry
from fedmpi.models.dense import linear, logistic, mlp
from fedmpi.models.images import cnn, lenet, small_cnn
from fedmpi.models.sequences import char_lstm

__all__ = ["MODELS"]

MODELS: Registry[nn.Module] = Registry(
    "model",
    {
        "linear": linear,
        "logistic": logistic,
        "mlp": mlp,
        "cnn": cnn,
        "lenet": lenet,
        "small-cnn": small_cnn,
        "char-lstm": char_lstm,
    },
    given=("shape", "outputs"),
)
