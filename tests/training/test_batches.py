"""Every example once an epoch, in batches of the right size, whatever is copied at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.job import Local
from fedmpi.training import batches as module
from fedmpi.training.batches import batches, smallest, steps, work
from tests.toy import Classify

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=150)
TASK = Classify(torch.float32)


def drawn(
    examples: int, batch: int, count: int, seed: int = 0, remainder: str = "keep"
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.arange(examples * 3, dtype=torch.uint8).view(examples, 3)
    generator = torch.Generator().manual_seed(seed)
    return list(batches(x, torch.arange(examples), TASK, batch, count, generator, torch.device("cpu"), remainder))


@lawful
@given(
    examples=st.integers(1, 40),
    batch=st.integers(0, 50),
    count=st.integers(0, 60),
    block=st.sampled_from([1, 24, 100, 2**23]),
    seed=st.integers(0, 5),
)
def test_every_example_comes_once_an_epoch(examples: int, batch: int, count: int, block: int, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        got = drawn(examples, batch, count, seed)
    assert len(got) == count
    size = min(batch or examples, examples)
    epoch = -(-examples // size)
    for place, (inputs, targets) in enumerate(got):
        last = place % epoch == epoch - 1
        assert len(targets) == (examples - (epoch - 1) * size if last else size)
        assert torch.equal(inputs[:, 0].to(torch.uint8), (targets * 3).to(torch.uint8))  # x and y stay together
    for start in range(0, count, epoch):
        seen = torch.cat([targets for _, targets in got[start : start + epoch]]).tolist()
        assert len(set(seen)) == len(seen)
        if count - start >= epoch:
            assert sorted(seen) == list(range(examples))


@lawful
@given(examples=st.integers(2, 40), batch=st.integers(1, 20), block=st.sampled_from([1, 24, 100]))
def test_what_is_copied_at_once_changes_no_batch(examples: int, batch: int, block: int) -> None:
    whole = drawn(examples, batch, 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        parts = drawn(examples, batch, 12)
    for (x, y), (other_x, other_y) in zip(whole, parts, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def test_the_order_is_new_each_epoch_and_the_generator_s_own() -> None:
    first = torch.cat([y for _, y in drawn(30, 5, 6)])
    both = torch.cat([y for _, y in drawn(30, 5, 12)])
    assert torch.equal(first, both[:30])
    assert not torch.equal(both[:30], both[30:])
    assert not torch.equal(first, torch.cat([y for _, y in drawn(30, 5, 6, seed=1)]))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    drawn(30, 5, 6)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("batch", [0, 7, 100])
def test_a_full_batch_is_all_examples_in_their_order(batch: int) -> None:
    for _, y in drawn(7, batch, 3):
        assert y.tolist() == list(range(7))


def test_inputs_are_the_task_s() -> None:
    inputs, _ = drawn(5, 2, 1)[0]
    assert inputs.dtype == torch.float32


@lawful
@given(examples=st.integers(1, 60), batch=st.integers(0, 70), epochs=st.integers(1, 5))
def test_steps_are_what_the_epochs_come_to(examples: int, batch: int, epochs: int) -> None:
    count = steps(examples, batch, epochs, None)
    seen = sum(len(y) for _, y in drawn(examples, batch, count))
    assert seen == epochs * examples
    assert sum(len(y) for _, y in drawn(examples, batch, count - 1)) < seen


def test_wanted_steps_are_taken_whatever_the_examples() -> None:
    assert steps(3, 10, None, 25) == 25
    assert steps(0, 0, None, 4) == 4
    assert steps(10, 3, None, None) == 4


# What is left of an epoch behind its last whole batch.


def epoch(examples: int, batch: int, remainder: str) -> list[int]:
    """Oracle: the sizes of one epoch's batches, counted one example at a time."""
    sizes = [0]
    for _ in range(examples):
        if sizes[-1] == (batch or examples):
            sizes.append(0)
        sizes[-1] += 1
    if len(sizes) > 1 and sizes[-1] < batch and remainder != "keep":
        left = sizes.pop()
        sizes[-1] += left if remainder == "merge" else 0
    return sizes


remainders = st.sampled_from(["keep", "drop", "merge"])


@lawful
@given(
    examples=st.integers(1, 40),
    batch=st.integers(0, 50),
    count=st.integers(0, 30),
    remainder=remainders,
    block=st.sampled_from([1, 24, 100, 2**23]),
)
def test_a_remainder_is_kept_dropped_or_merged(
    examples: int, batch: int, count: int, remainder: str, block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        got = [targets for _, targets in drawn(examples, batch, count, remainder=remainder)]
    sizes = epoch(examples, batch, remainder)
    assert [len(targets) for targets in got] == (sizes * count)[:count]
    assert steps(examples, batch, 3, None, remainder) == 3 * len(sizes)
    for start in range(0, count, len(sizes)):
        seen = torch.cat(got[start : start + len(sizes)]).tolist()
        assert len(set(seen)) == len(seen)
        if remainder != "drop" and count - start >= len(sizes):
            assert sorted(seen) == list(range(examples))


@lawful
@given(examples=st.integers(1, 40), batch=st.integers(1, 20), remainder=remainders)
def test_what_is_dropped_or_merged_leaves_the_whole_batches_as_they_are(
    examples: int, batch: int, remainder: str
) -> None:
    if remainder == "merge" and examples < 2 * batch:
        return  # one batch takes all: no order is drawn
    whole = max(1, examples // batch)
    kept, others = drawn(examples, batch, whole), drawn(examples, batch, whole, remainder=remainder)
    for (_, y), (_, other) in zip(kept, others, strict=True):
        assert torch.equal(other[: len(y)], y)


@lawful
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    batch=st.integers(0, 20),
    epochs=st.integers(1, 3),
    remainder=remainders,
    wanted=st.none() | st.integers(1, 12),
)
def test_the_smallest_batch_and_the_work_are_those_of_the_batches(
    sizes: list[int], batch: int, epochs: int, remainder: str, wanted: int | None
) -> None:
    local = Local(batch=batch, epochs=epochs, remainder=remainder)
    each = np.array(sizes)
    cuts = [epoch(size, batch, remainder) for size in sizes]
    least = [min(cut[:wanted]) if wanted is not None else min(cut) for cut in cuts]
    assert smallest(each, local, wanted).tolist() == least
    assert work(each, local).tolist() == [epochs * sum(cut) for cut in cuts]
