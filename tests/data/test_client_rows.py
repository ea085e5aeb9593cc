"""Which rows are kept aside, and which clients go in which file."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.data.client_rows import cuts, offsets, split

LAWS = settings(derandomize=True, database=None, deadline=None, max_examples=100)
SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=20)


@LAWS
@given(sizes=SIZES, fraction=st.floats(0, 0.99), seed=st.integers(0, 99))
def test_train_and_held_out_are_all_rows_of_each_client(sizes: list[int], fraction: float, seed: int) -> None:
    rows = np.random.default_rng(seed).permutation(sum(sizes))
    train, heldout = split(rows, np.array(sizes), fraction, np.random.default_rng(seed))
    start = 0
    for client, size in enumerate(sizes):
        kept, aside = (part.rows[part.offsets[client] : part.offsets[client + 1]].tolist() for part in (train, heldout))
        assert sorted(kept + aside) == sorted(rows[start : start + size].tolist())
        assert kept == sorted(kept)
        assert aside == sorted(aside)
        assert abs(len(aside) - fraction * size) <= 1
        assert kept or not size  # the last example is for training
        start += size


def test_what_is_held_out_is_drawn_at_random() -> None:
    """Each row of a client is as likely: 2 of 10, in 4,000 draws, is 800 +- 4 standard deviations."""
    drawn = np.zeros(10)
    for seed in range(40):
        _, heldout = split(np.arange(1000), np.full(100, 10), 0.2, np.random.default_rng(seed))
        np.add.at(drawn, heldout.rows % 10, 1)
    assert drawn.sum() == 8000
    assert np.abs(drawn - 800).max() < 4 * np.sqrt(4000 * 0.2 * 0.8)


@LAWS
@given(sizes=SIZES, data=st.data())
def test_files_hold_consecutive_clients_and_about_as_many_examples(sizes: list[int], data: st.DataObject) -> None:
    files = data.draw(st.integers(1, len(sizes)))
    found = cuts(offsets(sizes), files)
    assert found[0] == 0
    assert found[-1] == len(sizes)
    assert np.diff(found).min() >= 1
    if max(sizes) == min(sizes):
        assert np.ptp(np.diff(found)) <= 1
