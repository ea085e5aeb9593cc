"""The refusal of a job, in a person's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings

from fedmpi.job import JobError, read

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=200)
LEAST: dict[str, Any] = {"rounds": 3, "data": {"shards": "digits"}, "model": "mlp"}
INTERNALS = (
    "pydantic",
    "Input should",
    "Traceback",
    "tuple",
    "input_value",
    "https://",
    "unable to parse",
    " a integer",
)


def refusal(table: Mapping[str, Any], *overrides: str) -> str:
    """What a person is told of a job that cannot be: they should find their words in it, and none of pydantic's."""
    with pytest.raises(JobError) as refused:
        read(table, overrides)
    assert refused.value.code == 2
    text = str(refused.value)
    for word in INTERNALS:
        assert word not in text, text
    return text
