"""Parts of a plan put back after a trial: tensors, attributes, random generators."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Undo = Callable[[], object]


@contextmanager
def untouched(*parts: Any) -> Iterator[None]:
    """Put back modules and other objects after their use, as far as possible.

    These are every tensor, every attribute, and the contents of lists, dicts, sets and generators of random numbers
    among the attributes, but nothing deeper inside other objects.  torch's, NumPy's and Python's own generators, and
    torch's number of threads, are put back too.
    """
    undo: list[Undo] = [
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),
        partial(torch.set_rng_state, torch.get_rng_state()),
        partial(torch.set_num_threads, torch.get_num_threads()),
    ]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch gives it no types
        undo.append(partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    holders: dict[int, Any] = {}
    for part in parts:
        for one in (part, *getattr(part, "__dict__", {}).values()):  # a task may keep a module, such as its loss
            modules = one.modules() if isinstance(one, nn.Module) else [part]
            holders |= {id(holder): holder for holder in modules if hasattr(holder, "__dict__")}
    values: dict[int, Any] = {}
    for holder in holders.values():
        undo.append(partial(_put_back, vars(holder), dict(vars(holder))))
        for value in vars(holder).values():
            values |= {id(one): one for one in (value, *(value.values() if isinstance(value, dict) else ()))}
    undo += [one for value in values.values() for one in _undone(value)]
    try:
        yield
    finally:
        with torch.no_grad():
            for put_back in undo:
                put_back()


def _undone(value: Any) -> Iterator[Undo]:
    """Yield the steps to put back the contents of a value; the value stays the same object."""
    if isinstance(value, Tensor) and not value.is_inference():
        yield partial(_lay, value, value.data, value.data.clone())
    elif type(value) in (dict, OrderedDict, set):
        yield partial(_put_back, value, copy.copy(value))
    elif type(value) is list:
        yield partial(value.__setitem__, slice(None), list(value))
    elif isinstance(value, torch.Generator):
        yield partial(value.set_state, value.get_state())
    elif isinstance(value, random.Random):
        yield partial(value.setstate, value.getstate())
    elif isinstance(value, np.random.Generator):
        yield partial(setattr, value.bit_generator, "state", copy.deepcopy(value.bit_generator.state))


def _put_back(container: Any, content: Any) -> None:
    container.clear()
    container.update(content)


def _lay(tensor: Tensor, memory: Tensor, values: Tensor) -> None:
    """Lay the same numbers in the same memory: a tensor may have been bound to another."""
    tensor.data = memory
    if not torch.equal(memory, values):  # one that was expanded cannot be written to
        memory.copy_(values)
