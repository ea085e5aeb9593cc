"""The README says what there is."""

from __future__ import annotations

from fedmpi.cohort.samplers import SAMPLERS
from fedmpi.rounds.loops import LOOPS
from fedmpi.strategies import STRATEGIES
from tests.readme import README, made


def test_its_tables_are_those_of_the_dicts() -> None:
    text = README.read_text(encoding="utf-8")
    assert made(text) == text, "make readme writes them anew"


def test_it_names_every_strategy_sampler_and_loop() -> None:
    text = README.read_text(encoding="utf-8")
    for name in (*STRATEGIES, *SAMPLERS, *LOOPS):
        assert f"| `{name}` |" in text
