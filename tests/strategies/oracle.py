"""A small problem, fedmpi's run of it, and what a plain NumPy loop needs to follow: starts, gradients, batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import fedmpi
from fedmpi.flow import key
from tests.fake import launch

Vector = NDArray[np.float64]
SEED, FEATURES, HIDDEN, CLASSES = 11, 5, 4, 3
SIZES = (9, 14, 6, 20)
RATE, BATCH = 0.1, 4
RANKS = (2, 4)


@dataclass
class Problem:
    """Clients whose classes lie elsewhere for each; `x[k]` `(n_k, features)`, `y[k]` `(n_k,)`."""

    sizes: tuple[int, ...] = SIZES
    x: list[Vector] = field(init=False)
    y: list[NDArray[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(5)
        centres = random.normal(size=(CLASSES, FEATURES)) * 1.5
        self.y = [random.choice(CLASSES, size, p=random.dirichlet(np.ones(CLASSES))) for size in self.sizes]
        self.x = [
            (centres + random.normal(size=FEATURES) * 0.7)[y] + random.normal(size=(len(y), FEATURES)) for y in self.y
        ]

    @property
    def clients(self) -> int:
        return len(self.sizes)

    def shares(self, weights: str = "examples") -> Vector:
        """Each client's share of the mean."""
        counts = np.array(self.sizes, dtype=np.float64) if weights == "examples" else np.ones(self.clients)
        return counts / counts.sum()

    def write(self, folder: Path) -> Path:
        """The problem as a shard set, every client's examples held out too, so that it can be scored on them."""
        clients = {f"c{k}": (x, y, x, y) for k, (x, y) in enumerate(zip(self.x, self.y, strict=True))}
        fedmpi.write_shards(folder, clients, classes=tuple("abc"))
        return folder


def start(hidden: bool = False, seed: int = SEED) -> torch.nn.Module:
    """The first model: softmax regression, or a tanh layer before it; the same for the same seed."""
    random = np.random.default_rng(seed)
    layers: list[torch.nn.Module] = []
    for wide, high in [(FEATURES, HIDDEN), (HIDDEN, CLASSES)] if hidden else [(FEATURES, CLASSES)]:
        layer = torch.nn.Linear(wide, high).double()
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(random.normal(size=(high, wide)) * 0.4))
            layer.bias.copy_(torch.from_numpy(random.normal(size=high) * 0.1))
        layers += [layer, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def vector(model: torch.nn.Module) -> Vector:
    """A model's parameters in their order, each flattened: weights row by row `(out, in)`, then biases."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).double().numpy().copy()


def loss_and_gradient(w: Vector, x: Vector, y: NDArray[np.int64], hidden: bool = False) -> tuple[float, Vector]:
    """Mean cross-entropy of `vector`'s parameters on a batch, and its gradient, by hand."""
    parts, at, inputs = [], 0, x
    for wide, high in [(FEATURES, HIDDEN), (HIDDEN, CLASSES)] if hidden else [(FEATURES, CLASSES)]:
        weight = w[at : at + wide * high].reshape(high, wide)
        bias = w[at + wide * high : at + wide * high + high]
        at += wide * high + high
        parts.append((inputs, weight))
        outputs = inputs @ weight.T + bias
        inputs = np.tanh(outputs)
    chances = np.exp(outputs - outputs.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    loss = -np.log(chances[np.arange(len(y)), y]).mean()
    error = (chances - np.eye(CLASSES)[y]) / len(y)
    gradient: list[Vector] = []
    for place in reversed(range(len(parts))):
        into, weight = parts[place]
        gradient = [(error.T @ into).ravel(), error.sum(0), *gradient]
        if place:
            error = (error @ weight) * (1 - into**2)  # `into` is tanh of the layer before
    return float(loss), np.concatenate(gradient)


def batches(round: int, client: int, examples: int, steps: int, batch: int = BATCH) -> Iterator[NDArray[np.int64]]:
    """The indices of each of a client's batches in a round: a new order each epoch, the last of an epoch smaller."""
    generator = torch.Generator().manual_seed(key(SEED, round, client))
    while True:
        order = torch.randperm(examples, generator=generator).numpy()
        for first in range(0, examples, batch):
            if steps == 0:
                return
            steps -= 1
            yield order[first : first + batch]


def job(shards: Path, strategy: Any, **sections: Any) -> dict[str, Any]:
    """A job over the problem; `sections` are laid over it, table by table."""
    table: dict[str, Any] = {
        "seed": SEED,
        "threads": 1,
        "rounds": 4,
        "data": {"shards": str(shards)},
        "model": {"name": "start", "dtype": "float64"},
        "local": {"lr": RATE, "batch": BATCH, "steps": 6},
        "strategy": strategy,
        "checkpoint": {"every": 1},
    }
    for name, section in sections.items():
        table[name] = {**table[name], **section} if isinstance(table.get(name), dict) else section
    return table


def trained(table: dict[str, Any], ranks: int = 1, out: Path | None = None, hidden: bool = False) -> fedmpi.Run:
    """fedmpi's run of a job, on threads where there are more ranks than one."""

    def model(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
        return start(hidden)

    if ranks == 1:
        return fedmpi.train(table, model=model, out=out)
    run: fedmpi.Run = launch(ranks, lambda comm: fedmpi.train(table, comm, model=model, out=out))[0]
    return run
