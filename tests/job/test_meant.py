"""A misplaced word in a job is told what was meant, as a job writes it."""

from __future__ import annotations

from typing import Any

import pytest

from fedmpi.job import JobError, Registry, read
from tests.job.refusals import LEAST, refusal


@pytest.mark.parametrize(
    ("table", "meant"),
    [
        ({"clip": {"bound": 1.0}}, '[[aggregation.stages]] name = "clip" bound = 1.0'),
        ({"clip": {}}, '[[aggregation.stages]] name = "clip" bound = ...'),
        ({"aggregation": {"clip": {"bound": 2.0}}}, '[[aggregation.stages]] name = "clip" bound = 2.0'),
        ({"aggregation": {"stages": {"clip": {"bound": 2.0}}}}, '[[aggregation.stages]] name = "clip" bound = 2.0'),
        ({"aggregation": {"stages": "fixed-point"}}, '[[aggregation.stages]] name = "fixed-point"'),
        ({"scaffold": {"option": 1}}, '[strategy] name = "scaffold" option = 1'),
        ({"adam": {}}, '[local.optimizer] name = "adam"'),
        ({"trace": {"file": "a.csv"}}, '[cohort.sampler] name = "trace" file = "a.csv"'),
        ({"cyclic": {}}, '[loop] name = "cyclic"'),
        ({"model": {"mlp": {"hidden": [3]}}}, '[model] name = "mlp" hidden = [3]'),
        ({"linear": {}}, '[model] name = "linear" or [local.schedule] name = "linear"'),
        ({"lr": 0.1}, "local.lr or server.lr"),
        ({"dtype": "float64"}, "model.dtype"),
        ({"clip": 1.0}, "local.clip"),
        ({"epochs": 5}, "local.epochs"),
        ({"sampler": "trace"}, "cohort.sampler"),
        ({"stratgy": "fedavg"}, "'strategy'"),
        ({"evaluation": {"evry": 1}}, "'every'"),
    ],
    ids=str,
)
def test_what_was_meant_is_shown_as_a_job_writes_it(table: Any, meant: str) -> None:
    said = refusal(LEAST | table)
    assert said.endswith(f"; did you mean {meant}?")
    assert "\n" not in said


def test_a_strategy_s_own_table_is_shown_right() -> None:
    table = read(LEAST | {"strategy": {"fedprox": {"mu": 0.5}}}).strategy
    with pytest.raises(JobError) as refused:
        Registry("strategy", {"fedavg": dict, "fedprox": dict}).choose(table)
    assert str(refused.value).endswith('; did you mean [strategy] name = "fedprox" mu = 0.5?')
