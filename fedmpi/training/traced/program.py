"""A recorded step as straight-line Python: the same calls of ATen, and nothing else."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedmpi.training.traced.recording import Call, Recording, Slot

NUMBERS = ("aten.scalar_tensor.default",)  # made of a number alone
PRODUCTS = {"aten.mm.default": "addmm_", "aten.bmm.default": "baddbmm_"}  # and the addition of one in place


class Program:
    """The calls of a step; `tensors` are those that stay where they are, by slot."""

    def __init__(self, recording: Recording, tensors: Mapping[Slot, Tensor]) -> None:
        self.calls = list(recording.calls)
        self.constants = {**recording.outer, **tensors}
        self.adds: list[tuple[str, Slot, Slot]] = []  # products added in place, behind the last call
        self.namespace: dict[str, Any] = {}
        self.shapes = recording.shapes
        self.loss, self.gradients = recording.loss, list(recording.gradients)
        if not any(call.function._schema.is_mutable for call in self.calls):
            self._shorten()
        self._hoist(set(tensors))

    def _shorten(self) -> None:
        """Leave out what comes to nothing: products with 1, as rows of clients make them, and what nobody uses."""
        names: dict[Slot, Slot] = {}
        left = []
        for call in self.calls:
            renamed = call.renamed(names)
            if str(call.function) == "aten.mul.Scalar" and call.arguments[1] == 1:
                [result], [slot] = call.results, renamed.slots
                if result is not None and self.shapes[result.number] == self.shapes[slot.number]:
                    names[result] = slot
                    continue
            left.append(renamed)
        self.loss = names.get(self.loss, self.loss)
        self.gradients = [names.get(gradient, gradient) for gradient in self.gradients]
        used = {self.loss, *self.gradients}
        self.calls = []
        for call in reversed(left):
            random = torch.Tag.nondeterministic_seeded in call.function.tags  # its draw is missed by those after it
            if random or not used.isdisjoint(result for result in call.results if result is not None):
                used.update(call.slots)
                self.calls.insert(0, call)

    def _hoist(self, stable: set[Slot]) -> None:
        """Take views of tensors that stay where they are once, and make tensors of numbers, in place of once a step."""
        left = []
        for call in self.calls:
            view = call.function.is_view and call.slots and stable.issuperset(call.slots)
            if call.many or not (view or str(call.function) in NUMBERS):
                left.append(call)
                continue
            arguments = [self.constants[one] if isinstance(one, Slot) else one for one in call.arguments]
            [result] = call.results
            assert result is not None
            self.constants[result] = call.function(*arguments, **call.options)
            stable.add(result)
        self.calls = left

    def fuse(self, views: Sequence[Tensor]) -> list[tuple[Slot, Tensor]]:
        """Add each gradient that is one product to its view as it is made; return the others, with their views.

        Every weight is read as it was before, since the additions come last.
        """
        makers = {result: call for call in self.calls for result in call.results if result is not None}
        uses = Counter(slot for call in self.calls for slot in call.slots)
        uses.update(self.gradients)
        rest: list[tuple[Slot, Tensor]] = []
        for place, (gradient, view) in enumerate(zip(self.gradients, views, strict=True)):
            slot, gone = gradient, []
            while slot in makers and self._turns(makers[slot]) and uses[slot] == 1:
                gone.append(makers[slot])
                slot = gone[-1].arguments[0]
            product = makers.get(slot)
            add = PRODUCTS.get(str(product.function)) if product is not None else None
            if product is None or add is None or uses[slot] != 1:
                rest.append((gradient, view))
                continue
            left, right = product.arguments
            target = view.transpose(-1, -2) if len(gone) % 2 else view
            self.adds.append((f"{self._held(target, f'w{place}')}.{add}", left, right))
            self.calls = [call for call in self.calls if call is not product and not any(call is one for one in gone)]
        return rest

    def _turns(self, call: Call) -> bool:
        """Return whether a call swaps the last two dimensions."""
        if str(call.function) == "aten.t.default":
            return len(self.shapes[call.slots[0].number][0]) == 2
        dims = len(self.shapes[call.slots[0].number][0]) if call.slots else 0
        return str(call.function) == "aten.transpose.int" and {at % dims for at in call.arguments[1:]} == {
            dims - 2,
            dims - 1,
        }

    def compiled(self, inputs: Sequence[Slot], gradients: Sequence[Slot]) -> Callable[..., tuple[Tensor, ...]]:
        """Return the program as a function of its inputs, to the loss and some of the gradients."""
        results = [self.loss, *gradients]
        ends = {slot: len(self.calls) for slot in results} | {
            slot: len(self.calls) for _, *pair in self.adds for slot in pair
        }
        last: dict[Slot, int] = {}
        for at, call in enumerate(self.calls):
            for slot in (*call.slots, *(result for result in call.results if result is not None)):
                last[slot] = ends.get(slot, at)
        dead: list[list[str]] = [[] for _ in range(len(self.calls) + 1)]
        for slot, at in last.items():
            if slot not in self.constants and slot not in inputs:
                dead[at].append(self._word(slot))
        lines = []
        for call, names in zip(self.calls, dead, strict=False):
            lines.append(self._line(call))
            if names:  # its memory serves the next calls, while it lies in the cache
                lines.append(f"del {', '.join(names)}")
        lines += [f"{name}({self._word(left)}, {self._word(right)})" for name, left, right in self.adds]
        head = f"def step({', '.join(f'v{slot.number}' for slot in inputs)}):"
        self.text = "\n    ".join([head, *lines, f"return {self._word(tuple(results))}"])
        exec(compile(self.text, "<a recorded step>", "exec"), self.namespace)
        step: Callable[..., tuple[Tensor, ...]] = self.namespace["step"]
        return step

    def _line(self, call: Call) -> str:
        words = [self._word(one) for one in call.arguments]
        words += [f"{name}={self._word(one)}" for name, one in call.options.items()]
        function = self._held(call.function._op, f"f_{str(call.function).replace('.', '_')}")
        names = ["_" if result is None else f"v{result.number}" for result in call.results]
        target = "".join(f"{name}, " for name in names) if call.many else ", ".join(names)
        return f"{target.rstrip() or '_'} = {function}({', '.join(words)})"

    def _held(self, value: Any, name: str) -> str:
        """Return the name under which the program finds a value."""
        self.namespace[name] = value
        return name

    def _word(self, value: Any) -> str:
        """Return an argument as the program writes it."""
        if isinstance(value, Slot):
            there = value in self.constants
            return self._held(self.constants[value], f"c{value.number}") if there else f"v{value.number}"
        if isinstance(value, list):
            return f"[{', '.join(map(self._word, value))}]"
        if isinstance(value, tuple):
            return f"({''.join(f'{self._word(one)}, ' for one in value)})"
        if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            return repr(value)
        return self._held(value, f"k{len(self.namespace)}")
