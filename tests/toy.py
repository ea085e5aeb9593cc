"""Examples in memory, tasks and small models: what the laws of training are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmpi import job
from fedmpi.evaluation import TASKS
from fedmpi.flat import FlatModel
from fedmpi.flow import Engine, Facts, Layout, Learned, Memory, Passage, State
from fedmpi.plan import assemble
from fedmpi.plan.replica import Replica
from fedmpi.rounds.loops import LOOPS
from fedmpi.strategies import ServerStep, Strategy

GRADIENTS = ("fedsgd", "normalised-sgd")  # one whole gradient a round: no batches, no epochs

Pair = tuple[Tensor, Tensor]


class Toy:
    """Clients' examples held in lists: a shard set without a file."""

    task, classes, shape = "classification", ("a", "b", "c"), (4,)
    facts = Facts(shape, (), classes, (), 1.0)
    heldout_examples = test_examples = 0

    def __init__(self, train: Sequence[Pair]) -> None:
        self.pairs = list(train)
        self.clients = len(self.pairs)
        self.examples = sum(len(y) for _, y in self.pairs)
        self.largest = max(len(y) for _, y in self.pairs)

    def id(self, client: int) -> str:
        return str(client)

    def sizes(self, clients: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([len(self.pairs[client][1]) for client in clients], dtype=np.int64)

    def train(self, client: int) -> Pair:
        return self.pairs[client]

    def heldout(self, client: int) -> Pair:
        return self.pairs[client]

    def test(self) -> Pair:
        return self.pooled()

    def pooled(self) -> Pair:
        """Everybody's examples, client after client."""
        return torch.cat([x for x, _ in self.pairs]), torch.cat([y for _, y in self.pairs])


def blobs(sizes: Sequence[int], features: int = 4, classes: int = 3, seed: int = 0) -> Toy:
    """A cloud of points per class, every client with a leaning of its own."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, features)) * 2
    pairs = []
    for size in sizes:
        y = random.choice(classes, size=size, p=random.dirichlet(np.ones(classes)))
        x = centres[y] + random.normal(size=(size, features))
        pairs.append((torch.from_numpy(x), torch.from_numpy(y)))
    return Toy(pairs)


@dataclass(frozen=True)
class Classify:
    """Softmax classification of what is stored as it is, in one dtype."""

    dtype: torch.dtype = torch.float64
    name = "classification"
    metrics: Mapping[str, Any] = field(default_factory=lambda: TASKS["classification"].metrics)

    def outputs(self, classes: tuple[str, ...]) -> int:
        return len(classes)

    def inputs(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, y)

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, y, reduction="none")


def linear() -> nn.Module:
    return nn.Linear(4, 3)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def cumulative() -> nn.Module:
    """Batch statistics that are means over all batches so far: the integer count of them matters."""
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, momentum=None), nn.ReLU(), nn.Linear(5, 3))


def frozen() -> nn.Module:
    """A body that stays as it is under a head that learns."""
    model = mlp()
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    return model


class Tied(nn.Module):
    """One matrix under two names, and a buffer that two modules share."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Linear(4, 4, bias=False)
        self.back = nn.Linear(4, 4)
        self.back.weight = self.code.weight
        self.head = nn.Linear(4, 3)
        scale = torch.full((4,), 0.5)
        self.code.register_buffer("scale", scale)
        self.back.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.code(x)) * self.code.get_buffer("scale")
        out: Tensor = self.head(self.back(hidden) * self.back.get_buffer("scale"))
        return out


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "dropout": dropout,
    "normed": normed,
    "cumulative": cumulative,
    "frozen": frozen,
    "tied": Tied,
}


def made(name: str, seed: int = 1) -> nn.Module:
    """A model by name, the same for the same seed."""
    torch.manual_seed(seed)
    return MODELS[name]()


@dataclass
class Rig:
    """One rank's share of a run, without a communicator: the state holds the model as it was built."""

    flat: FlatModel
    layout: Layout
    state: State
    strategy: Strategy
    engine: Engine
    memory: Memory | None
    shards: Toy

    def learned(self, client: int, round: int = 1) -> Tensor:
        """Return the wire of a client that starts from the received model, a copy; its memory is saved."""
        self.state.round = round
        self.engine.receive()
        learned, passage = self.train(client)
        learned.save(self.memory, passage)
        return learned.rows[0].clone()

    def train(self, client: int, times: int = 1) -> tuple[Learned, Passage]:
        """Return what a client learns from the received model, of which nothing is saved, and the passage."""
        one = np.array([client])
        passage = Passage(self.state.round, self.layout, one, self.shards.sizes(one), np.array([times]))
        [learned] = self.engine.train(np.zeros(1, np.int64), passage)
        return learned, passage


def rig(
    model: nn.Module,
    shards: Toy,
    local: Mapping[str, Any] | None = None,
    strategy: str | Callable[[ServerStep], Strategy] = "fedavg",
    server: Mapping[str, Any] | None = None,
    weights: str | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 7,
    rounds: int = 20,
    engine: Callable[..., Engine] | None = None,
) -> Rig:
    """Return a rig as `fedmpi train` would wire it; `local` and `server` are tables of a job, `engine` is another."""
    table = {
        "data": {"shards": "toy"},
        "model": {"name": "toy", "dtype": str(dtype).removeprefix("torch.")},
        "strategy": strategy if isinstance(strategy, str) else "fedavg",
        "local": {
            "lr": 0.1,
            "engine": "sequential",
            **({} if strategy in GRADIENTS else {"batch": 4, "epochs": 1}),
            **(local or {}),
        },
        "server": dict(server or {}),
        "aggregation": {"weights": weights} if weights else {},
        "seed": seed,
        "rounds": rounds,
    }
    task = Classify(dtype)
    plan = assemble(job.read(table), shards, lambda shape, outputs: model, task, try_out=False, loops=LOOPS)
    if not isinstance(strategy, str):
        plan = replace(plan, strategy=strategy(plan.strategy.server))
    replica = Replica.of(plan, engine=engine and (lambda **given: engine(plan.course(), **given)))
    state, flat = replica.state, replica.flat
    state.received.copy_(flat.values)
    state.counts[:] = flat.whole.received.numpy()
    state.round = 1
    plan.strategy.begin(state, replica.layout, plan.everyone())
    return Rig(flat, replica.layout, state, plan.strategy, replica.engine, replica.memory, shards)
