"""A sampler of one's own: a draw that is not what was promised is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmpi.cohort.samplers import Drawn, Sampler
from fedmpi.job import JobError


class Fixed(Sampler):
    """Draws what it is told."""

    def __init__(self, clients: Any, times: Any, **traits: Any) -> None:
        super().__init__(seed=0, clients=5, size=3)
        self.drawn = Drawn(np.array(clients), np.array(times), {})
        vars(self).update(traits)

    def draw(self, round: int) -> Drawn:
        return self.drawn


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        (Fixed([0, 2], [1, 1]), None),
        (Fixed(np.zeros(0, dtype=int), np.zeros(0, dtype=int)), None),
        (Fixed([0, 2], [1, 2], repeats=True), None),
        (Fixed([0, 2], [1, 2]), "times; with repeats = False"),
        (Fixed([0, 2], [1, 3], repeats=True), "no more than 3 times"),
        (Fixed([0, 1, 2, 3], [1, 1, 1, 1]), "most = 3"),
        (Fixed([0, 2], [1, 0]), "drew clients 1, 0 times"),
        (Fixed([2, 0], [1, 1]), "drew clients 2, 0; they should be distinct, ascending and below 5"),
        (Fixed([2, 2], [1, 1]), "distinct"),
        (Fixed([-1, 2], [1, 1]), "drew clients -1, 2"),
        (Fixed([2, 5], [1, 1]), "below 5"),
        (Fixed([0.0, 2.0], [1, 1]), "whole numbers"),
        (Fixed([True, False], [1, 1]), "whole numbers"),
        (Fixed([0, 2], [1]), "(K,)"),
        (Fixed([[0], [2]], [[1], [1]]), "(K,)"),
    ],
)
def test_a_draw_that_is_not_what_was_promised_is_refused(sampler: Sampler, words: str | None) -> None:
    if words is None:
        assert sampler.sound(sampler.draw(1), sampler.most) is sampler.draw(1)
        return
    with pytest.raises(JobError) as refused:
        sampler.sound(sampler.draw(1), sampler.most)
    assert str(refused.value).startswith("cohort.sampler: Fixed ")
    assert words in str(refused.value)


def test_a_sampler_that_draws_something_else_is_told_what_it_should_be() -> None:
    with pytest.raises(JobError, match="Fixed drew a list; it should be a Drawn"):
        Fixed([0], [1]).sound([0], 1)


def test_a_sampler_that_chooses_asks() -> None:
    chooses = {"choose": lambda self, candidates, losses: candidates}
    assert type("Own", (Fixed,), chooses).asks
    assert not type("Own", (Fixed,), chooses | {"asks": False}).asks
    assert not Fixed.asks
