"""What becomes of every tensor of a model in a round: said here, once, of all of them."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from torch import Tensor, nn

from fedmpi.flat.places import places

RIDES = 1024  # values of a whole-number buffer that changes: a larger one has to stay as it is


class Fate(Enum):
    """The fate of a tensor; its word, as the README has it."""

    TRAINED = "trained"  # a parameter in the vector, under the optimiser; its updates are summed
    AVERAGED = "averaged"  # a floating buffer in the vector, behind them; its updates are summed
    PRIVATE = "private"  # either of these in the vector's part that is each client's own and never sent
    COUNTED = (
        "counted"  # a small buffer of whole numbers, a count or flag: home's go out in the header, changes come back
    )
    CONSTANT = "constant"  # a frozen parameter or large buffer of whole numbers: home's at the start, and must not move
    SCRATCH = "scratch"  # a buffer without persistence, no part of the model: every client begins with it as it was


IN_VECTOR = frozenset({Fate.TRAINED, Fate.AVERAGED, Fate.PRIVATE})


def fates(model: nn.Module, private: Callable[[str], bool] = lambda name: False) -> dict[str, Fate]:
    """Return the fate of every parameter and buffer, by its first name in the module.

    A tensor at several places has one fate: a parameter's where it is one anywhere, and one without persistence is
    scratch only if no place has it in the `state_dict`.
    """
    tensors: dict[str, Tensor] = {}
    parameters: set[str] = set()
    persistent: set[str] = set()
    for kind, place in places(model):
        tensors.setdefault(place.name, place.tensor)
        parameters |= {place.name} if kind == "parameter" else set()
        persistent |= {place.name} if place.persistent else set()

    def fate(name: str, tensor: Tensor) -> Fate:
        parameter = name in parameters
        if name not in persistent:
            return Fate.SCRATCH
        if tensor.requires_grad if parameter else tensor.is_floating_point():
            return Fate.PRIVATE if private(name) else Fate.TRAINED if parameter else Fate.AVERAGED
        small = tensor.numel() <= RIDES and not tensor.is_complex()
        return Fate.COUNTED if small and not parameter else Fate.CONSTANT

    return {name: fate(name, tensor) for name, tensor in tensors.items()}


def lies(fate: Fate, tensor: Tensor) -> bool:
    """Return whether a tensor lies in the flat vector: scratch of floating numbers does too, and its update is zero."""
    return fate in IN_VECTOR or (fate is Fate.SCRATCH and tensor.is_floating_point())
