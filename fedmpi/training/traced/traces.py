"""What the code of a module leaves behind in Python, which no recording holds."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedmpi.flat import OWN, places

PLAIN = (bool, int, float, complex, str, bytes, tuple)


class Traces:
    """The places, attributes and generators of a module as they are now: what is left behind can be told and undone.

    Of a list, a dict or a set among the attributes its own members count, not theirs.
    """

    def __init__(self, model: nn.Module) -> None:
        self.places = [(place, place.tensor, place.tensor.data_ptr()) for _, place in places(model)]
        self.attributes = [
            (prefix, module, {key: (value, _copied(value)) for key, value in _own(module).items()})
            for prefix, module in model.named_modules()
        ]
        self.held = [
            (prefix, module, dict(module._buffers), _inner(module)) for prefix, module in model.named_modules()
        ]
        self.generators = random.getstate(), np.random.get_state(legacy=True)

    def left(self) -> str | None:
        """Return what was left behind since, in words; None for nothing."""
        for place, tensor, at in self.places:
            if place.now is not tensor or tensor.data_ptr() != at:
                return f"it lays {place.name!r} elsewhere"
        for prefix, module, before in self.attributes:
            now = _own(module)
            for key in now.keys() | before.keys():
                if key not in now or key not in before or not _same(*before[key], now[key]):
                    return f"it changes {f'{prefix}.{key}' if prefix else key!r}"
        for prefix, module, buffers, inner in self.held:
            now = module._buffers
            filled = [
                key for key in now.keys() | buffers.keys() if (now.get(key) is None) != (buffers.get(key) is None)
            ]
            came = [*filled, *(_inner(module) ^ inner)]
            if came:
                return f"it changes {f'{prefix}.{came[0]}' if prefix else came[0]!r}"
        if not self._undrawn():
            return "it draws from Python's or NumPy's generator"
        return None

    def undo(self) -> None:
        """Put attributes and generators back as they were; tensors in their places are others' to put back."""
        for _, module, before in self.attributes:
            attributes = vars(module)
            for key in _own(module).keys() - before.keys():
                del attributes[key]
            for key, (value, copy) in before.items():
                if isinstance(value, Tensor) and value._version != copy[0]:
                    with torch.no_grad():
                        value.copy_(copy[1])
                elif isinstance(value, list) and not _members(value, copy):
                    value[:] = copy
                elif isinstance(value, (dict, set)) and not _members(value, copy):
                    value.clear()
                    value.update(copy)
                if attributes.get(key, attributes) is not value:
                    attributes[key] = value
        for _, module, buffers, _ in self.held:
            now = module._buffers
            for key in now.keys() - buffers.keys():
                del now[key]
            for key, buffer in buffers.items():
                if (now.get(key) is None) != (buffer is None):
                    now[key] = buffer
        if not self._undrawn():
            random.setstate(self.generators[0])
            np.random.set_state(self.generators[1])

    def _undrawn(self) -> bool:
        """Return whether nothing was drawn since."""
        (_, words, *rest), (_, before, *others) = np.random.get_state(legacy=True), self.generators[1]
        return random.getstate() == self.generators[0] and rest == others and np.array_equal(words, before)


def _own(module: nn.Module) -> dict[str, Any]:
    """Return a module's attributes but for torch's own."""
    return {key: value for key, value in vars(module).items() if key not in OWN}


def _inner(module: nn.Module) -> set[str]:
    """Return the names of a module's own parameters and modules."""
    return module._parameters.keys() | module._modules.keys()


def _copied(value: Any) -> Any:
    """Return what tells of a change in place, and undoes it."""
    if isinstance(value, Tensor):
        return value._version, value.detach().clone()
    return value.copy() if type(value) in (list, dict, set) else None


def _same(before: Any, copy: Any, now: Any) -> bool:
    if isinstance(before, Tensor):
        return now is before and now._version == copy[0]
    if now is before:
        return copy is None or _members(now, copy)
    return type(now) is type(before) and isinstance(now, PLAIN) and bool(now == before)


def _members(now: Any, copy: Any) -> bool:
    """Return whether a list, a dict or a set has the members of a copy of it, these very ones or plain equals."""
    if len(now) != len(copy):
        return False
    if isinstance(now, set):
        return bool(now == copy)
    pairs = zip(now, copy, strict=True) if isinstance(now, list) else ((now.get(key, copy), copy[key]) for key in copy)
    return all(
        one is other or (type(one) is type(other) and isinstance(one, PLAIN) and bool(one == other))
        for one, other in pairs
    )
