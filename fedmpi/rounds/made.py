"""A job's task and model, made for its examples."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fedmpi.evaluation import TASKS
from fedmpi.flow import Task, entropy
from fedmpi.job import Component, Job, JobError, choose, nearest, regular, shown
from fedmpi.models import MODELS
from fedmpi.rounds.room import fits

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Facts(Protocol):
    """What a task and a model ask of the examples."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def target_shape(self) -> tuple[int, ...]: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def scale(self) -> float: ...


def dtype_of(job: Job) -> tuple[Component, torch.dtype]:
    """The model's component without the options that are the trainer's, and the dtype that it asks for."""
    options = job.model.options
    given = options.pop("dtype", "float32")
    options.pop("init", None)
    if not isinstance(given, str) or given not in DTYPES:
        raise JobError(f"model.dtype: {shown(given)} given; there are {', '.join(DTYPES)}{nearest(given, DTYPES)}")
    return Component(name=job.model.name, **options), DTYPES[given]


def made_task(job: Job, facts: Facts, task: Task | type | None = None) -> Task:
    """The job's task for such examples; or the script's own."""
    if task is not None and not isinstance(task, type):
        return task
    component = job.task if task is None else Component(name=task.__name__)
    assert component is not None
    made: Task = choose(
        TASKS if task is None else {component.name: task},
        component,
        "task",
        scale=facts.scale,
        dtype=dtype_of(job)[1],
        classes=facts.classes,
        target_shape=facts.target_shape,
    )
    lacks = [name for name in ("inputs", "loss", "outputs") if not callable(getattr(made, name, None))]
    lacks += [] if isinstance(getattr(made, "metrics", None), Mapping) else ["metrics (a dict)"]
    if lacks:
        raise JobError(f"task: {component.name} gave a {type(made).__name__}; a task has {', '.join(lacks)}")
    return made


def made_model(
    job: Job, facts: Facts, task: Task, model: nn.Module | Callable[..., nn.Module] | None = None, init: bool = True
) -> nn.Module:
    """The job's model for such examples, from its seed or, with `init`, its pretrained file; or the script's own."""
    component, dtype = dtype_of(job)
    if isinstance(model, nn.Module):
        module = model
    else:
        registry = MODELS if model is None else {component.name: model}
        given: dict[str, Any] = {"shape": facts.shape, "outputs": task.outputs(facts.classes)}
        if registry is MODELS and component.name in MODELS:
            with torch.device("meta"):  # counted before any memory is taken
                sketch = choose(MODELS, component, "model", **given)
            fits("model", sum(part.numel() for part in sketch.state_dict().values()), dtype.itemsize, 4)
        with seeded(job.seed):
            module = choose(registry, component, "model", **given)
    if not isinstance(module, nn.Module):
        raise JobError(
            f"model.name: {component.name!r} gave a {type(module).__name__}; it should return a torch.nn.Module"
        )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise JobError(f"model.name: {component.name!r} has no parameter that can be trained")
    module = module.to(dtype)  # before the file is read: float32 would round what it holds
    pretrained = job.model.options.get("init")
    if init and pretrained is not None:
        _load(module, pretrained)
    return module


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A factory draws from the seed, be it by torch, NumPy or Python's random; afterwards they are where they were."""
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


def _load(module: nn.Module, init: Any) -> None:
    """Start from a pretrained model's safetensors file, kept under its state_dict names."""
    if not isinstance(init, str):
        raise JobError(f"model.init: {init!r} given; should be the path of a safetensors file")
    try:
        regular(init)
        tensors = load_file(init)
    except (OSError, SafetensorError) as error:
        raise JobError(f"model.init: {init}: cannot be read as safetensors: {error}") from None
    own = module.state_dict()
    wrong = [f"has no {name}" for name in own if name not in tensors]
    wrong += [f"has {name}, which the model has not" for name in tensors if name not in own]
    wrong += [
        f"has {name} of shape {tuple(tensors[name].shape)}, the model {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise JobError(f"model.init: {init} does not fit the model: it {'; '.join(wrong[:3])}{more}")
    module.load_state_dict(tensors)
