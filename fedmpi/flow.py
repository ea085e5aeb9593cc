"""What passes between rooms: a run's state, a client, its update, one crossing, and the protocols rooms meet by."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmpi import tell
from fedmpi.tell import Refused as Refused

Clients = NDArray[np.int64]  # indices of clients in their shard set
Where = str | os.PathLike[str]
Batch = tuple[Tensor, Tensor]  # inputs and targets, on the model's device
Rule = Callable[[Tensor, Tensor, Tensor, "Client"], None]  # what changes a step's gradient in place
LOWER = ("loss", "mse", "mae", "rmse", "perplexity")  # scores of which less is better, unless a metric says otherwise


def note(text: str) -> None:
    """Tell the person who started a run what they should know of it, in one line; called at home alone, to be once."""
    tell.waiting("")  # the line that says so is replaced, not written on
    print(f"fedmpi: {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Layout:
    """Where things lie on the wire: `up` planes of `size` values each, then the sums.

    `trained` is the slice of a plane that training changes; what lies behind it are floating buffers, which are
    averaged but which clips, norms and optimisers leave alone.  `weights` names the weighting of each plane, then of
    each sum: "examples", "uniform" or "none" (added as it is, never divided).
    """

    size: int
    trained: slice
    dtype: torch.dtype
    up: int = 1
    weights: tuple[str, ...] = ("examples",)
    sums: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Values on the wire: the planes, Σw, Σ1, then the strategy's own sums."""
        return self.up * self.size + 2 + len(self.sums)

    def planes(self, wire: Tensor) -> Tensor:
        """The planes of a wire `(..., width)` as a view `(..., up, size)`."""
        return wire[..., : self.up * self.size].view(*wire.shape[:-1], self.up, self.size)

    def tail(self, wire: Tensor) -> Tensor:
        """The scalars of a wire `(..., width)` as a view `(..., 2 + sums)`: Σw, Σ1, then the strategy's."""
        return wire[..., self.up * self.size :]


HEADER = 8  # 64-bit words behind the planes: 64 bytes, so one Bcast carries both
SAID = 4  # of them a strategy's own, float64


class State:
    """The model as a round receives it: on every rank, what the last broadcast said.

    One host buffer holds `[private | planes (down, size) | header | counts]`; all but the private part (a personal
    head, which stays home) travels.  `received` is the private part and the first plane, laid out like a model's
    values.  The header lies behind the planes so that `received` is one contiguous piece.  `counts` `(counts,)` int64
    are the model's counts and flags: its small buffers of whole numbers.
    """

    def __init__(
        self, private: int, size: int, down: int, dtype: torch.dtype, pin: bool = False, counts: int = 0
    ) -> None:
        words = (HEADER + counts) * 8 // dtype.itemsize
        self.buffer = torch.zeros(private + down * size + words, dtype=dtype, pin_memory=pin)
        self.travels = self.buffer[private:]
        self.received = self.buffer[: private + size]  # the private part is each rank's own
        self.planes = self.buffer[private : private + down * size].view(down, size)
        behind: NDArray[np.int64] = self.buffer[private + down * size :].view(torch.int64).numpy()
        self.header, self.counts = behind[:HEADER], behind[HEADER:]
        self.said = self.header[HEADER - SAID :].view(np.float64)  # a strategy's scalars, from home to every client

    @property
    def round(self) -> int:
        """The round under way, from 1; the model received is the one that the round before it made."""
        return int(self.header[0])

    @round.setter
    def round(self, value: int) -> None:
        self.header[0] = value

    @property
    def crossing(self) -> int:
        """Which pass of the round this is, from 0: strategies that need two crossings count here."""
        return int(self.header[1])

    @crossing.setter
    def crossing(self, value: int) -> None:
        self.header[1] = value

    @property
    def done(self) -> bool:
        """The run is over: what was received is the final model."""
        return bool(self.header[2])

    @property
    def code(self) -> int:
        """The exit status that goes with `done`: 0 unless the run broke."""
        return int(self.header[3])

    def ended(self, code: int = 0) -> None:
        """Mark the run as over: the next broadcast tells every rank."""
        self.header[2], self.header[3] = 1, code


@dataclass
class Client:
    """One client while a rank serves it: what a strategy's rules may see and change.

    Vectors lie on the model's device.  `trained` is the slice of them that training changes; buffers lie behind it.
    """

    index: int
    examples: int
    round: int
    crossing: int
    lr: float
    trained: slice
    values: Tensor  # (size,) what travels of the model being trained
    down: Tensor  # (down, size) what the broadcast brought; the first is the model
    said: NDArray[np.float64]  # scalars that it brought
    planes: Tensor  # (up, size) what the strategy writes its result into
    gradient: Callable[[], Tensor]  # (trained,) mean gradient over all its examples, at `values`
    objective: Callable[[], float]  # mean loss over all its examples, at `values`
    memory: dict[str, Tensor]  # what it keeps from round to round, to be changed in place
    times: int = 1  # how often it was drawn: what multiplies its weight
    fresh: bool = True  # it has never taken part: its memory is as it begins
    steps: int = 0
    reach: float = 0.0  # how far its steps go along a constant gradient of 1, in units of lr: without momentum, `steps`
    loss: float = float("nan")  # mean training loss, as far as it is known
    notes: dict[str, Tensor] = field(default_factory=dict)  # a strategy's own, from `prepare` to `result`

    @property
    def received(self) -> Tensor:
        """(size,) the model as the round began."""
        return self.down[0]

    def change(self, plane: Tensor, since: Tensor | None = None) -> None:
        """Write values minus `since` `(size,)` (the received model where None) into a plane `(size,)`.

        A buffer value that is as it was is no change, though it be infinite: a causal mask less itself is 0.
        """
        origin = self.received if since is None else since
        torch.sub(self.values, origin, out=plane)
        if self.trained.stop < len(plane):
            behind = slice(self.trained.stop, None)
            now, before = self.values[behind], origin[behind]
            plane[behind].masked_fill_((now == before) | (now.isnan() & before.isnan()), 0.0)


def entropy(*numbers: int) -> list[int]:
    """Numbers below 2^64 as 32-bit words, two each: what a key is made of, so that no two tuples make the same one."""
    return [word for number in numbers for word in (number & 0xFFFFFFFF, number >> 32)]


class Unfit(Exception):
    """An update that must not enter the sum; `reason` is a key of REASONS, which every rank can send as a number.

    `at` is the first value on the wire that does not fit, so that home can name the tensor it belongs to.
    """

    def __init__(self, reason: int, at: int = 0) -> None:
        super().__init__(REASONS[reason])
        self.reason, self.at = reason, at


REASONS = {
    1: "is not finite: its training diverged (a smaller local.lr or a local.clip helps)",
    2: "is too large for the fixed-point stage (put clip before it, or give it fewer fraction bits; clip leaves "
    "buffers such as BatchNorm's alone)",
}


@dataclass(frozen=True)
class Passage:
    """One crossing of the updates: all that a stage may know."""

    round: int
    clients: Clients  # of the whole cohort, ascending
    layout: Layout
    attempt: int = 0
    client: int | None = None  # whose update is being encoded; None when it is a sum
    examples: int = 0  # that client's
    times: int = 1  # how often it was drawn

    def of(self, client: int, examples: int, times: int = 1) -> Passage:
        """The same crossing, for the update of one client with so many examples, drawn so many times."""
        return replace(self, client=client, examples=examples, times=times)

    def norm(self, wire: Tensor) -> Tensor:
        """L2 norm `(...,)` of what was trained in a wire `(..., width)`, over all its planes."""
        norm: Tensor = torch.linalg.vector_norm(self.layout.planes(wire)[..., self.layout.trained], dim=(-2, -1))
        return norm


class Comm(Protocol):
    """How ranks talk, as the other rooms see it: `me` is a birth id, 0 the server; buffers are host tensors.

    Every method is collective over the communicator; a size of one needs no MPI.
    """

    me: int
    size: int
    library: str
    place: Any

    @property
    def is_home(self) -> bool: ...

    @property
    def is_scribe(self) -> bool: ...

    def broadcast(self, vector: Tensor, root: int = 0) -> None:
        """The `vector` of rank `root` (home's) on every rank, in place."""
        ...

    def reduce(self, *vectors: Tensor) -> None:
        """The sum over ranks of each vector, in place at home; elsewhere a vector keeps what it held."""
        ...

    def fail(self, error: Refused) -> None:
        """End every rank at once, from one that cannot come to the next collective; not collective, never returns."""
        ...

    def settle(self, error: Refused | None) -> None:
        """Go on where no rank has an error; else every rank raises, and the lowest one with an error tells it."""
        ...


class Task(Protocol):
    """What is asked of the model: how examples become inputs, what the loss is, which metrics there are."""

    @property
    def metrics(self) -> Mapping[str, Any]: ...

    def outputs(self, classes: tuple[str, ...]) -> int:
        """How many outputs a built-in model has for it."""
        ...

    def inputs(self, x: Tensor) -> Tensor:
        """What the model takes, from stored columns `(N, ...)`: cast and scaled, on the device they are on."""
        ...

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean loss over the batch, a scalar tensor."""
        ...


class Examples(Protocol):
    """A shard set, as the other rooms see it."""

    clients: int
    examples: int
    largest: int

    def sizes(self, clients: Clients) -> NDArray[np.int64]: ...

    def train(self, client: int) -> tuple[Tensor, Tensor]: ...

    def heldout(self, client: int) -> tuple[Tensor, Tensor]: ...

    def test(self) -> tuple[Tensor, Tensor]: ...


class Memory(Protocol):
    """What clients keep between rounds, a vector each; any rank may ask for any client's."""

    def load(self, client: int, upto: int) -> Tensor | None:
        """The vector `(width,)` on the host that the client kept last, not later than round `upto`; None if never."""
        ...

    def save(self, client: int, round: int, vector: Tensor) -> None: ...


class Learner(Protocol):
    """The engine as a strategy sees it while one client learns: the model at `values`, and that client's batches."""

    model: nn.Module
    task: Task
    values: Tensor  # (trained,) what training changes of the model, what stays home in front
    grads: Tensor  # (trained,) the last gradient
    home: int  # how many of them stay home

    def train(self, client: Client, correct: Rule | None = None, steps: int | None = None) -> None:
        """The job's local loop from `values`, over the client's batches from their beginning, with a fresh optimiser.

        Its steps are added to the client's; the first loop's loss is the client's.
        """
        ...

    def batches(self, client: Client, steps: int | None = None) -> Iterator[Batch]:
        """The client's batches of the round from their beginning, so many of them (the job's where None)."""
        ...

    def steps(self, client: Client) -> int:
        """Steps that the job lets a client take in a round."""
        ...

    def gradient(self, client: Client, batch: Batch, again: bool = False) -> Tensor:
        """A batch's loss at `values`, a scalar; its gradient, with the job's penalties, in `grads`.

        `again`: the same batch at other values, with the same dropout; statistics of batches stay as they are.
        """
        ...

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The model's tensors by name, as views of a vector `(size,)` laid out like what travels."""
        ...


class Strategy(Protocol):
    """What is learned: a local rule and a server step, as the other rooms see it."""

    passes: ClassVar[int]
    fills: ClassVar[bool]
    memory: Mapping[str, str]

    def survey(self, client: Client) -> Mapping[str, float]: ...

    def prepare(self, client: Client) -> None: ...

    def learn(self, client: Client, learner: Learner) -> None: ...

    def loss(self, task: Task, model: nn.Module, inputs: Tensor, y: Tensor, client: Client) -> Tensor: ...

    def result(self, client: Client) -> Mapping[str, float]: ...

    def personal(self, client: Client, learner: Learner) -> None: ...
