"""The places of a module's tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fedmpi.job import JobError


@dataclass(eq=False)
class Place:
    """The place of a tensor in a module: `holder[key]`, one of its dicts; `name` is the tensor's, dots and all."""

    name: str
    holder: dict[str, Any]
    key: str
    tensor: Tensor
    persistent: bool = True

    @property
    def now(self) -> Any:
        return self.holder.get(self.key)

    def put_back(self) -> None:
        if self.holder.get(self.key) is not self.tensor:
            self.holder[self.key] = self.tensor


def places(model: nn.Module) -> Iterator[tuple[str, Place]]:
    """Yield every place of a parameter ("parameter") or buffer ("buffer"), under its tensor's first name."""
    names: dict[int, str] = {}
    for prefix, module in model.named_modules():
        for kind, holder in (("parameter", module._parameters), ("buffer", module._buffers)):
            for key, tensor in holder.items():
                if tensor is not None:
                    name = names.setdefault(id(tensor), f"{prefix}.{key}" if prefix else key)
                    persistent = key not in module._non_persistent_buffers_set or kind == "parameter"
                    yield kind, Place(name, holder, key, tensor, persistent)


def refuse_shared_memory(tensors: Sequence[tuple[str, Tensor]], bound: Callable[[str], bool]) -> None:
    """Refuse tensors with overlapping memory, unless they are one: laid into a vector they would silently part."""
    ranges = []
    for name, tensor in tensors:
        if tensor.numel() and not tensor.is_meta:
            start = tensor.data_ptr()
            reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
            ranges.append((start, start + reach * tensor.itemsize, name))
    ranges.sort()
    for (_, stop, name), (start, _, other) in itertools.pairwise(ranges):
        if start < stop and (bound(name) or bound(other)):
            raise JobError(
                f"model: {name!r} and {other!r} lie in the same memory; make them one parameter (self.b = self.a), or "
                "give one of them memory of its own (.clone())"
            )


def described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"
