"""The task and the model of a job, made for its examples."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedmpi.evaluation import TASKS
from fedmpi.flow import Facts, Task, entropy
from fedmpi.job import Component, Job, JobError, Registry
from fedmpi.models import MODELS
from fedmpi.plan import pretrained
from fedmpi.plan.fits import fits

DTYPES = {None: torch.float32, "float32": torch.float32, "float64": torch.float64}


def dtype_of(job: Job) -> torch.dtype:
    """Return the type of numbers of the job's model."""
    return DTYPES[job.model.dtype]


def made_task(job: Job, facts: Facts, task: Task | type | None = None) -> Task:
    """Return the job's task for such examples; or the script's own."""
    if task is not None and not isinstance(task, type):
        return task
    component = job.task if task is None else Component(name=task.__name__)
    assert component is not None
    registry: Registry[Task] = TASKS if task is None else Registry("task", {component.name: task}, TASKS.given)
    chosen = registry.choose(
        component,
        scale=facts.scale,
        dtype=dtype_of(job),
        classes=facts.classes,
        target_shape=facts.target_shape,
    )
    lacks = [name for name in ("inputs", "loss", "outputs") if not callable(getattr(chosen, name, None))]
    lacks += [] if isinstance(getattr(chosen, "metrics", None), Mapping) else ["metrics (a dict)"]
    if lacks:
        raise JobError(f"task: {component.name} gave a {type(chosen).__name__}; a task has {', '.join(lacks)}")
    return chosen


def made_model(
    job: Job, facts: Facts, task: Task, model: nn.Module | Callable[..., nn.Module] | None = None, init: bool = True
) -> nn.Module:
    """Return the job's model for such examples, from its seed or, with `init`, a pretrained file; or the script's own.

    Raises JobError for a model without trained parameters, or with tensors out of a run's reach.
    """
    component, dtype = job.model, dtype_of(job)
    if isinstance(model, nn.Module):
        module = model
    else:
        registry = MODELS if model is None else Registry("model", {component.name: model}, MODELS.given)
        given: dict[str, Any] = {"shape": facts.shape, "outputs": task.outputs(facts.classes)}
        if registry is MODELS and component.name in MODELS:
            with torch.device("meta"):  # counted before any memory is taken
                sketch = MODELS.choose(component, **given)
            fits("model", sum(part.numel() for part in sketch.state_dict().values()), dtype.itemsize, 4)
        with seeded(job.seed):
            module = registry.choose(component, **given)
    if not isinstance(module, nn.Module):
        raise JobError(
            f"model.name: {component.name!r} gave a {type(module).__name__}; it should return a torch.nn.Module"
        )
    _possible(module, component.name)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise JobError(f"model.name: {component.name!r} has no parameter that can be trained")
    module = module.to(dtype)  # before the file is read: float32 would round its values
    if init and job.model.init is not None:
        pretrained.load(module, job.model.init)
    return module


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, NumPy and Python's random for a factory; afterwards they are put back."""
    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            np.random.seed(entropy(seed))
            random.seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


def _possible(module: nn.Module, name: str) -> None:
    """Refuse, by name, tensors out of place in a flat vector of real numbers, or in a file."""
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for place, tensor in tensors:
        why = None
        if nn.parameter.is_lazy(tensor):
            why = "has no shape yet (a lazy module); give its size, or run a batch through the model in the factory"
        elif tensor.is_complex():
            kind = str(tensor.dtype)[6:]
            why = f"is {kind}, and only real numbers travel; keep torch.view_as_real of it, and view it as complex"
        elif tensor.is_meta:
            why = "lies on the meta device and has no values; build the model on the cpu"
        elif tensor.is_quantized:
            why = "is quantised, which cannot be trained; take the model before it was quantised"
        elif tensor.layout != torch.strided or tensor.is_nested:
            why = f"is {'nested' if tensor.is_nested else str(tensor.layout)[6:]}; it should be a plain dense tensor"
        if why is not None:
            raise JobError(f"model.name: {name!r}: its tensor {place!r} {why}")
    for place, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise JobError(
                f"model.name: {name!r}: its state_dict holds {place!r}, a {type(value).__name__}; a run keeps tensors "
                f"alone, so make it a buffer"
            )
