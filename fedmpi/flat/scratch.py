"""The scratch of a module beside its tensors: no client sees the traces of another's examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fedmpi.flat.places import Place
from fedmpi.job import JobError

OWN = frozenset(vars(nn.Module()))  # torch's own of a module: `training`, its dicts, its hooks


class Scratch:
    """The values of a module beside its parameters and persistent buffers, put back for every client.

    These are buffers of whole numbers without persistence, buffers not there yet, and plain attributes, tensors or not
    (the insides of a list or a dict are not looked at).  A client must not see the traces of another's examples.
    torch's own modules keep nothing so.
    """

    def __init__(self, model: nn.Module, integers: Sequence[Place]) -> None:
        self.loose = list(integers)
        self.note()
        self.modules = [
            (prefix, module)
            for prefix, module in model.named_modules()
            if not type(module).__module__.startswith("torch.nn.modules.")
        ]
        self.first = [dict(module.__dict__) for _, module in self.modules]
        self.tensors = [
            {key: (value._version, value.detach().clone()) for key, value in first.items() if isinstance(value, Tensor)}
            for first in self.first
        ]
        self.keys = [
            (set(module._parameters), dict(module._buffers), set(module._modules)) for _, module in self.modules
        ]

    def note(self) -> None:
        """Take the buffers' values of now for every client's start."""
        self.integers = [(place, place.tensor.clone()) for place in self.loose]

    def attributes(self) -> Iterator[tuple[str, Tensor]]:
        """Yield plain attributes with a tensor, by name; a parameter under another name is left out."""
        for (prefix, _), first, tensors in zip(self.modules, self.first, self.tensors, strict=True):
            for key in tensors:
                if not isinstance(first[key], nn.Parameter):
                    yield (f"{prefix}.{key}" if prefix else key), first[key]

    def switched(self) -> list[str]:
        """Return names of plain attributes turned True: one client began something unknown to the others."""
        return [
            f"{prefix}.{key}" if prefix else key
            for (prefix, module), first in zip(self.modules, self.first, strict=True)
            for key, value in module.__dict__.items()
            if value is True and first.get(key) is not True and key not in OWN
        ]

    def moved(self) -> str | None:
        """Return the name of an attribute or a buffer that is not as every client begins with it; None for none."""
        for (prefix, module), first, tensors, keys in zip(
            self.modules, self.first, self.tensors, self.keys, strict=True
        ):
            attributes = module.__dict__
            names = {key for key in attributes.keys() | first.keys() if key not in OWN}
            changed = [key for key in names if attributes.get(key, self) is not first.get(key, self)]
            changed += [key for key, (version, _) in tensors.items() if first[key]._version != version]
            changed += [
                key for key, value in module._buffers.items() if (value is None) is not (keys[1].get(key) is None)
            ]
            if changed:
                return f"{prefix}.{changed[0]}" if prefix else changed[0]
        loose = (
            place.name
            for place, value in self.integers
            if place.now is not place.tensor or not torch.equal(place.tensor, value)
        )
        return next(loose, None)

    def restore(self) -> None:
        for place, value in self.integers:
            if place.now is not place.tensor or not torch.equal(place.tensor, value):
                place.tensor.data = value.clone()
                place.put_back()
        for (_, module), first, tensors, keys in zip(self.modules, self.first, self.tensors, self.keys, strict=True):
            buffers = keys[1]
            for key in [key for key in module._buffers if key not in buffers]:
                del module._buffers[key]
            for key, value in buffers.items():
                if value is None and module._buffers.get(key) is not None:
                    module._buffers[key] = None
            attributes = module.__dict__
            for key in [key for key in attributes if key not in first and key not in OWN]:
                del attributes[key]
            for key, (version, value) in tensors.items():
                if first[key]._version != version:  # changed in place
                    first[key] = value.clone()
                    tensors[key] = (first[key]._version, value)
            for key, value in first.items():
                if attributes.get(key, attributes) is not value and key not in OWN:
                    attributes[key] = value

    def check(self) -> None:
        """Raise JobError, naming it, for a parameter, module or persistent buffer new since a client trained."""
        for (prefix, module), (parameters, buffers, children) in zip(self.modules, self.keys, strict=True):
            came = [key for key in module._parameters if key not in parameters]
            came += [key for key in module._modules if key not in children]
            if came:
                name = f"{prefix}.{came[0]}" if prefix else came[0]
                raise JobError(
                    f"model: {name!r} came while a client trained, and no optimiser knows it; make it in __init__"
                )
            for key, value in module._buffers.items():
                persistent = key not in module._non_persistent_buffers_set
                if persistent and value is not None and buffers.get(key) is None:
                    name = f"{prefix}.{key}" if prefix else key
                    raise JobError(
                        f"model: its buffer {name!r} was filled while a client trained; give it its shape in __init__, "
                        "or register it with persistent=False where it is no part of the model"
                    )
