"""A wrong name is told the nearest right one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmpi import job
from fedmpi.job import nearest, registries
from tests.job.refusals import lawful

WORDS = sorted(
    {name for registry in registries().values() for name in registry} | {*job.Local.model_fields, *job.Job.model_fields}
)
letters = st.sampled_from("abcdefghijklmnopqrstuvwxyz")


@lawful
@given(name=st.sampled_from([known for known in WORDS if len(known) > 3]), place=st.integers(0, 30), letter=letters)
def test_a_name_with_a_letter_more_less_or_other_is_told_the_right_one(name: str, place: int, letter: str) -> None:
    at = place % len(name)
    for typo in (name[:at] + letter + name[at:], name[:at] + name[at + 1 :], name[:at] + letter + name[at + 1 :]):
        told = nearest(typo, WORDS)
        assert told.startswith("; did you mean '")
        right = told.split("'")[1]
        assert right == name or (right in WORDS and abs(len(right) - len(typo)) <= 2)  # iiadmm and iceadmm are near


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("FedAvg", "fedavg"), ("fed_avg", "fedavg"), ("round robin", "round-robin"), ("learning_rate", "lr"),
        ("batch_size", "batch"), ("eval", "evaluation"), ("sdg", "sgd"), ("scafold", "scaffold"),
    ],
)  # fmt: skip
def test_a_name_as_people_write_it_is_told_the_right_one(name: str, right: str) -> None:
    assert nearest(name, WORDS) == f"; did you mean {right!r}?"


@pytest.mark.parametrize("name", ["", "zzz", "0", "q", "\0", "x" * 10**6, 3, [0]])
def test_what_is_like_nothing_gets_no_advice(name: Any) -> None:
    assert nearest(name, WORDS) == ""
    assert nearest(name, []) == ""
