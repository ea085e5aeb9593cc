"""Who takes part in a round: drawn alike on every rank from the seed and the round, so nothing is sent."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedmpi.cohort.trace import Moment, race, read
from fedmpi.flow import Clients, entropy
from fedmpi.job import JobError, Positive


@dataclass(frozen=True)
class Drawn:
    """The clients of a round."""

    clients: Clients  # distinct, ascending
    times: NDArray[np.int64]  # how often each was drawn: what multiplies its weight; ones without replacement
    told: dict[str, Any]  # what the journal line should say of the draw; {} where nothing


class Sampler(ABC):
    """What samplers share: `size` of `clients` clients a round, keyed by `seed`; options are constructor arguments.

    `most` is the most draws that a round can have, a client counted as often as it is drawn.  One with a `choose` of
    its own asks.
    """

    uniform: ClassVar[bool] = False  # the draw favours large clients already: an unbiased mean counts clients alike
    asks: ClassVar[bool] = False  # candidates' losses are needed before the cohort is known
    repeats: bool = False  # a client may be drawn more than once in a round

    def __init_subclass__(cls, **others: Any) -> None:
        super().__init_subclass__(**others)
        told = any("asks" in vars(kind) for kind in cls.__mro__ if kind is not Sampler)
        if not told and cls.choose is not Sampler.choose:
            cls.asks = True

    def __init__(self, seed: int, clients: int, size: int) -> None:
        self.seed, self.clients, self.size = seed, clients, size
        self.most = size

    @abstractmethod
    def draw(self, round: int) -> Drawn:
        """The clients of a round, from 1, whatever was drawn before; candidates alone where the sampler `asks`."""

    def choose(self, candidates: Drawn, losses: NDArray[np.float64]) -> Drawn:
        """The cohort among candidates whose losses `(len(candidates.clients),)` are known: all of them."""
        return candidates

    def sound(self, drawn: Drawn, most: int) -> Drawn:
        """What was drawn, if it is what was promised and no more than `most`; JobError says what is not."""
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
        """The generator of a round (or whatever else is numbered)."""
        return np.random.default_rng(np.random.SeedSequence(entropy(self.seed, number)))

    def some(self, round: int, clients: int, size: int) -> Clients:
        """`size` of the indices below `clients`, each as likely, without replacement, ascending."""
        if size >= clients:
            return np.arange(clients, dtype=np.int64)
        return np.sort(self.random(round).choice(clients, size, replace=False, shuffle=False)).astype(np.int64)


class Uniform(Sampler):
    """Every client as likely, without replacement."""

    def draw(self, round: int) -> Drawn:
        return _once(self.some(round, self.clients, self.size))


class Replacement(Sampler):
    """`size` draws, every client as likely in each, so a client may be drawn more than once."""

    repeats = True

    def draw(self, round: int) -> Drawn:
        return _counted(self.random(round).integers(self.clients, size=self.size))


class Poisson(Sampler):
    """Every client independently with probability `cohort.fraction`, or size / clients; nobody may come.

    What accounts of differential privacy assume: Abadi et al. 2016, "Deep Learning with Differential Privacy", and
    Mironov, Talwar, Zhang 2019, "Renyi Differential Privacy of the Sampled Gaussian Mechanism".
    """

    def __init__(self, seed: int, clients: int, size: int, rate: float | None = None) -> None:
        super().__init__(seed, clients, size)
        self.rate = size / clients if rate is None else rate  # cohort.fraction itself: no whole number of clients
        self.most = clients

    def draw(self, round: int) -> Drawn:
        return _once(np.flatnonzero(self.random(round).random(self.clients) < self.rate))


class ByExamples(Sampler):
    """`size` draws, each client with probability proportional to its examples.

    With replacement this is scheme I of Li, Huang, Yang, Wang, Zhang 2020, "On the Convergence of FedAvg on Non-IID
    Data", whose mean counts every draw alike and is unbiased.  Without, one client after another is drawn from those
    that are left, and the mean leans towards small ones.
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

    A round at the wrap takes the last clients and the first, which are others as long as size <= clients.  With
    `shuffle` every pass over the clients has an order of its own, and its last round may be smaller: filled up from the
    next pass, it might hold a client twice.
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
    """The `size` of `candidates` that have the highest loss; candidates are drawn by examples, without replacement.

    Cho, Wang, Joshi 2022, "Towards Understanding Biased Client Selection in Federated Learning" (d there).  Without
    `candidates` they are twice as many as the cohort, or all that hold examples where there are fewer.
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
        """The highest losses; ties go to the lower index, and clients that could not be scored (NaN) come last."""
        highest = np.argsort(-losses, kind="stable")[: self.size]
        return _once(candidates.clients[np.sort(highest)], **candidates.told)


class Trace(Sampler):
    """The first `size` to finish of those asked, on a simulated clock, where a `file` says who is there when.

    A round begins where the one before it closed, or when the next client comes if nobody is there.  It asks
    ceil(size * over) of the clients there, each as likely; one is done after its latency and work / speed.  It closes
    when `size` are done, when all that can be are, or `deadline` seconds after it began.  Those who left before they
    were done are gone, the rest are late, and neither trains.  With a `period` the file repeats every so many seconds.
    Work takes no time where the file has no speed: with neither latency nor speed the clock stands still.
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
        self.stays = read(file, ids(), period)
        self.begins = [Moment()]  # of rounds 1, 2, ...: as far as the clock has been followed

    def draw(self, round: int) -> Drawn:
        for earlier in range(len(self.begins), round):
            self._play(earlier)
        return self._play(round)

    def _play(self, round: int) -> Drawn:
        """One round from the moment at which it begins, which is known, and with it the moment of the next."""
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


def _once(clients: NDArray[Any], **told: Any) -> Drawn:
    return Drawn(clients.astype(np.int64), np.ones(len(clients), dtype=np.int64), told)


def _counted(draws: NDArray[np.int64]) -> Drawn:
    clients, times = np.unique(draws, return_counts=True)
    return Drawn(clients.astype(np.int64), times.astype(np.int64), {})


def _chances(sizes: NDArray[np.int64], needed: int) -> NDArray[np.float64]:
    """Probabilities proportional to examples, where at least `needed` clients must be possible."""
    holding = int(np.count_nonzero(sizes))
    if holding < needed:
        raise ValueError(f"{needed} different clients asked for; {holding} hold examples: take a smaller cohort")
    chances: NDArray[np.float64] = sizes / sizes.sum()
    return chances


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "uniform": Uniform,
    "replacement": Replacement,
    "poisson": Poisson,
    "examples": ByExamples,
    "round-robin": RoundRobin,
    "power-of-choice": PowerOfChoice,
    "trace": Trace,
}
