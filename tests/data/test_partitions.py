"""Partitions: every example goes to one client, the same ones for the same seed, as the papers say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmpi.data import PARTITIONS
from fedmpi.job import Component, JobError

LAWS = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def deal(name: str, y: NDArray[Any], clients: int | None, seed: int = 0, groups: Any = None, **given: Any) -> Any:
    rng = np.random.default_rng(seed)
    component = Component.model_validate({"name": name, **given})
    return PARTITIONS.choose(component, y=y, clients=clients, rng=rng, groups=groups)


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, NDArray[np.int64], int, dict[str, Any]]:
    name = draw(st.sampled_from(["iid", "shards", "dirichlet", "dirichlet-client"]))
    labels = np.array(draw(st.lists(st.integers(0, 5), min_size=1, max_size=200)))
    clients = draw(st.integers(1, 12))
    alpha = draw(st.sampled_from([1e-3, 0.1, 0.5, 1.0, 100.0]))
    told: dict[str, dict[str, Any]] = {
        "iid": {},
        "shards": {"per_client": draw(st.integers(1, 3))},
        "dirichlet": {"alpha": alpha, "least": 0},
        "dirichlet-client": {"alpha": alpha},
    }
    assume(len(labels) >= clients * told[name].get("per_client", 1))
    return name, labels, clients, told[name]


@LAWS
@given(case=cases(), seed=st.integers(0, 99))
def test_the_sum_over_clients_is_the_data(case: Any, seed: int) -> None:
    name, y, clients, told = case
    hands = deal(name, y, clients, seed, **told)
    dealt = np.sort(np.concatenate(hands))
    assert len(hands) == clients
    assert len(np.unique(dealt)) == len(dealt)
    if name == "dirichlet-client":  # of fixed size: the remainder goes to nobody
        assert {len(hand) for hand in hands} == {len(y) // clients}
    else:
        np.testing.assert_array_equal(dealt, np.arange(len(y)))


@LAWS
@given(case=cases(), seed=st.integers(0, 99))
def test_the_same_seed_deals_the_same(case: Any, seed: int) -> None:
    name, y, clients, told = case
    for one, other in zip(deal(name, y, clients, seed, **told), deal(name, y, clients, seed, **told), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["iid", "shards", "dirichlet", "dirichlet-client"])
def test_another_seed_deals_otherwise(name: str) -> None:
    y = np.arange(400) % 4
    assert not np.array_equal(deal(name, y, 4, seed=1)[0], deal(name, y, 4, seed=2)[0])


@LAWS
@given(examples=st.integers(1, 300), clients=st.integers(1, 20))
def test_iid_sizes_differ_by_one_at_most(examples: int, clients: int) -> None:
    assume(examples >= clients)
    sizes = [len(hand) for hand in deal("iid", np.zeros(examples, int), clients)]
    assert max(sizes) - min(sizes) <= 1


@LAWS
@given(case=cases(), per_client=st.integers(1, 4))
def test_shards_cut_sorted_labels(case: Any, per_client: int) -> None:
    """A shard is a run of the sorted labels, so each boundary between two labels falls into one shard at most."""
    _, y, clients, _ = case
    assume(len(y) >= clients * per_client)
    hands = deal("shards", y, clients, per_client=per_client)
    labels = [len(np.unique(y[hand])) for hand in hands]
    assert sum(labels) <= clients * per_client + len(np.unique(y)) - 1
    if np.bincount(y)[np.unique(y)].min() >= -(-len(y) // (clients * per_client)):  # no class within one shard
        assert max(labels) <= 2 * per_client


def test_shards_of_the_paper_hold_two_labels() -> None:
    """100 clients, 200 shards of 300 that end where classes of 6,000 do: two labels a client at most."""
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6000))
    hands = deal("shards", y, 100)
    assert {len(hand) for hand in hands} == {600}
    assert max(len(np.unique(y[hand])) for hand in hands) == 2


@LAWS
@given(seed=st.integers(0, 99), clients=st.integers(5, 30), per_client=st.integers(1, 5))
def test_labels_holds_so_many_labels_and_shares_each_among_its_holders(
    seed: int, clients: int, per_client: int
) -> None:
    """NIID-Bench: client i holds class i modulo K; what a class has is shared equally by whoever holds it."""
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(5), 60))
    hands = deal("labels", y, clients, seed, per_client=per_client)
    dealt = np.sort(np.concatenate(hands))
    np.testing.assert_array_equal(dealt, np.arange(len(y)))  # every class has a holder, so nothing is left over
    held = [np.unique(y[hand]) for hand in hands]
    assert {len(labels) for labels in held} == {per_client}
    assert all(client % 5 in labels for client, labels in enumerate(held))
    for label in range(5):
        parts = [
            np.count_nonzero(y[hand] == label) for hand, labels in zip(hands, held, strict=True) if label in labels
        ]
        assert max(parts) - min(parts) <= 1


def test_labels_that_nobody_holds_stay_out() -> None:
    y = np.arange(400) % 4
    hands = deal("labels", y, 2, per_client=1)
    assert [np.unique(y[hand]).tolist() for hand in hands] == [[0], [1]]


@pytest.mark.parametrize(("clients", "per_client", "told"), [(3, 5, "per_client"), (50, 1, "fewer clients")])
def test_labels_that_cannot_be_dealt_are_refused(clients: int, per_client: int, told: str) -> None:
    with pytest.raises(JobError, match=told):
        deal("labels", np.arange(40) % 4, clients, per_client=per_client)


def test_dirichlet_shares_of_a_class_have_dirichlet_moments() -> None:
    """The first class is cut before any client is full: its shares over clients are Dir(alpha) themselves."""
    clients, alpha, per_class, draws = 5, 0.7, 1000, 1000
    y = np.repeat(np.arange(2), per_class)
    shares = np.array(
        [
            [
                np.count_nonzero(y[hand] == 0) / per_class
                for hand in deal("dirichlet", y, clients, seed, alpha=alpha, least=0)
            ]
            for seed in range(draws)
        ]
    )
    variance = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    np.testing.assert_allclose(shares.mean(0), 1 / clients, atol=4 * np.sqrt(variance / draws) + 1 / per_class)
    np.testing.assert_allclose(shares.var(0), variance, rtol=0.2)


@LAWS
@given(seed=st.integers(0, 99), clients=st.integers(2, 10))
def test_dirichlet_gives_no_more_to_a_client_that_is_full(seed: int, clients: int) -> None:
    y = np.arange(1000) % 7
    counts = np.array([np.bincount(y[hand], minlength=7) for hand in deal("dirichlet", y, clients, seed, least=0)])
    before = np.cumsum(counts, axis=1) - counts
    full = before >= len(y) / clients
    full[-1] = False  # takes what rounding leaves over
    assert not counts[full].any()


@LAWS
@given(seed=st.integers(0, 99), least=st.integers(0, 40))
def test_dirichlet_gives_everybody_the_least(seed: int, least: int) -> None:
    sizes = [len(hand) for hand in deal("dirichlet", np.arange(1000) % 10, 10, seed, alpha=0.5, least=least)]
    assert min(sizes) >= least


def test_dirichlet_gives_up_with_the_remedy() -> None:
    with pytest.raises(JobError, match="a larger alpha or a smaller least"):
        deal("dirichlet", np.arange(100) % 2, 10, alpha=0.01, least=10)


def test_dirichlet_client_draws_classes_around_the_prior() -> None:
    """Of the first client, which finds every class in stock: q ~ Dir(alpha * prior), then a multinomial of n."""
    alpha, clients, draws = 2.0, 50, 200
    prior = np.array([0.5, 0.3, 0.2])
    y = np.repeat(np.arange(3), (prior * 5000).astype(int))
    size = len(y) // clients
    shares = np.array(
        [
            np.bincount(y[deal("dirichlet-client", y, clients, seed, alpha=alpha)[0]], minlength=3) / size
            for seed in range(draws)
        ]
    )
    spread = prior * (1 - prior) / (alpha + 1)
    variance = spread + (prior * (1 - prior) - spread) / size
    np.testing.assert_allclose(shares.mean(0), prior, atol=4 * np.sqrt(variance.max() / len(shares)))
    np.testing.assert_allclose(shares.var(0), variance, rtol=0.35)


def test_the_two_dirichlets_differ() -> None:
    """At the same alpha: one varies in size, the other does not."""
    y = np.arange(6000) % 10
    sizes = {name: {len(hand) for hand in deal(name, y, 20)} for name in ("dirichlet", "dirichlet-client")}
    assert len(sizes["dirichlet"]) > 1
    assert sizes["dirichlet-client"] == {300}


def test_natural_gives_each_value_its_examples() -> None:
    groups = np.array(["b", "a", "c", "a", "b"])
    hands = deal("natural", np.arange(5), None, groups=groups)
    assert {name: rows.tolist() for name, rows in hands.items()} == {"a": [1, 3], "b": [0, 4], "c": [2]}


def test_natural_is_refused_without_a_client_column() -> None:
    with pytest.raises(JobError, match="no client column"):
        deal("natural", np.arange(5), None)


def test_natural_knows_how_many_clients_there_are() -> None:
    with pytest.raises(JobError, match="holds 2 clients, not 3"):
        deal("natural", np.arange(4), 3, groups=np.array([1, 2, 1, 2]))


@pytest.mark.parametrize("name", ["shards", "dirichlet", "dirichlet-client"])
def test_numbers_are_not_dealt_by_label(name: str) -> None:
    with pytest.raises(JobError, match=f"partition: '?{name}'?: .*labels"):
        deal(name, np.linspace(0, 1, 50), 2)


@pytest.mark.parametrize("name", ["iid", "shards", "dirichlet", "dirichlet-client"])
def test_too_few_examples_are_refused(name: str) -> None:
    with pytest.raises(JobError, match="3 examples are too few"):
        deal(name, np.arange(3), 4)


def test_what_make_fills_in_is_no_option() -> None:
    found = {name: set(PARTITIONS.options(name)) for name in PARTITIONS}
    assert found == {
        "iid": set(),
        "shards": {"per_client"},
        "labels": {"per_client"},
        "dirichlet": {"alpha", "least"},
        "dirichlet-client": {"alpha"},
        "natural": set(),
    }
