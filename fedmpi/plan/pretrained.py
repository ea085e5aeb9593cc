"""A model's start from a pretrained file: a safetensors file with the model's own names."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fedmpi.job import JobError, regular


def load(module: nn.Module, init: str) -> None:
    """Start from the file `init`, kept under the module's state_dict names; JobError where it does not fit.

    Of a tensor with several names (tied weights) the file may hold one alone, as `safetensors.torch.save_model` does.
    """
    try:
        regular(init)
        tensors = load_file(init)
    except (OSError, ValueError, SafetensorError) as error:
        raise JobError(f"model.init: {init}: cannot be read as safetensors: {error}") from None
    own = module.state_dict()
    wrong = [problem for names in _tied(own) for problem in _shared(names, tensors)]
    wrong += [f"has no {name}" for name in own if name not in tensors]
    wrong += [f"has {name}, which the model has not" for name in tensors if name not in own]
    for name in own:
        if name in tensors and tensors[name].shape != own[name].shape:
            wrong.append(f"has {name} of shape {tuple(tensors[name].shape)}, the model {tuple(own[name].shape)}")
        elif name in tensors and not _holds(own[name].dtype, tensors[name].dtype):
            wrong.append(f"has {name} as {str(tensors[name].dtype)[6:]}, the model as {str(own[name].dtype)[6:]}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise JobError(f"model.init: {init} does not fit the model: it {'; '.join(wrong[:3])}{more}")
    module.load_state_dict(tensors)


def _tied(own: dict[str, Tensor]) -> list[list[str]]:
    """Return the names of one and the same tensor, where there are several."""
    together: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in own.items():
        if tensor.numel():
            together.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype), []).append(name)
    return [names for names in together.values() if len(names) > 1]


def _shared(names: list[str], tensors: dict[str, Tensor]) -> list[str]:
    """Give each name of one tensor the file's values under any of them; return the faults where these differ."""
    there = [name for name in names if name in tensors]
    for name in there[1:]:
        if not torch.equal(tensors[name], tensors[there[0]]):
            return [f"has other values for {name} than for {there[0]}, which are one tensor in the model"]
    tensors.update({name: tensors[there[0]] for name in names if there})
    return []


def _holds(own: torch.dtype, given: torch.dtype) -> bool:
    """Return whether numbers of a dtype may be taken over: floating into floating ones, whole ones where all fit."""
    if own.is_floating_point:
        return given.is_floating_point
    return not given.is_floating_point and not given.is_complex and torch.promote_types(given, own) == own
