"""The pages of `docs/` say what there is, and what they show runs."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import fedmpi
from fedmpi.aggregation import Stage
from fedmpi.flow import Layout, Passage
from tests.crossings import passage_of

DOCS = Path(__file__).parent.parent / "docs"
STAGES = (DOCS / "stages.md").read_text(encoding="utf-8")
CLIENTS = 3


def block(page: str, language: str) -> str:
    [text] = re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)
    return str(text)


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that the page's own stage stands in."""
    module = ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    exec(block(STAGES, "python"), module.__dict__)
    return module


@pytest.mark.parametrize("name", [name for name in vars(Stage) if not name.startswith("_")])
def test_the_page_of_stages_tells_of_all_that_a_stage_may_say_or_do(name: str) -> None:
    assert re.search(rf"`{name}\b|passage\.{name}\b", STAGES)


@pytest.mark.parametrize("name", [name for name in Passage.__dataclass_fields__ if name != "layout"])
def test_it_tells_of_all_that_a_passage_says(name: str) -> None:
    assert re.search(rf"`(passage\.)?{name}\b", STAGES)


def test_its_stage_does_as_the_paper_s_lines(mine: ModuleType) -> None:
    """Algorithm 1 of Karimireddy et al. 2019, with its step size in the update: three rounds in NumPy."""
    layout = Layout(7, slice(0, 7), torch.float64)
    stage, generator = mine.ScaledSign(decay=0.9), np.random.default_rng(0)
    memory = {"error": torch.zeros(CLIENTS, 7, dtype=torch.float64)}
    errors = np.zeros((CLIENTS, 7))
    for _ in range(3):
        updates = generator.normal(size=(CLIENTS, 7))
        rows = torch.zeros(CLIENTS, layout.width, dtype=torch.float64)
        layout.planes(rows)[:, 0].copy_(torch.from_numpy(updates))
        sent = stage.encode(rows, passage_of(layout, [4] * CLIENTS, memory=memory))
        for client in range(CLIENTS):
            corrected = updates[client] + 0.9 * errors[client]
            signs = np.sign(corrected) * np.linalg.norm(corrected, 1) / 7
            errors[client] = corrected - signs
            np.testing.assert_allclose(layout.planes(sent)[client, 0].numpy(), signs, rtol=1e-12)
        np.testing.assert_allclose(memory["error"].numpy(), errors, rtol=1e-12, atol=1e-15)
        assert not layout.tail(sent).any()


def test_a_job_takes_it_as_the_page_says(mine: ModuleType, job: dict[str, Any]) -> None:
    plain = fedmpi.train(job)
    signs = fedmpi.train(job | tomllib.loads(block(STAGES, "toml")))
    assert not torch.equal(
        torch.nn.utils.parameters_to_vector(plain.model.parameters()),
        torch.nn.utils.parameters_to_vector(signs.model.parameters()),
    )
    assert signs.lines[-1]["train_loss"] < signs.lines[0]["train_loss"]
