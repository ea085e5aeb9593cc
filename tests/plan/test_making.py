"""A model begins as its pretrained file says, tied weights too; what no vector of real numbers holds is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from fedmpi.job import JobError, read
from fedmpi.plan import assemble
from fedmpi.rounds.loops import LOOPS


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.b.weight = self.a.weight
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(torch.relu(self.b(torch.relu(self.a(x)))))
        return made


def made(job: dict[str, Any], model: Any, init: Path | None = None) -> nn.Module:
    options = {"name": "mine"} | ({} if init is None else {"init": str(init)})
    return assemble(read(job | {"model": options}), model=lambda shape, outputs: model(), loops=LOOPS).model


def test_a_tied_model_begins_as_it_was_saved(job: dict[str, Any], tmp_path: Path) -> None:
    """`save_model` keeps one of the names; a file with both is as good where they agree."""
    first, one, both = Tied(), tmp_path / "one.safetensors", tmp_path / "both.safetensors"
    save_model(first, str(one))
    save_file({name: tensor.clone() for name, tensor in first.state_dict().items()}, both)
    for path in (one, both):
        model = made(job, Tied, path)
        assert model.b.weight is model.a.weight
        assert all(torch.equal(tensor, first.state_dict()[name]) for name, tensor in model.state_dict().items())
    tensors = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    tensors["b.weight"] += 1
    save_file(tensors, both)
    with pytest.raises(JobError, match=r"other values for b\.weight than for a\.weight, which are one tensor"):
        made(job, Tied, both)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_file_of_another_floating_type_is_taken_over(job: dict[str, Any], tmp_path: Path, kind: torch.dtype) -> None:
    tensors = {name: tensor.to(kind) for name, tensor in nn.Linear(6, 3).state_dict().items()}
    save_file(tensors, tmp_path / "init.safetensors")
    model = made(job, lambda: nn.Linear(6, 3), tmp_path / "init.safetensors")
    assert all(torch.equal(tensor, tensors[name].float()) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("a.bias", torch.int8, "as int8, the model as float32"),
        ("count", torch.float32, "as float32, the model as int64"),
    ],
)
def test_numbers_of_another_kind_are_refused(
    job: dict[str, Any], tmp_path: Path, name: str, kind: torch.dtype, words: str
) -> None:
    tensors = {each: tensor.clone() for each, tensor in Tied().state_dict().items()}
    tensors[name] = tensors[name].to(kind)
    save_file(tensors, tmp_path / "init.safetensors")
    with pytest.raises(JobError, match=f"has {name} {words}"):
        made(job, Tied, tmp_path / "init.safetensors")


def with_part(part: Any, name: str = "odd") -> Any:
    def build() -> nn.Module:
        module = nn.Linear(6, 3)
        setattr(module, name, nn.Parameter(part())) if name == "odd" else module.register_buffer(name, part())
        return module

    return build


class Extra(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"a": 1}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (with_part(lambda: torch.zeros(2, dtype=torch.complex64)), "'odd' is complex64"),
        (with_part(lambda: torch.zeros(2, dtype=torch.complex128), "table"), "'table' is complex128"),
        (with_part(lambda: torch.zeros(2, device="meta")), "'odd' lies on the meta device"),
        (with_part(lambda: torch.eye(2).to_sparse(), "table"), "'table' is sparse_coo"),
        (with_part(lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "table"), "is quantised"),
        (lambda: nn.LazyLinear(3), "'weight' has no shape yet"),
        (lambda: Extra(6, 3), "its state_dict holds '_extra_state', a dict"),
    ],
    ids=["complex", "complex buffer", "meta", "sparse", "quantised", "lazy", "extra state"],
)
def test_what_no_vector_of_real_numbers_holds_is_refused_by_name(job: dict[str, Any], model: Any, words: str) -> None:
    with pytest.raises(JobError, match=rf"^model\.name: 'mine': .*{words}"):
        made(job, model)
