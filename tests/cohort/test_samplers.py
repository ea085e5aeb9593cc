"""Every sampler gives the same lawful cohort for a seed and a round, and draws clients as often as its paper says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmpi.cohort.samplers import SAMPLERS, Drawn, Sampler
from fedmpi.flow import entropy
from fedmpi.job import Component, JobError

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=30)

CASES: list[tuple[str, dict[str, Any]]] = [
    ("uniform", {}),
    ("replacement", {}),
    ("poisson", {}),
    ("examples", {}),
    ("examples", {"replacement": False}),
    ("round-robin", {}),
    ("round-robin", {"shuffle": True}),
    ("power-of-choice", {}),
    ("trace", {"over": 1.3, "deadline": 9.0, "period": 50.0}),
]
every_sampler = pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{name}{given}" for name, given in CASES])


def names(clients: int) -> list[str]:
    return [f"site-{index}" for index in range(clients)]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of traces: by number of clients, everyone comes once in 50 seconds; the first is always there."""
    folder = tmp_path_factory.mktemp("traces")
    for clients in [*range(1, 41), 1000]:
        lines = ["client,start,end,speed,latency", "site-0,0,,3,0.5"]
        lines += [f"site-{index},{index % 30},{index % 30 + 20},{1 + index % 7},0" for index in range(1, clients)]
        (folder / f"{clients}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def made(
    name: str,
    options: dict[str, Any],
    seed: int,
    clients: int,
    size: int,
    traced: Path | None = None,
    sizes: Sequence[int] | None = None,
) -> Sampler:
    """A sampler as the trainer makes it: by name, from a job's table."""
    examples = np.arange(1, clients + 1) if sizes is None else np.array(sizes)
    if traced is not None and name == "trace":
        options = {"file": str(traced / f"{clients}.csv"), **options}
    sampler: Sampler = SAMPLERS.choose(
        Component(name=name, **options),
        seed=seed,
        clients=clients,
        sizes=examples,
        ids=lambda: names(clients),
        size=size,
        work=1 + np.arange(clients) % 12,
    )
    return sampler


def same(one: Drawn, other: Drawn) -> bool:
    return (
        np.array_equal(one.clients, other.clients)
        and np.array_equal(one.times, other.times)
        and one.notes == other.notes
    )


def test_every_sampler_is_under_the_laws() -> None:
    assert {name for name, _ in CASES} == set(SAMPLERS)


@every_sampler
@lawful
@given(data=st.data())
def test_a_draw_is_lawful_and_the_same_in_any_order_of_asking(
    traced: Path, name: str, options: dict[str, Any], data: st.DataObject
) -> None:
    clients = data.draw(st.integers(1, 40))
    size = data.draw(st.integers(1, clients))
    seed = data.draw(st.integers(0, 2**63 - 1))
    forwards = made(name, options, seed, clients, size, traced)
    drawn = {round: forwards.draw(round) for round in range(1, 9)}
    for one in drawn.values():
        assert one.clients.dtype == one.times.dtype == np.int64
        assert one.clients.shape == one.times.shape
        assert (np.diff(one.clients) > 0).all()
        assert ((one.clients >= 0) & (one.clients < clients)).all()
        assert (one.times >= 1).all()
        assert forwards.asks or one.times.sum() <= forwards.most
    anyhow = made(name, options, seed, clients, size, traced)
    for round in data.draw(st.permutations(range(1, 9))):
        assert same(anyhow.draw(round), drawn[round])


@every_sampler
def test_rounds_and_seeds_draw_differently(traced: Path, name: str, options: dict[str, Any]) -> None:
    sampler = made(name, options, 1, 1000, 10, traced)
    cohorts = [tuple(sampler.draw(round).clients) for round in range(1, 31)]
    large = [cohort for cohort in cohorts if len(cohort) > 5]  # a trace may have two rounds that nobody finishes
    assert len(set(large)) == len(large) > 20
    seeds = {tuple(made(name, options, seed, 1000, 10, traced).draw(1).clients) for seed in range(10)}
    assert len(seeds) == (1 if (name, options) == ("round-robin", {}) else 10)


@every_sampler
def test_who_does_not_ask_for_losses_takes_all_it_drew(traced: Path, name: str, options: dict[str, Any]) -> None:
    sampler = made(name, options, 1, 20, 5, traced)
    drawn = sampler.draw(1)
    losses = np.arange(len(drawn.clients), dtype=np.float64)
    assert sampler.asks == (name == "power-of-choice")
    assert (sampler.choose(drawn, losses) is drawn) == (not sampler.asks)


def test_a_mean_counts_clients_alike_where_the_draw_favours_large_ones() -> None:
    assert {name for name, factory in SAMPLERS.items() if getattr(factory, "uniform", False)} == {
        "examples",
        "power-of-choice",
    }


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"trace"}))
def test_ids_are_read_by_no_one_but_the_trace(name: str) -> None:
    """A shard set's 100,000 ids take time and memory."""

    def ids() -> list[str]:
        raise AssertionError("were read")

    arguments = {"seed": 1, "clients": 3, "size": 2, "sizes": np.ones(3, dtype=np.int64), "ids": ids}
    sampler: Sampler = SAMPLERS.choose(Component(name=name), **arguments)
    assert sampler.draw(1).notes == ({"candidates": 3} if sampler.asks else {})


@lawful
@given(seed=st.integers(0, 2**63 - 1), round=st.integers(1, 10**6), clients=st.integers(1, 500), data=st.data())
def test_uniform_is_the_draw_that_runs_were_made_with(seed: int, round: int, clients: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, clients))
    random = np.random.default_rng(np.random.SeedSequence(entropy(seed, round)))
    expected = np.sort(random.choice(clients, size, replace=False, shuffle=False))
    drawn = made("uniform", {}, seed, clients, size).draw(round)
    assert drawn.clients.tolist() == (expected.tolist() if size < clients else list(range(clients)))
    assert drawn.times.tolist() == [1] * size


def test_uniform_is_what_it_was() -> None:
    """As numbers, so that a resumed run meets the cohorts that it had: numpy's streams are part of that promise."""
    assert made("uniform", {}, 0, 100, 5).draw(1).clients.tolist() == [2, 38, 43, 76, 85]


def test_a_draw_of_few_among_many_is_quick() -> None:
    assert len(SAMPLERS["uniform"](1, 10**8, 100).draw(1).clients) == 100


def counts(sampler: Sampler, rounds: int) -> NDArray[np.int64]:
    """How often each client was drawn."""
    total = np.zeros(sampler.clients, dtype=np.int64)
    for round in range(1, rounds + 1):
        drawn = sampler.draw(round)
        total[drawn.clients] += drawn.times
    return total


def assert_near(seen: NDArray[np.int64], chances: NDArray[np.float64], trials: int) -> None:
    """Binomial counts within five standard deviations."""
    expected = trials * chances
    assert (abs(seen - expected) <= 5 * np.sqrt(expected * (1 - chances))).all()


def test_replacement_counts_every_draw_and_every_client_is_as_likely() -> None:
    sampler = made("replacement", {}, 3, 12, 9)
    drawn = [sampler.draw(round) for round in range(1, 1001)]
    assert {int(one.times.sum()) for one in drawn} == {9}
    assert max(int(one.times.max()) for one in drawn) > 2
    assert_near(counts(sampler, 1000), np.full(12, 1 / 12), 9000)


def test_poisson_clients_come_independently_at_the_rate_asked_for() -> None:
    clients, size, rounds = 30, 6, 4000
    sampler = made("poisson", {}, 3, clients, size)
    assert sampler.most == clients
    assert_near(counts(sampler, rounds), np.full(clients, size / clients), rounds)
    cohorts = np.array([len(sampler.draw(round).clients) for round in range(1, rounds + 1)])
    assert abs(cohorts.mean() - size) < 5 * math.sqrt(size * (1 - size / clients) / rounds)
    variance = size * (1 - size / clients)  # of a binomial; a cohort of one size has none
    assert abs(cohorts.var() / variance - 1) < 5 * math.sqrt(2 / rounds)
    assert abs((cohorts == 0).mean() - (1 - size / clients) ** clients) < 0.002


def test_poisson_may_draw_nobody_or_must_draw_everybody() -> None:
    assert any(len(made("poisson", {}, 0, 4, 1).draw(round).clients) == 0 for round in range(1, 30))
    assert made("poisson", {}, 0, 4, 4).draw(1).clients.tolist() == [0, 1, 2, 3]


def test_by_examples_is_proportional_and_its_uniform_mean_unbiased() -> None:
    """Li et al. 2020, scheme I: E[sum of x over the draws] / K is the mean of x weighted by examples."""
    sizes = np.array([1, 0, 5, 14, 30])
    sampler = made("examples", {}, 3, 5, 4, sizes=sizes)
    seen = counts(sampler, 4000)
    assert_near(seen, sizes / 50, 16_000)
    values = np.array([3.0, 100.0, -1.0, 0.5, 2.0])
    assert abs((values * seen).sum() / 16_000 - (values * sizes).sum() / 50) < 0.03


def in_turn(sizes: Sequence[int], draws: int) -> NDArray[np.float64]:
    """Chance that each client is among `draws`, one after another by examples from those left, over all orders."""
    among = np.zeros(len(sizes))
    for order in itertools.permutations(range(len(sizes)), draws):
        chance, left = 1.0, sum(sizes)
        for client in order:
            chance *= sizes[client] / left
            left -= sizes[client]
            if chance == 0:
                break
        among[list(order)] += chance
    return among


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [("examples", {"replacement": False}, 3), ("power-of-choice", {"candidates": 3}, 2), ("power-of-choice", {}, 2)],
)
def test_without_replacement_clients_are_drawn_by_examples_in_turn(
    name: str, options: dict[str, Any], size: int
) -> None:
    sizes = [2, 9, 0, 4, 1, 6]
    sampler = made(name, options, 3, 6, size, sizes=sizes)
    drawn = len(sampler.draw(1).clients)
    assert drawn == (4 if (name, options) == ("power-of-choice", {}) else 3)
    assert_near(counts(sampler, 4000), in_turn(sizes, drawn), 4000)


@lawful
@given(clients=st.integers(1, 40), data=st.data())
def test_round_robin_takes_the_next_clients_round_and_round(clients: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, clients))
    sampler = made("round-robin", {}, 0, clients, size)
    turns = itertools.cycle(range(clients))
    for round in range(1, 2 * clients + 2):
        assert sampler.draw(round).clients.tolist() == sorted(itertools.islice(turns, size))


@lawful
@given(clients=st.integers(1, 40), seed=st.integers(0, 2**63 - 1), data=st.data())
def test_a_shuffled_pass_serves_everybody_once(clients: int, seed: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, clients))
    sampler = made("round-robin", {"shuffle": True}, seed, clients, size)
    rounds = iter(range(1, 10**6))
    for _ in range(3):
        served: list[int] = []
        while len(served) < clients:
            cohort = sampler.draw(next(rounds)).clients.tolist()
            assert len(cohort) == min(size, clients - len(served))
            served += cohort
        assert sorted(served) == list(range(clients))


def test_every_shuffled_pass_has_its_own_order() -> None:
    sampler = made("round-robin", {"shuffle": True}, 1, 20, 4)
    passes = {tuple(tuple(sampler.draw(turn * 5 + place).clients) for place in range(1, 6)) for turn in range(50)}
    assert len(passes) == 50


@lawful
@given(data=st.data())
def test_power_of_choice_keeps_the_highest_losses(data: st.DataObject) -> None:
    """Against a plain sort; few distinct losses, so that there are ties."""
    clients = data.draw(st.integers(1, 30))
    size = data.draw(st.integers(1, clients))
    candidates = data.draw(st.integers(size, clients))
    sampler = made("power-of-choice", {"candidates": candidates}, 7, clients, size)
    drawn = sampler.draw(1)
    assert drawn.notes == {"candidates": candidates}
    assert len(drawn.clients) == candidates
    some = st.sampled_from([0.0, 0.5, 2.0, math.inf, math.nan])
    losses = data.draw(st.lists(some, min_size=candidates, max_size=candidates))
    ranked = sorted(
        zip(drawn.clients.tolist(), losses, strict=True),
        key=lambda one: (math.isnan(one[1]), 0 if math.isnan(one[1]) else -one[1], one[0]),
    )
    chosen = sampler.choose(drawn, np.array(losses))
    assert chosen.clients.tolist() == sorted(client for client, _ in ranked[:size])
    assert chosen.times.tolist() == [1] * size
    assert chosen.notes == {"candidates": candidates}
    assert sampler.most == size


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("power-of-choice", {"candidates": 2}, "candidates: 2 given; should be from 3, the cohort, to 4"),
        ("power-of-choice", {"candidates": 5}, "candidates: 5 given; should be from 3, the cohort, to 4"),
        ("power-of-choice", {"candidates": 0}, "cohort.sampler.candidates: 0 given"),
        ("examples", {"replacement": "no"}, "cohort.sampler.replacement: 'no' given"),
        ("round-robin", {"shuffled": True}, "cohort.sampler.shuffled: is not an option of round-robin; it has shuffle"),
        ("trace", {}, "cohort.sampler.file: is missing"),
        ("trace", {"file": "a.csv", "over": 0.9}, "cohort.sampler.over: 0.9 given"),
    ],
)
def test_wrong_options_are_told_by_name(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        made(name, options, 1, 5, 3, sizes=[4, 0, 2, 2, 2])


@pytest.mark.parametrize(("name", "options"), [("examples", {"replacement": False}), ("power-of-choice", {})])
def test_clients_without_examples_cannot_be_drawn_by_examples(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="4 different clients asked for; 3 hold examples: take a smaller cohort"):
        made(name, options, 1, 5, 4, sizes=[1, 0, 2, 0, 3])
