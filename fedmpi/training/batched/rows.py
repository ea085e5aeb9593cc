"""The recorded step of K clients at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedmpi.flat import FlatModel
from fedmpi.flow import losses_of
from fedmpi.training.batched.stream import Batches
from fedmpi.training.traced.program import Program
from fedmpi.training.traced.recording import Slot, difference, recorded


class Unbatched(Exception):
    """The reason why several clients cannot train at once."""


class Parted(Unbatched):
    """Rows came to something else than eager steps do."""


class Rows:
    """Steps of K models `values` `(K, values)`, each laid out as the flat model's, on K batches of `batch` examples.

    A step by `direct` moves the models; one by `gradients` returns the gradients of the trained
    tensors, `(K, ...)` each.
    """

    def __init__(self, flat: FlatModel, task: Any, values: Tensor) -> None:
        self.flat, self.task, self.values = flat, task, values
        names = [name for name, _ in flat.model.named_parameters() if name in flat.slices and _trained(flat, name)]
        self.names = names
        shapes = dict(flat.model.named_parameters())
        self.views = [values[:, flat.slices[name]].view(len(values), *shapes[name].shape) for name in names]
        self.functions: dict[tuple[Any, ...], tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]] = {}

    def direct(self, batches: Batches, lr: float) -> Tensor:
        """Move each model that is not through by -lr times its gradient; return the losses `(K,)`."""
        function, views = self._function(batches, fused=True)
        with torch.inference_mode():
            losses, *rest = function(batches.inputs, batches.targets, batches.weights, batches.active * -lr)
            if rest:
                torch._foreach_add_(views, rest)
        return losses

    def gradients(self, batches: Batches) -> tuple[Tensor, list[Tensor]]:
        """Return the losses `(K,)`, and the gradients in the order of `views`."""
        function, _ = self._function(batches, fused=False)
        with torch.inference_mode():
            losses, *gradients = function(batches.inputs, batches.targets, batches.weights, self.ones)
        return losses, gradients

    def _function(self, batches: Batches, fused: bool) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
        shapes = [(part.shape, part.stride(), part.dtype) for part in (batches.inputs, batches.targets)]
        key = (fused, *shapes)
        if key not in self.functions:
            self.functions[key] = self._made(batches, fused)
        return self.functions[key]

    def _made(self, batches: Batches, fused: bool) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
        """Record a step twice; Unbatched where it cannot be recorded."""
        one, other = self._recorded(batches), self._recorded(batches)
        reason = one.reason or other.reason or difference(one, other)
        if reason is not None:
            raise Unbatched(reason)
        if fused and not one.linear:
            raise Unbatched("its gradients are not linear in the loss's own")
        self.ones = torch.ones_like(one.seed)
        program = Program(one, dict(zip(map(Slot, range(len(self.views))), self.views, strict=True)))
        rest = program.fuse(self.views) if fused else list(zip(program.gradients, self.views, strict=True))
        function = program.compiled(one.inputs, [slot for slot, _ in rest])
        return function, [view for _, view in rest]

    def _recorded(self, batches: Batches) -> Any:
        model, losses = self.flat.model, losses_of(self.task)
        assert losses is not None
        leaves = [view.detach().requires_grad_() for view in self.views]

        def loss(tensors: Sequence[Tensor], inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
            outputs = functional_call(model, dict(zip(self.names, tensors, strict=True)), (inputs,))
            return (losses(outputs, targets) * weights).sum()

        parts = (batches.inputs, batches.targets, batches.weights)
        try:
            return recorded(lambda: vmap(loss)(tuple(leaves), *parts), model, leaves, parts, [], scalar=False)
        except (RuntimeError, ValueError, NotImplementedError) as error:  # an operation with no rows
            raise Unbatched(str(error).splitlines()[0]) from error


def _trained(flat: FlatModel, name: str) -> bool:
    return bool(flat.trained.start <= flat.slices[name].start < flat.trained.stop)


def unbatched(model: nn.Module) -> str | None:
    """Return why a model is not trained for several clients at once; None where it is."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.modules.dropout._DropoutNd, nn.RNNBase)):
            return f"{name} is a {type(module).__name__}"
        if isinstance(module, nn.modules.conv._ConvNd):  # one client by itself is quicker, on CPUs at least
            return f"{name} is a {type(module).__name__}"
    return None
