"""A model's tensors and gradients as views of two vectors: trained values are a slice, shared ones another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedmpi.flat.bound import Bound
from fedmpi.flat.constants import Constants
from fedmpi.flat.fates import Fate, fates, lies
from fedmpi.flat.places import places, refuse_shared_memory
from fedmpi.flat.scratch import Scratch
from fedmpi.flat.whole import Whole
from fedmpi.flat.zeros import zeros
from fedmpi.job import JobError

ALIGNMENT = 64  # bytes: every tensor begins on a cache line


class FlatModel:
    """A model with parameters and floating buffers as views of `values`, and gradients in `grads`.

    `values` is `[private buffers | private trained | shared trained | shared buffers]`, each tensor on a 64-byte
    boundary with zeros between.  `trained` is the slice changed by training, `shared` the travelling one.
    `private(name)` is True for a tensor left with each client.  Frozen parameters and buffers of whole numbers stay out
    of the vector: `fates` says it of each tensor, by its first name.
    `restore()` keeps clients served one after another from seeing each other.
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
        self.fates = fates(self.model, private)
        tensors = {place.name: place.tensor for _, place in places(self.model)}
        parameters = {place.name for kind, place in places(self.model) if kind == "parameter"}
        laid = [pair for pair in tensors.items() if lies(self.fates[pair[0]], pair[1])]
        sections = [
            [pair for pair in laid if bool(private(pair[0])) is own and (pair[0] in parameters) is trained]
            for own, trained in ((True, False), (True, True), (False, True), (False, False))
        ]
        step = ALIGNMENT // dtype.itemsize
        ends, at = [], 0
        self.slices: dict[str, slice] = {}
        for section in sections:
            for name, tensor in section:
                self.slices[name] = slice(at, at + tensor.numel())
                at += -(-tensor.numel() // step) * step
            ends.append(at)
        self.values = zeros(at, dtype, self.device)
        self.trained = slice(ends[0], ends[2])
        self.shared = slice(ends[1], at)
        self.grads = zeros(ends[2] - ends[0], dtype, self.device)
        self._cut({name: tensor.shape for name, tensor in laid})
        self.views = [self._view(name, tensor) for name, tensor in [*sections[1], *sections[2]]]
        self.places = [
            (slice(self.slices[name].start - ends[0], self.slices[name].stop - ends[0]), tensor.shape)
            for name, tensor in [*sections[1], *sections[2]]
        ]
        self.grad_views = self.pieces(self.grads)
        self.parameters = [tensor for _, tensor in [*sections[1], *sections[2]]]
        views = dict(zip([name for name, _ in [*sections[1], *sections[2]]], self.views, strict=True))
        views |= {name: self._view(name, tensor) for name, tensor in [*sections[0], *sections[3]]}
        self._hold(views)

    def _cut(self, shapes: Mapping[str, torch.Size]) -> None:
        """Note how a vector like `values[shared]` is cut into tensors, with what lies between them."""
        self.cuts: list[int] = []
        self.named_parts: list[tuple[str, int, torch.Size]] = []
        at = self.shared.start
        for name, here in self.slices.items():
            if here.start < self.shared.start:
                continue
            self.cuts += [here.start - at, here.stop - here.start]
            self.named_parts.append((name, len(self.cuts) - 1, shapes[name]))
            at = here.stop
        self.cuts.append(self.shared.stop - at)

    def _view(self, name: str, tensor: Tensor) -> Tensor:
        view = self.values[self.slices[name]].view(tensor.shape)
        with torch.no_grad():
            view.copy_(tensor)
        return view

    def _hold(self, views: dict[str, Tensor]) -> None:
        """Bind the tensors of the vector, and take note of everything beside it in the module."""
        fate = self.fates
        beside = [(kind, place) for kind, place in places(self.model) if place.name not in views]
        self.whole = Whole([place for _, place in beside if fate[place.name] is Fate.COUNTED])
        self.scratch = Scratch(self.model, [place for _, place in beside if fate[place.name] is Fate.SCRATCH])
        tensors = {place.name: place.tensor for _, place in places(self.model)}
        refuse_shared_memory([*tensors.items(), *self.scratch.attributes()], views.__contains__)
        passing = [name for name in views if fate[name] is Fate.SCRATCH]
        self.bound = Bound(self.model, views, passing)
        self.constants = Constants([(kind, place) for kind, place in beside if fate[place.name] is Fate.CONSTANT])
        self.passing = [self.slices[name] for name in passing]

    @property
    def size(self) -> int:
        """Return the number of shared values, padding included."""
        return self.shared.stop - self.shared.start

    @property
    def count(self) -> int:
        """Return the number of trained values, padding excluded."""
        return sum(parameter.numel() for parameter in self.parameters)

    @property
    def moving(self) -> list[Tensor]:
        """Return the tensors beside the trained ones that the module's code may change in place."""
        buffers = [place.tensor for place, _, _, trained in self.bound.entries if not trained]
        return buffers + [owners[0].tensor for owners in self.whole.buffers]

    def gradient(self, loss: Tensor) -> list[Tensor]:
        """Return the gradients of the trained parameters, in their order; zeros for one out of the loss's reach."""
        try:
            return list(torch.autograd.grad(loss, self.parameters, materialize_grads=True))
        except RuntimeError:
            for name, parameter in self.model.named_parameters():
                if name in self.slices and not parameter.requires_grad:
                    raise JobError(
                        f"model: its parameter {name!r} was frozen while a client trained; freeze it in __init__, so "
                        "that it does not travel"
                    ) from None
            raise

    def pieces(self, vector: Tensor) -> list[Tensor]:
        """Return the trained tensors, in the order of `parameters`, as views of a vector `(trained,)`."""
        return [vector[here].view(shape) for here, shape in self.places]

    def write(self, gradients: Iterable[Tensor]) -> None:
        """Lay gradients into `grads`."""
        torch._foreach_copy_(self.grad_views, list(gradients))

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the shared tensors, by name, as views of a vector `(size,)` laid out like `values[shared]`."""
        parts = torch.split(vector, self.cuts)
        return {name: parts[place].view(shape) for name, place, shape in self.named_parts}

    def restore(self) -> None:
        """Bind every tensor to its view again, and put back all beside the vector as received: for the next client."""
        self.bound.restore()
        self.whole.restore()
        self.scratch.restore()

    def note(self) -> None:
        """Take everything beside the vector, as it is now, for every client's start."""
        self.whole.received = self.whole.values()
        self.constants.note()
        self.scratch.note()

    def take_over(self) -> None:
        """Copy tensors laid elsewhere by a step of the module's code into the vector, and bind them again."""
        self.bound.take_over()

    def check(self) -> None:
        """Raise JobError, naming the tensor, for a change by a client's training out of any round's reach."""
        self.bound.take_over()
        self.constants.check()
        self.scratch.check()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Put the model back after its use: its values in place, its buffers, its counts."""
        ends = self.values[: self.trained.start], self.values[self.trained.stop :]
        buffers, counts = [end.clone() for end in ends], self.whole.values()
        received, self.whole.received = self.whole.received, counts
        loose = self.scratch.integers
        self.scratch.note()
        try:
            yield
        finally:
            with torch.no_grad():
                for end, buffer in zip(ends, buffers, strict=True):
                    end.copy_(buffer)
            self.restore()
            self.whole.received, self.scratch.integers = received, loose

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the module, by name: parameters, then buffers, persistent or not."""
        return dict(self.model.named_parameters()) | dict(self.model.named_buffers())

    def name(self, place: int) -> str | None:
        """Return the name of the tensor at a place of the shared values `(size,)`; None between tensors."""
        at = self.shared.start + place
        return next((name for name, here in self.slices.items() if here.start <= at < here.stop), None)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the model's tensors under its own names, each a contiguous copy on the host."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}


def keep_private(names: Collection[str]) -> Callable[[str], bool]:
    """Return a `private` for tensors with names that begin with one of `names` (a module's path, or a tensor's)."""
    return lambda name: any(name == prefix or name.startswith(prefix + ".") for prefix in names)
