"""The inputs of a model's last layer, its representation of a batch, as MOON and FedDecorr use it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def last(model: nn.Module) -> str:
    """Return the name of a model's last linear layer; of its last module with parameters where it has none."""
    linear: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    others: list[str] = [
        name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))
    ]
    return (linear or others)[-1]


class Representation:
    """The last inputs of a model's last layer, `(N, ...)`, flattened to `(N, d)`."""

    def __init__(self) -> None:
        self.seen: Tensor | None = None

    def watch(self, model: nn.Module) -> RemovableHandle:
        """Record the inputs of this model's last layer for as long as the handle is held in a `with`."""
        return model.get_submodule(last(model)).register_forward_pre_hook(self._see)

    def _see(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.seen = inputs[0]

    def take(self) -> Tensor:
        """Return and forget the representation `(N, d)` of the last batch."""
        assert self.seen is not None
        seen, self.seen = self.seen, None
        return seen.flatten(1)
