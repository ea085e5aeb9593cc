"""Home scores while others train, and never holds up their sum."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from fedmpi.evaluation import Scorer
from fedmpi.rounds.beside import Beside
from fedmpi.rounds.crossing import Crossing
from tests.rounds.test_run import FIXED, on, weights, without_times


def test_a_round_is_summed_while_its_model_is_still_being_scored(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job |= FIXED | {"rounds": 3}
    plain = on(3, job)[0]
    summed, held = threading.Event(), []
    central, commit = Scorer.central, Crossing.commit

    def slow(self: Scorer, *parts: Any) -> Any:
        if threading.current_thread().name.startswith("beside"):
            held.append(not summed.wait(20))
            summed.clear()
        return central(self, *parts)

    def through(self: Crossing) -> None:
        commit(self)
        if self.parts.comm.is_home and self.due:
            summed.set()

    monkeypatch.setattr(Scorer, "central", slow)
    monkeypatch.setattr(Crossing, "commit", through)
    # The final model is scored when all is over.
    run = on(3, job, on_round=lambda line: summed.set() if line["round"] == 2 else None)[0]
    assert held[:2] == [False, False]
    assert torch.equal(weights(run), weights(plain))
    assert without_times(run.lines) == without_times(plain.lines)


def test_what_scoring_raises_ends_the_run(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Scorer, *parts: Any) -> Any:
        raise ZeroDivisionError("in the metric")

    monkeypatch.setattr(Scorer, "central", fails)
    with pytest.raises(BaseException, match="in the metric"):
        on(3, job)


@pytest.mark.parametrize("waits", [True, False])
def test_work_is_done_with_this_rank_s_threads(waits: bool) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        beside = Beside(waits)
        end = beside.start(lambda: (torch.get_num_threads(), threading.current_thread().name))
        threads, name = end()
        assert threads == 2
        assert name.startswith("beside") == waits
        assert end() == (threads, name)
    finally:
        torch.set_num_threads(before)


def test_its_error_is_raised_where_the_result_is_asked_for() -> None:
    end = Beside(True).start(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        end()
