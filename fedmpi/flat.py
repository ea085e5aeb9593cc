"""A model's tensors and gradients as views of two vectors: what is trained is one slice, what travels is one slice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor, nn

ALIGNMENT = 64  # bytes: every tensor begins on a cache line


class FlatModel:
    """A model whose parameters and floating buffers are views of `values`, and whose gradients fill `grads`.

    `values` is `[private buffers | private trained | shared trained | shared buffers]`, each tensor on a 64-byte
    boundary with zeros between.  `trained` is the slice that training changes, `shared` the one that travels.
    `private(name)` says which tensors stay home.  Frozen parameters and integer buffers stay out of the vector;
    `restore()` gives integer buffers (a BatchNorm's count) the values they began with, so that clients served one
    after another do not see each other.
    """

    def __init__(
        self,
        model: nn.Module,
        private: Callable[[str], bool] = lambda name: False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model.to(device=device, dtype=dtype)
        self.dtype, self.device = dtype, torch.device(device)
        trained = [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]
        buffers = [(name, tensor) for name, tensor in model.named_buffers() if tensor.is_floating_point()]
        sections: list[list[tuple[str, Tensor]]] = [
            [pair for pair in buffers if private(pair[0])],
            [pair for pair in trained if private(pair[0])],
            [pair for pair in trained if not private(pair[0])],
            [pair for pair in buffers if not private(pair[0])],
        ]
        step = ALIGNMENT // dtype.itemsize
        ends, at = [], 0
        self.slices: dict[str, slice] = {}
        for section in sections:
            for name, tensor in section:
                self.slices[name] = slice(at, at + tensor.numel())
                at += -(-tensor.numel() // step) * step
            ends.append(at)
        self.values = torch.zeros(at, dtype=dtype, device=self.device)
        self.trained = slice(ends[0], ends[2])
        self.shared = slice(ends[1], at)
        self.grads = torch.zeros(ends[2] - ends[0], dtype=dtype, device=self.device)
        self.parameters: list[Tensor] = []
        self.views: list[Tensor] = []  # of values, one per trained tensor: what a plain step is applied to
        self.grad_views: list[Tensor] = []
        with torch.no_grad():
            for name, tensor in [*sections[1], *sections[2]]:
                view = self.values[self.slices[name]].view(tensor.shape)
                view.copy_(tensor)
                tensor.data = view
                self.parameters.append(tensor)
                self.views.append(view)
                here = self.slices[name]
                grad = self.grads[here.start - ends[0] : here.stop - ends[0]].view(tensor.shape)
                self.grad_views.append(grad)
            for name, tensor in [*sections[0], *sections[3]]:
                view = self.values[self.slices[name]].view(tensor.shape)
                view.copy_(tensor)
                _rebind(model, tensor, view)
        self._counts = [(tensor, tensor.clone()) for tensor in model.buffers() if not tensor.is_floating_point()]

    @property
    def size(self) -> int:
        """Values that travel, padding included."""
        return self.shared.stop - self.shared.start

    @property
    def count(self) -> int:
        """Trained parameters, padding excluded."""
        return sum(parameter.numel() for parameter in self.parameters)

    def gradient(self, loss: Tensor) -> list[Tensor]:
        """Gradients of the trained parameters, in their order; zeros for one that the loss does not reach."""
        return list(torch.autograd.grad(loss, self.parameters, materialize_grads=True))

    def write(self, gradients: Iterable[Tensor]) -> None:
        """Lay gradients into `grads`."""
        torch._foreach_copy_(self.grad_views, list(gradients))

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The tensors that travel, by name, as views of a vector `(size,)` laid out like `values[shared]`."""
        start = self.shared.start
        shapes = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return {
            name: vector[here.start - start : here.stop - start].view(shapes[name].shape)
            for name, here in self.slices.items()
            if here.start >= start
        }

    def restore(self) -> None:
        """Integer buffers as they were when the model was built."""
        for tensor, kept in self._counts:
            tensor.copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The model under its own names, every tensor a contiguous copy on the host."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}


def _rebind(model: nn.Module, tensor: Tensor, view: Tensor) -> None:
    """Put `view` wherever the model holds the buffer `tensor` (modules may share one)."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer is tensor:
                setattr(module, name, view)


def keep_home(names: Collection[str]) -> Callable[[str], bool]:
    """A `private` that keeps tensors whose name begins with one of `names` (a module's path, or a tensor's)."""
    return lambda name: any(name == prefix or name.startswith(prefix + ".") for prefix in names)
