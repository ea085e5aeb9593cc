"""The cohort of a round, drawn alike on every rank from the seed and the round, so nothing is sent."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedmpi.cohort.trace import Moment, race, read_trace
from fedmpi.flow import Clients, entropy
from fedmpi.job import JobError, Positive, Registry


@dataclass(frozen=True)
class Drawn:
    """The clients of a round."""

    clients: Clients  # distinct, ascending
    times: NDArray[np.int64]  # how often each was drawn: a factor of its weight; ones without replacement
    notes: dict[str, Any]  # entries of the journal line about the draw; {} for none


class Sampler(ABC):
    """A draw of `size` of `clients` clients a round, keyed by `seed`; options are constructor arguments.

    `most` is the most draws in a round, a client counted as often as it is drawn.  A sampler with a `choose` of its own
    `asks`.
    """

    uniform: ClassVar[bool] = False  # the draw favours large clients already: an unbiased mean counts clients alike
    asks: ClassVar[bool] = False  # candidates' losses are needed before the cohort is known
    repeats: bool = False  # a client may be drawn more than once in a round

    def __init_subclass__(cls, **others: Any) -> None:
        super().__init_subclass__(**others)
        declared = any("asks" in vars(kind) for kind in cls.__mro__ if kind is not Sampler)
        if not declared and cls.choose is not Sampler.choose:
            cls.asks = True

    def __init__(self, seed: int, clients: int, size: int) -> None:
        self.seed, self.clients, self.size = seed, clients, size
        self.most = size

    @abstractmethod
    def draw(self, round: int) -> Drawn:
        """Return the clients of a round, from 1, independent of earlier draws; candidates alone where it `asks`."""

    def choose(self, candidates: Drawn, losses: NDArray[np.float64]) -> Drawn:
        """Return the cohort among candidates with known losses `(len(candidates.clients),)`: all of them here."""
        return candidates

    def sound(self, drawn: Drawn, most: int) -> Drawn:
        """Return the draw of a sampler; JobError where it breaks the sampler's own promises or exceeds `most` draws."""
        kind = type(self).__name__
        if not isinstance(drawn, Drawn):
            raise JobError(f"cohort.sampler: {kind} drew a {type(drawn).__name__}; it should be a Drawn")
        clients, times = np.asarray(drawn.clients), np.asarray(drawn.times)
        if clients.ndim != 1 or times.shape != clients.shape or {clients.dtype.kind, times.dtype.kind} - {"i", "u"}:
            raise JobError(f"cohort.sampler: {kind} should draw whole numbers, `clients` (K,) and `times` (K,)")
        if len(clients) and (np.diff(clients).min(initial=1) < 1 or clients[0] < 0 or clients[-1] >= self.clients):
            raise JobError(
                f"cohort.sampler: {kind} drew clients {_some(clients)}; they should be distinct, ascending and below "
                f"{self.clients}"
            )
        if len(times) and (times.min() < 1 or (times.max() > 1 and not self.repeats) or times.sum() > most):
            raise JobError(
                f"cohort.sampler: {kind} drew clients {_some(times)} times; with repeats = {self.repeats} and most = "
                f"{most} each should come {'at least' if self.repeats else 'just'} once, and all of them no more "
                f"than {most} times"
            )
        return drawn

    def random(self, number: int) -> np.random.Generator:
        """Return the generator of a round, or of anything else with a number."""
        return np.random.default_rng(np.random.SeedSequence(entropy(self.seed, number)))

    def some(self, round: int, clients: int, size: int) -> Clients:
        """Return `size` of the indices below `clients`, each as likely, without replacement, ascending."""
        if size >= clients:
            return np.arange(clients, dtype=np.int64)
        return np.sort(self.random(round).choice(clients, size, replace=False, shuffle=False)).astype(np.int64)


class Uniform(Sampler):
    """Uniform sampling of `size` clients, without replacement."""

    def draw(self, round: int) -> Drawn:
        return _once(self.some(round, self.clients, self.size))


class Replacement(Sampler):
    """Uniform sampling with replacement: `size` draws, so a client may be drawn more than once."""

    repeats = True

    def draw(self, round: int) -> Drawn:
        return _counted(self.random(round).integers(self.clients, size=self.size))


class Poisson(Sampler):
    """Poisson sampling: every client independently with probability `cohort.fraction`, or size / clients.

    A round may have no client.  Accounts of differential privacy assume this draw: Abadi et al. 2016, "Deep Learning
    with Differential Privacy", and Mironov, Talwar, Zhang 2019, "Renyi Differential Privacy of the Sampled Gaussian
    Mechanism".
    """

    def __init__(self, seed: int, clients: int, size: int, rate: float | None = None) -> None:
        super().__init__(seed, clients, size)
        self.rate = size / clients if rate is None else rate  # cohort.fraction itself: no whole number of clients
        self.most = clients

    def draw(self, round: int) -> Drawn:
        return _once(np.flatnonzero(self.random(round).random(self.clients) < self.rate))


class ByExamples(Sampler):
    """Sampling proportional to clients' examples, in `size` draws (Li et al. 2020).

    With `replacement` this is scheme I of Li, Huang, Yang, Wang, Zhang 2020, "On the Convergence of FedAvg on Non-IID
    Data": its mean counts every draw alike and is unbiased.  Without, one client after another is drawn from the rest,
    and the mean leans towards small ones.
    """

    uniform = True

    def __init__(self, seed: int, clients: int, size: int, sizes: NDArray[np.int64], replacement: bool = True) -> None:
        super().__init__(seed, clients, size)
        self.replacement = self.repeats = replacement
        self.chances = _chances(sizes, 1 if replacement else size)

    def draw(self, round: int) -> Drawn:
        return _counted(self.random(round).choice(self.clients, self.size, self.replacement, self.chances))


class RoundRobin(Sampler):
    """`size` clients after those of the round before, in index order, and from the first again behind the last.

    A round at the wrap takes the last clients and the first, all different as long as size <= clients.  With `shuffle`
    every pass over the clients has an order of its own, and its last round may be smaller: filled up from the next
    pass, it might hold a client twice.
    """

    def __init__(self, seed: int, clients: int, size: int, shuffle: bool = False) -> None:
        super().__init__(seed, clients, size)
        self.shuffle = shuffle

    def draw(self, round: int) -> Drawn:
        if not self.shuffle:
            return _once(np.sort(((round - 1) * self.size + np.arange(self.size)) % self.clients))
        turn, place = divmod(round - 1, math.ceil(self.clients / self.size))
        order = self.random(turn).permutation(self.clients)
        return _once(np.sort(order[place * self.size : (place + 1) * self.size]))


class PowerOfChoice(Sampler):
    """The `size` clients of highest loss among `candidates` drawn by examples (Cho et al. 2022).

    Cho, Wang, Joshi 2022, "Towards Understanding Biased Client Selection in Federated Learning".  `candidates` (d
    there) are drawn without replacement; where not given, twice as many as the cohort, or all clients with examples if
    fewer.
    """

    uniform = True
    asks = True

    def __init__(
        self,
        seed: int,
        clients: int,
        size: int,
        sizes: NDArray[np.int64],
        candidates: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__(seed, clients, size)
        self.chances = _chances(sizes, size)
        holding = int(np.count_nonzero(sizes))
        self.candidates = min(holding, 2 * size) if candidates is None else candidates
        if not size <= self.candidates <= holding:
            raise ValueError(
                f"candidates: {self.candidates} given; should be from {size}, the cohort, to {holding}, the clients "
                "that hold examples"
            )

    def draw(self, round: int) -> Drawn:
        drawn = self.random(round).choice(self.clients, self.candidates, False, self.chances)
        return _once(np.sort(drawn), candidates=self.candidates)

    def choose(self, candidates: Drawn, losses: NDArray[np.float64]) -> Drawn:
        """Return the highest losses; ties go to the lower index, and clients without a score (NaN) come last."""
        highest = np.argsort(-losses, kind="stable")[: self.size]
        return _once(candidates.clients[np.sort(highest)], **candidates.notes)


class Trace(Sampler):
    """The first `size` clients to finish on a simulated clock, by a `file` of their presence (Bonawitz et al. 2019).

    The `file` is a CSV of client, start, end, and optionally speed and latency.  A round begins where the one before it
    closed, or when the next client comes if nobody is there.  It asks ceil(size * `over`) of the clients there, each as
    likely; one is done after its latency and work / speed.  It closes when `size` are done, when all possible ones are,
    or `deadline` seconds after it began.  A client that left before it was done is gone, the others are late, and
    neither trains.  With a `period` the file repeats every so many seconds.  Work takes no time where the file has no
    speed: with neither latency nor speed the clock stands still.
    """

    def __init__(
        self,
        seed: int,
        clients: int,
        size: int,
        ids: Callable[[], Sequence[str]],
        work: NDArray[Any],
        file: str,
        over: Annotated[float, Field(ge=1, le=1e6)] = 1.0,
        deadline: Positive | None = None,
        period: Positive | None = None,
    ) -> None:
        super().__init__(seed, clients, size)
        self.work = work
        self.asked = math.ceil(round(size * over, 9))  # 50 * 1.1 is a little above 55
        self.deadline = math.inf if deadline is None else deadline
        self.stays = read_trace(file, ids(), period)
        self.begins = [Moment()]  # of rounds 1, 2, ...: as far as the clock has been followed

    def draw(self, round: int) -> Drawn:
        for earlier in range(len(self.begins), round):
            self._play(earlier)
        return self._play(round)

    def _play(self, round: int) -> Drawn:
        """Return one round's draw from the moment of its begin, known by now, and note the moment of the next."""
        stays = self.stays
        begin, there = stays.opening(self.begins[round - 1])
        asked = there[self.some(round, len(there), self.asked)]
        clients, end = stays.clients[asked], stays.end[asked]
        finish = begin.phase + stays.latency[asked] + self.work[clients] / stays.speed[asked]
        done, close, gone = race(finish, end, self.size, begin.phase + self.deadline)
        closed = stays.later(begin, close)
        if len(self.begins) == round:
            self.begins.append(closed)
        return _once(
            clients[np.sort(done)],
            clock=stays.seconds(closed),
            available=len(there),
            asked=len(asked),
            late=len(asked) - len(done) - gone,
            gone=gone,
        )


def _some(numbers: NDArray[Any]) -> str:
    return ", ".join(map(str, numbers[:8].tolist())) + (" ..." if len(numbers) > 8 else "")


def _once(clients: NDArray[Any], **notes: Any) -> Drawn:
    return Drawn(clients.astype(np.int64), np.ones(len(clients), dtype=np.int64), notes)


def _counted(draws: NDArray[np.int64]) -> Drawn:
    clients, times = np.unique(draws, return_counts=True)
    return Drawn(clients.astype(np.int64), times.astype(np.int64), {})


def _chances(sizes: NDArray[np.int64], needed: int) -> NDArray[np.float64]:
    """Return probabilities proportional to examples; ValueError where fewer than `needed` clients have any."""
    holding = int(np.count_nonzero(sizes))
    if holding < needed:
        raise ValueError(f"{needed} different clients asked for; {holding} hold examples: take a smaller cohort")
    chances: NDArray[np.float64] = sizes / sizes.sum()
    return chances


SAMPLERS: Registry[Sampler] = Registry(
    "cohort.sampler",
    {
        "uniform": Uniform,
        "replacement": Replacement,
        "poisson": Poisson,
        "examples": ByExamples,
        "round-robin": RoundRobin,
        "power-of-choice": PowerOfChoice,
        "trace": Trace,
    },
    given=("seed", "clients", "sizes", "ids", "size", "rate", "work"),
    of=Sampler,
)
