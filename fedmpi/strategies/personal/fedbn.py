"""FedBN: normalisation layers stay with each client, because features are shifted between them.

Li, Jiang, Zhang, Kamp, Dou 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization",
algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from fedmpi.flat import keep_private
from fedmpi.job import JobError
from fedmpi.strategies.strategy import Strategy

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm)


class FedBN(Strategy):
    """Batch, layer and group normalisation never leave their client, statistics included (Li et al. 2021)."""

    def stays(self, model: nn.Module) -> Callable[[str], bool]:
        norms = [name for name, module in model.named_modules() if isinstance(module, NORMS)]
        if not norms:
            raise JobError(
                "strategy: fedbn keeps normalisation layers with each client, and the model has none; use fedper"
            )
        return keep_private(norms)
