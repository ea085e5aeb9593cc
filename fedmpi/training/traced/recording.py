"""A step of training as the calls of ATen that it comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fedmpi.training.traced.traces import Traces

ALIASES = {"aten.detach.default", "aten.alias.default", "aten.lift_fresh.default"}  # another name of the same memory


class Slot(NamedTuple):
    """A tensor of a step, by its number."""

    number: int


@dataclass(frozen=True)
class Call:
    """One call of a function of ATen: slots stand for the tensors among its arguments and results.

    A result that is no tensor is None; `many`: the function returns several.
    """

    function: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    results: tuple[Slot | None, ...]
    many: bool

    def renamed(self, names: Mapping[Slot, Slot]) -> Call:
        """Return the same call with other slots for some of its arguments."""
        if not any(slot in names for slot in self.slots):
            return self
        options = {name: _renamed(value, names) for name, value in self.options.items()}
        return Call(self.function, _renamed(self.arguments, names), options, self.results, self.many)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The slots among its arguments."""
        return tuple(_slots((self.arguments, tuple(self.options.values()))))


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes down every call of ATen while it is entered; the calls are made as always.

    The first slots are those of `given`, in their order.  `outer` are the tensors that came from elsewhere, by slot.
    `reason` says why the calls cannot stand for the step, where they cannot.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and skipping that would import torch's compiler, in 2 s

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.outer: dict[Slot, Tensor] = {}
        self.versions: dict[Slot, int] = {}
        self.reason: str | None = None
        self.shapes: list[tuple[Any, ...]] = []  # of each slot
        self._slots: dict[int, Slot] = {}
        self._alive: list[Tensor] = []  # the id of a tensor stays its own
        for tensor in given:
            self._new(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        arguments = self._slotted(args)
        named = {name: self._slotted(value) for name, value in options.items()}
        result = func(*args, **options)
        if torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
            self.reason = self.reason or f"it looks at values ({func})"
        if str(func) in ALIASES or (func.is_view and _unmoved(args[0], result)):
            self._slots[id(result)] = arguments[0]
            self._alive.append(result)
            return result
        many = isinstance(result, (tuple, list))
        results = tuple(
            self.slot(one, made=True) if isinstance(one, Tensor) else None for one in (result if many else (result,))
        )
        self.calls.append(Call(func, arguments, named, results, many))
        return result

    def slot(self, tensor: Tensor, made: bool = False) -> Slot:
        """Return the slot of a tensor; where no call `made` it, it came from elsewhere."""
        slot = self._slots.get(id(tensor))
        if slot is None:
            slot = self._new(tensor)
            if not made:
                self.outer[slot], self.versions[slot] = tensor, tensor._version
        return slot

    def _new(self, tensor: Tensor) -> Slot:
        slot = self._slots[id(tensor)] = Slot(len(self.shapes))
        self.shapes.append((tuple(tensor.shape), tensor.dtype, tensor.device))
        self._alive.append(tensor)
        return slot

    def _slotted(self, value: Any) -> Any:
        """Return an argument with slots for its tensors."""
        if isinstance(value, Tensor):
            return self.slot(value)
        if isinstance(value, (tuple, list)):
            return type(value)(self._slotted(one) for one in value)
        return value


@dataclass
class Recording:
    """What was recorded of a step, with the slots of its parts: first of all the parameters'."""

    calls: list[Call]
    outer: dict[Slot, Tensor]
    shapes: list[tuple[Any, ...]]
    inputs: list[Slot]  # of the batch, and the loss's own gradient
    loss: Slot
    gradients: list[Slot]
    seed: Tensor
    linear: bool  # its gradients are linear in the loss's own
    reason: str | None  # why it cannot stand for the step
    leaves: bool = False  # the model left something behind in Python


def recorded(
    made: Callable[[], Tensor],
    model: nn.Module,
    parameters: Sequence[Tensor],
    batch: Sequence[Tensor],
    free: Sequence[Tensor],
    scalar: bool = True,
) -> Recording:
    """Return the recording of a step: the loss that is `made` of a batch, and its gradients by the parameters.

    `free` are the tensors that the step may change in place.  The loss is a `scalar`, or one of each row.
    """
    traces, recorder = Traces(model), Recorder([*parameters, *batch])
    versions = [tensor._version for tensor in (*parameters, *batch)]
    with torch.enable_grad():
        with recorder:
            loss = made()
        seed = torch.ones_like(loss)
        linear = _linear(loss, model, parameters)
        with recorder:
            gradients = torch.autograd.grad(loss, list(parameters), grad_outputs=seed, materialize_grads=True)
    left = traces.left()
    reason = recorder.reason or left
    may = {id(tensor) for tensor in free}
    changed = any(
        id(tensor) not in may and tensor._version != recorder.versions[slot] for slot, tensor in recorder.outer.items()
    )
    if changed or versions != [tensor._version for tensor in (*parameters, *batch)]:
        reason = reason or "it changes a tensor in place that is no buffer"
    if loss.dim() and scalar:
        reason = reason or "its loss is no scalar"
    inputs = [*map(Slot, range(len(parameters), len(parameters) + len(batch))), recorder.slot(seed)]
    recorder.outer.pop(inputs[-1], None)
    slots = [recorder.slot(gradient) for gradient in gradients]
    return Recording(
        recorder.calls, recorder.outer, recorder.shapes, inputs, recorder.slot(loss), slots, seed, linear, reason,
        left is not None,
    )  # fmt: skip


def _linear(loss: Tensor, model: nn.Module, parameters: Sequence[Tensor]) -> bool:
    """Return whether gradients are linear in the loss's own: with hooks and functions of one's own nobody knows."""
    if any(parameter._backward_hooks for parameter in parameters):
        return False
    if any(module._backward_hooks or module._backward_pre_hooks for module in model.modules()):
        return False
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if issubclass(type(node), torch.autograd.function.BackwardCFunction):
            return False
        nodes += [parent for parent, _ in node.next_functions]
    return True


def difference(one: Recording, other: Recording) -> str | None:
    """Return why two recordings are of different steps; None where both came to the same calls."""
    if len(one.calls) != len(other.calls):
        return f"it came to {len(one.calls)} calls, then to {len(other.calls)}"
    for first, second in zip(one.calls, other.calls, strict=True):
        if first.function is not second.function or first.results != second.results:
            return f"it came to {first.function}, then to {second.function}"
        if not _alike((first.arguments, first.options), (second.arguments, second.options)):
            return f"{first.function} had other arguments the second time"
    if one.shapes != other.shapes or one.outer.keys() != other.outer.keys():
        return "its tensors had other shapes the second time"
    for slot, tensor in one.outer.items():
        again = other.outer[slot]
        if tensor is not again and not _there(tensor, again) and not _equal(tensor, again):
            return f"a tensor {tuple(tensor.shape)} made in Python had other values the second time"
    return None


def _unmoved(tensor: Any, view: Any) -> bool:
    """Return whether a view is laid out as its tensor."""
    return (
        isinstance(tensor, Tensor)
        and isinstance(view, Tensor)
        and view.shape == tensor.shape
        and view.stride() == tensor.stride()
        and view.dtype == tensor.dtype
        and view.storage_offset() == tensor.storage_offset()
    )


def _slots(value: Any) -> Iterator[Slot]:
    if isinstance(value, Slot):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _slots(one)


def _renamed(value: Any, names: Mapping[Slot, Slot]) -> Any:
    if isinstance(value, Slot):
        return names.get(value, value)
    if isinstance(value, (tuple, list)):
        return type(value)(_renamed(one, names) for one in value)
    return value


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)) and not isinstance(one, Slot):
        return type(one) is type(other) and len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
        )
    return one is other or (type(one) is type(other) and (bool(one == other) or (one != one and other != other)))


def _there(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors lie in the same memory; both are alive."""
    return (
        one.data_ptr() == other.data_ptr() != 0
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
