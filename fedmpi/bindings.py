"""What a module's tensors are bound to: user code may rebind, replace or move any of them, and none of it goes unseen.

A tensor that is trained or averaged is a view of the flat vector.  One that does not travel is taken to be constant;
small whole-number buffers (a BatchNorm's count, a flag) have a rule of their own, since they do change.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmpi.job import JobError

RIDES = 1024  # values of a whole-number buffer that changes: a larger one has to stay as it is
LOOKED = 2**20  # values of a constant that are looked at after every client: a larger one's once in a launch
OWN = frozenset(vars(nn.Module()))  # what torch keeps of a module: `training`, its dicts, its hooks
COUNTED = "num_batches_tracked"  # BatchNorm's own: a count, whatever it looks like


@dataclass(eq=False)
class Place:
    """Where a module holds a tensor: `holder[key]`, one of its dicts; `name` is the tensor's, dots and all."""

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
    """Every place of a parameter ("parameter") or buffer ("buffer"), under the first name of what it holds."""
    names: dict[int, str] = {}
    for prefix, module in model.named_modules():
        for kind, holder in (("parameter", module._parameters), ("buffer", module._buffers)):
            for key, tensor in holder.items():
                if tensor is not None:
                    name = names.setdefault(id(tensor), f"{prefix}.{key}" if prefix else key)
                    kept = key not in module._non_persistent_buffers_set or kind == "parameter"
                    yield kind, Place(name, holder, key, tensor, kept)


class Bound:
    """Tensors of a module that are views of a vector; `views` says which, by name.

    `take_over` follows a step of the module's own code: what was laid elsewhere is copied in and bound again.
    `restore` drops it instead.  A buffer that is not persistent is scratch: it is restored, never taken over.
    """

    def __init__(self, model: nn.Module, views: Mapping[str, Tensor]) -> None:
        entries: list[tuple[Place, Tensor, int, bool]] = []
        bound: dict[str, Tensor] = {}
        owners: dict[str, int] = {}
        for kind, place in list(places(model)):
            view = views.get(place.name)
            if view is None:
                continue
            trained = kind == "parameter"
            if trained:
                place.tensor.data = view
            else:
                # `.data` has a version counter of its own: two buffers of one vector do not disturb each other.
                place.tensor = bound.setdefault(place.name, view.data)
                place.put_back()
            owners[place.name] = owners.get(place.name, 0) + 1
            entries.append((place, view, view.data_ptr(), trained))
        self.shared = {name for name, count in owners.items() if count > 1}
        self.entries = [entry for entry in entries if entry[1].numel()]
        # What is looked at in every step, as bare as can be.
        self.looks = [
            (place.holder, place.key, place.tensor, at, place, view, trained)
            for place, view, at, trained in self.entries
            if trained or place.persistent
        ]

    def take_over(self) -> None:
        """Copy what module code has laid elsewhere into the vector, and bind it again.

        JobError, naming the tensor, where it cannot be: a parameter replaced by another, a shape or type that changed.
        """
        for holder, key, tensor, at, place, view, trained in self.looks:
            now = holder.get(key)
            if now is tensor and tensor.data_ptr() == at:
                continue
            laid = self._fitting(place, now, view, trained)
            with torch.no_grad():
                view.copy_(laid.detach())
            self._bind(place, view, trained)

    def restore(self) -> None:
        """Bind every tensor again, with what the vector says; what module code laid elsewhere is dropped."""
        for place, view, at, trained in self.entries:
            if place.now is not place.tensor or place.tensor.data_ptr() != at:
                self._bind(place, view, trained)

    @staticmethod
    def _bind(place: Place, view: Tensor, trained: bool) -> None:
        place.tensor.data = view if trained else view.data
        place.put_back()

    def _fitting(self, place: Place, now: Any, view: Tensor, trained: bool) -> Tensor:
        """What lies at a place now, if the vector can take it; JobError where not."""
        if trained and now is not place.tensor:
            raise JobError(
                f"model: its parameter {place.name!r} was replaced by another while a client trained, and no "
                f"optimiser would know that one; change it in place: with torch.no_grad(): self.{place.key}.copy_(...)"
            )
        kind = "parameter" if trained else "buffer"
        if not isinstance(now, Tensor):
            raise JobError(f"model: its {kind} {place.name!r} became {_said(now)}; it should stay a tensor")
        if now.shape != view.shape:
            raise JobError(
                f"model: its {kind} {place.name!r} had the shape {tuple(view.shape)} and has {tuple(now.shape)} after "
                f"a client trained; what is averaged cannot change its shape"
                + ("" if trained else " (register what is no part of the model with persistent=False)")
            )
        if now.dtype != view.dtype and (trained or not now.is_floating_point()):
            raise JobError(f"model: its {kind} {place.name!r} was {view.dtype} and became {now.dtype}; keep its type")
        if place.name in self.shared and now is not place.tensor:
            raise JobError(
                f"model: its {kind} {place.name!r} belongs to several modules, and one of them replaced it; change it "
                f"in place: self.{place.key}.copy_(...)"
            )
        return now


class Constants:
    """Tensors that do not travel and must stay as they are: frozen parameters, large whole-number buffers."""

    def __init__(self, kept: Sequence[tuple[str, Place]]) -> None:
        self.kept = list(kept)
        self.note()

    def note(self) -> None:
        """Take what they hold now for what they should hold."""
        self.looked = False
        self.marks = [(place.tensor.data_ptr(), place.tensor._version) for _, place in self.kept]
        self.sums: list[Any] = [_sum(place.tensor) for _, place in self.kept]

    def check(self) -> None:
        """JobError, naming it, where one has moved; of large ones the values are looked at once in a launch."""
        for at, ((kind, place), mark, total) in enumerate(zip(self.kept, self.marks, self.sums, strict=True)):
            now = place.now
            if isinstance(now, Tensor) and not (kind == "parameter" and now.requires_grad):
                same = now is place.tensor and (now.data_ptr(), now._version) == mark
                if same and self.looked and now.numel() > LOOKED:
                    continue
                if _sum(now) == total:
                    place.tensor, self.marks[at] = now, (now.data_ptr(), now._version)
                    continue
            what = "is frozen (requires_grad = False)" if kind == "parameter" else f"holds more than {RIDES:,} integers"
            way = "make it a buffer, which is averaged" if kind == "parameter" else "make it one of floating numbers"
            raise JobError(
                f"model: its {kind} {place.name!r} {what} and so does not travel, but it changed while a client "
                f"trained; {way}, or leave it as it is"
            )
        self.looked = True


class Whole:
    """Small buffers of whole numbers, `(values,)` int64 laid end to end: how they change, and what that means.

    `received` is what the broadcast said, and every client begins with it.
    """

    def __init__(self, kept: Sequence[Place]) -> None:
        unique: dict[str, list[Place]] = {}
        for place in kept:
            unique.setdefault(place.name, []).append(place)
        self.kept = list(unique.values())
        ends = [0, *itertools.accumulate(owners[0].tensor.numel() for owners in self.kept)]
        self.spans = [slice(*pair) for pair in itertools.pairwise(ends)]
        self.size = ends[-1]
        for owners in self.kept:
            if not owners[0].tensor.is_contiguous():  # one that was expanded cannot be written to
                dense = owners[0].tensor.contiguous()
                for place in owners:
                    place.tensor = dense
                    place.put_back()
        self.kinds = [(owners[0].tensor.shape, owners[0].tensor.dtype) for owners in self.kept]
        self.received = self.values()

    def values(self) -> Tensor:
        """What they hold now `(values,)`, on the host.  JobError where one is of another shape or type."""
        parts = []
        for owners, (shape, dtype) in zip(self.kept, self.kinds, strict=True):
            for place in owners:
                now = place.now
                if not isinstance(now, Tensor) or now.shape != shape or now.dtype != dtype:
                    raise JobError(
                        f"model: its buffer {place.name!r} was {dtype} of shape {tuple(shape)} and became "
                        f"{_said(now)} while a client trained; keep its type and shape"
                    )
            changed = next((place.now for place in owners if place.now is not place.tensor), owners[0].now)
            parts.append(changed.detach().reshape(-1).to(torch.int64))
        return torch.cat(parts).cpu() if parts else torch.zeros(0, dtype=torch.int64)

    def restore(self) -> None:
        """Every client begins with what was received."""
        for owners, span in zip(self.kept, self.spans, strict=True):
            tensor = owners[0].tensor
            with torch.no_grad():
                tensor.copy_(self.received[span].view(tensor.shape))
            for place in owners:
                place.put_back()

    def changes(self, forwards: int, examples: int) -> Tensor:
        """How far they have moved from what was received `(values,)`, after so many training passes over examples.

        JobError, naming it, for a change that is no count and sets no flag: there is no way to add it up.
        """
        if not self.size:
            return self.received
        changed = self.values() - self.received
        for owners, span in zip(self.kept, self.spans, strict=True):
            moved, name = changed[span], owners[0].name
            if not moved.any():
                continue
            total = int(moved.sum())
            ones = bool((moved <= 1).all())
            sets = ones and bool((self.received[span][moved > 0] == 0).all())
            counts = any(total % unit == 0 for unit in (forwards, examples) if unit > 1) or (ones and forwards == 1)
            flag = owners[0].tensor.dtype is torch.bool
            if (moved < 0).any() or not (sets or (counts and not flag) or COUNTED in name):
                before, after = self.received[span].tolist(), (self.received[span] + moved).tolist()
                raise JobError(
                    f"model: its buffer {name!r} went from {_few(before)} to {_few(after)} while a client trained; of "
                    "whole numbers a count (so many for each batch or example) is added up over clients and a flag "
                    "once set stays set, and this is neither: keep it as it was, register it with persistent=False, "
                    "or make it one of floating numbers, which is averaged"
                )
        return changed

    def merged(self, changes: NDArray[Any], clients: NDArray[Any]) -> NDArray[np.int64]:
        """What they come to `(values,)` after a round: `changes` summed over clients, and how many `clients` made one.

        Where each of them took a 0 to 1 it is a flag, and set; else a count, and the changes are added up.
        """
        before = self.received.numpy()
        merged: NDArray[np.int64] = before + changes.astype(np.int64)
        for owners, span in zip(self.kept, self.spans, strict=True):
            moved = changes[span] > 0
            sets = (before[span] == 0) & (changes[span] == clients[span])
            if COUNTED not in owners[0].name and sets[moved].all():
                merged[span][moved] = 1
            tensor = owners[0].tensor
            most = 1 if tensor.dtype is torch.bool else torch.iinfo(tensor.dtype).max
            if (merged[span] > most).any():
                raise JobError(
                    f"model: its buffer {owners[0].name!r} came to more than {most}, which {tensor.dtype} cannot hold"
                )
        return merged

    def told(self, before: NDArray[Any], after: NDArray[Any]) -> tuple[list[str], list[str]]:
        """Names of the counts and of the flags that a round has moved, BatchNorm's own counts aside."""
        counts: list[str] = []
        flags: list[str] = []
        for owners, span in zip(self.kept, self.spans, strict=True):
            if (before[span] != after[span]).any() and COUNTED not in owners[0].name:
                sets = ((before[span] == 0) & (after[span] == 1))[before[span] != after[span]].all()
                (flags if sets else counts).append(owners[0].name)
        return counts, flags


class Scratch:
    """What a module keeps beside its parameters and persistent buffers: as it was, for every client.

    That is: buffers of whole numbers that are not persistent, buffers that are not there yet, and plain attributes,
    tensors or not (what lies inside a list or a dict is not looked at).  A client must not see what another's examples
    left there.  torch's own modules keep nothing so.
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
        """Take what the buffers hold now for what every client begins with."""
        self.integers = [(place, place.tensor.clone()) for place in self.loose]

    def attributes(self) -> Iterator[tuple[str, Tensor]]:
        """Tensors that are plain attributes, by name; a parameter under another name stays what it is."""
        for (prefix, _), first, tensors in zip(self.modules, self.first, self.tensors, strict=True):
            for key in tensors:
                if not isinstance(first[key], nn.Parameter):
                    yield (f"{prefix}.{key}" if prefix else key), first[key]

    def switched(self) -> list[str]:
        """Names of plain attributes that say True now and did not: what one client began, none other would know."""
        return [
            f"{prefix}.{key}" if prefix else key
            for (prefix, module), first in zip(self.modules, self.first, strict=True)
            for key, value in module.__dict__.items()
            if value is True and first.get(key) is not True and key not in OWN
        ]

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
        """JobError, naming it, for a parameter, module or persistent buffer that came while a client trained."""
        for (prefix, module), (parameters, buffers, children) in zip(self.modules, self.keys, strict=True):
            came = [key for key in module._parameters if key not in parameters]
            came += [key for key in module._modules if key not in children]
            if came:
                name = f"{prefix}.{came[0]}" if prefix else came[0]
                raise JobError(
                    f"model: {name!r} came while a client trained, and no optimiser knows it; make it in __init__"
                )
            for key, value in module._buffers.items():
                kept = key not in module._non_persistent_buffers_set
                if kept and value is not None and buffers.get(key) is None:
                    name = f"{prefix}.{key}" if prefix else key
                    raise JobError(
                        f"model: its buffer {name!r} was filled while a client trained; give it its shape in __init__, "
                        "or register it with persistent=False where it is no part of the model"
                    )


def rides(tensor: Tensor) -> bool:
    """A buffer of whole numbers small enough to ride beside the vector."""
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.numel() <= RIDES


def refuse_shared_memory(tensors: Sequence[tuple[str, Tensor]], bound: Callable[[str], bool]) -> None:
    """Refuse tensors that overlap in memory without being one: laid into a vector they would part, and say nothing."""
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


def _sum(tensor: Tensor) -> Any:
    """A sum of a tensor's bits in two ways, exact and quick: what moves changes one of them."""
    if not tensor.numel():
        return 0
    flat = tensor.detach().contiguous().view(-1)
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(flat.itemsize)
    bits = flat.view(torch.uint8 if kind is None else kind)
    rows = bits[: len(bits) // 64 * 64].view(-1, 64)
    return bits.sum(dtype=torch.int64).item(), rows.sum(0, dtype=torch.int64).tolist()


def _few(values: list[int]) -> str:
    return ", ".join(map(str, values[:4])) + (", ..." if len(values) > 4 else "")


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"
