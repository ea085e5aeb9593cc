"""Rows that one rank alone fills add up to exactly what each rank put there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.flow import Learned
from fedmpi.rounds.line import counters
from fedmpi.rounds.tally import Tally
from tests.fake import Fake, launch

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def enter(
    tally: Tally, place: int, examples: int, steps: int, loss: float, reason: int = 0, at: int = 0, changes: Any = ()
) -> None:
    """Enter one client, as the crossing does."""
    counts = torch.tensor([changes], dtype=torch.int64)
    learned = Learned(
        np.array([place]), torch.zeros(1, 0), np.array([examples]), np.array([steps]), np.array([loss]), counts
    )
    tally.clients(learned, np.array([[reason, at]]))
    tally.changed(counts, np.array([reason == 0]))


def filled(random: np.random.Generator, ranks: int, clients: int, scores: int) -> tuple[list[Tally], np.ndarray]:
    """A tally per rank, each client's row filled by one of them; and the rows."""
    names = tuple(f"score{place}" for place in range(scores))
    tallies = [Tally(ranks, clients, ("clipped",), names) for _ in range(ranks)]
    rows = np.empty((clients, 5 + scores))
    for place in range(clients):
        tally = tallies[random.integers(ranks)]
        examples, steps = int(random.integers(0, 100)), int(random.integers(0, 9))
        loss = float(random.normal()) if steps else math.nan
        reason, at = int(random.integers(0, 3)), int(random.integers(0, 99))
        enter(tally, place, examples, steps, loss, reason, at)
        row = random.normal(size=scores) * 10.0 ** random.integers(-9, 9)
        tally.score(place, row)
        rows[place] = [examples, steps, loss, reason, at, *row]
    for me, tally in enumerate(tallies):
        tally.rank(me, 0.1 * me, 0.3, {"clipped": me})
    return tallies, rows


@lawful
@given(ranks=st.integers(1, 6), clients=st.integers(0, 12), scores=st.integers(0, 3), seed=st.integers(0, 10**6))
def test_the_sum_holds_every_row_bit_for_bit(ranks: int, clients: int, scores: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    tallies, rows = filled(random, ranks, clients, scores)
    for order in (range(ranks), random.permutation(ranks)):
        total = Tally(ranks, clients, ("clipped",), tallies[0].scores)
        for me in order:
            total.vector += tallies[me].vector
        np.testing.assert_array_equal(total.rows, rows)
        assert total.rows.tobytes() == (rows + 0.0).tobytes()
        assert total.ranks[:, 0].tolist() == [0.1 * me for me in range(ranks)]
        assert total.ranks[:, 1].tolist() == [0.3] * ranks
        assert total.counted == {"clipped": sum(range(ranks))}


@lawful
@given(clients=st.integers(0, 12), seed=st.integers(0, 10**6))
def test_home_reads_what_the_rows_say(clients: int, seed: int) -> None:
    [tally], rows = filled(np.random.default_rng(seed), 1, clients, 2)
    assert tally.examples == sum(rows[:, 0])
    assert tally.steps == sum(rows[:, 1])
    assert tally.unfit == [(place, int(row[3]), int(row[4])) for place, row in enumerate(rows) if row[3]]
    np.testing.assert_array_equal(tally.client_scores, rows[:, 5:])
    trained = [row for row in rows if row[1] > 0]
    total = sum(row[0] for row in trained)
    if total:
        assert tally.loss == pytest.approx(sum(row[0] * row[2] for row in trained) / total)
    else:
        assert tally.loss is None


def test_a_client_that_did_not_train_does_not_spoil_the_loss() -> None:
    tally = Tally(1, 3, (), ())
    enter(tally, 0, 10, 2, 1.0)
    enter(tally, 1, 30, 0, math.nan)
    enter(tally, 2, 30, 3, 2.0)
    assert tally.loss == pytest.approx(1.75)


def test_over_ranks_it_is_one_reduction_of_float64() -> None:
    def work(comm: Fake) -> Tally:
        tally = Tally(comm.size, 4, (), ("accuracy",))
        for place in range(comm.me, 4, comm.size):
            enter(tally, place, place + 1, 1, 0.1 * place)
            tally.score(place, np.array([1 / (place + 3)]))
        tally.rank(comm.me, 1.5, 0.5, {})
        comm.reduce(tally.vector)
        return tally

    for ranks in (1, 2, 3):
        home = launch(ranks, work)[0]
        assert home.vector.dtype == torch.float64
        assert home.client_scores.ravel().tolist() == [1 / (place + 3) for place in range(4)]
        assert home.examples == 10
        assert home.ranks.tolist() == [[1.5, 0.5, 0.0]] * ranks


def test_rows_are_views_of_the_vector_that_travels() -> None:
    tally = Tally(2, 3, ("a", "b"), ("c",))
    assert tally.vector.numel() == 2 * (3 + 2) + 3 * (5 + 1)
    tally.vector.fill_(2.0)
    assert (tally.rows == 2.0).all()
    assert (tally.ranks == 2.0).all()


def test_several_clients_enter_as_one_by_one_and_those_unfit_change_no_count() -> None:
    random = np.random.default_rng(3)
    numbers = [random.integers(1, 50, 4), random.integers(1, 9, 4), random.normal(size=4)]
    changes, faults = random.integers(-2, 3, (4, 3)), np.array([[0, 0], [1, 7], [0, 0], [2, 5]])
    places = np.array([5, 0, 3, 1])
    together, apart = Tally(1, 6, (), (), 3), Tally(1, 6, (), (), 3)
    counts = torch.from_numpy(changes)
    together.clients(Learned(places, torch.zeros(4, 0), *numbers, counts), faults)
    together.changed(counts, faults[:, 0] == 0)
    for row, place in enumerate(places.tolist()):
        enter(apart, place, *(column[row] for column in numbers), *faults[row], changes=changes[row].tolist())
    assert torch.equal(together.vector, apart.vector)
    np.testing.assert_array_equal(together.changes, [changes[[0, 2]].sum(0), (changes[[0, 2]] != 0).sum(0)])


def test_a_tally_that_hides_tells_the_faults_of_clients_alone() -> None:
    tally = Tally(1, 2, (), (), hides=True)
    enter(tally, 0, 10, 2, 1.5)
    enter(tally, 1, 20, 3, 2.5, 1, 6)
    assert tally.rows.tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 6]]
    assert counters(tally, {"weight": 1.0}) == {"clients": 1, "weight": 1.0, "train_loss": None}
