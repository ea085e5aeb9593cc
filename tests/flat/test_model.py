"""A flat model is its model: the same values, the same outputs, the same gradients, in two vectors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fedmpi.flat import ALIGNMENT, FlatModel, keep_private
from tests import toy

DTYPES = [torch.float32, torch.float64]
every_model = pytest.mark.parametrize("name", toy.MODELS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def pair(name: str, dtype: torch.dtype = torch.float32) -> tuple[FlatModel, nn.Module]:
    """A model made flat, and the same model untouched."""
    model = toy.made(name)
    return FlatModel(copy.deepcopy(model), dtype=dtype), model.to(dtype)


def tensors(flat: FlatModel) -> list[Tensor]:
    """Every tensor of the model that should lie in `values`."""
    model = flat.model
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return trained + [buffer for buffer in model.buffers() if buffer.is_floating_point()]


def inside(tensor: Tensor, whole: Tensor) -> bool:
    start = whole.data_ptr()
    return start <= tensor.data_ptr() < start + whole.numel() * whole.itemsize


def loss(model: nn.Module, rows: int = 6) -> Tensor:
    parameter = next(model.parameters())
    x = torch.linspace(-1, 2, rows * 4, dtype=parameter.dtype).view(rows, 4)
    torch.manual_seed(3)  # dropout
    return nn.functional.cross_entropy(model(x), torch.arange(rows) % 3)


@every_model
@every_dtype
def test_values_are_the_model_s(name: str, dtype: torch.dtype) -> None:
    flat, model = pair(name, dtype)
    for (here, mine), (there, theirs) in zip(flat.model.state_dict().items(), model.state_dict().items(), strict=True):
        assert here == there
        assert torch.equal(mine, theirs)
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    for tensor_name, where in flat.slices.items():
        assert torch.equal(flat.values[where], own[tensor_name].detach().flatten())


@every_model
@every_dtype
def test_every_tensor_begins_on_a_cache_line_within_values(name: str, dtype: torch.dtype) -> None:
    flat, _ = pair(name, dtype)
    assert tensors(flat)
    for tensor in tensors(flat):
        assert tensor.dtype == dtype
        assert inside(tensor, flat.values)
        assert tensor.data_ptr() % ALIGNMENT == 0


@every_model
def test_no_two_tensors_overlap_and_padding_is_zero(name: str) -> None:
    flat, _ = pair(name)
    held = torch.zeros(len(flat.values), dtype=torch.int64)
    for where in flat.slices.values():
        held[where] += 1
    assert held.max() == 1
    assert not flat.values[held == 0].any()


@every_model
def test_a_forward_sees_what_is_written_into_values(name: str) -> None:
    flat, model = pair(name)
    random = torch.Generator().manual_seed(1)
    flat.values.copy_(torch.rand(len(flat.values), generator=random) + 0.1)  # positive: a variance is among them
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for tensor_name, where in flat.slices.items():
            own[tensor_name].copy_(flat.values[where].view(own[tensor_name].shape))
    model.eval()
    flat.model.eval()
    assert torch.equal(loss(flat.model), loss(model))


@every_model
@every_dtype
def test_gradients_in_grads_are_backward_s(name: str, dtype: torch.dtype) -> None:
    flat, model = pair(name, dtype)
    flat.write(flat.gradient(loss(flat.model)))
    loss(model).backward()
    for tensor_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            where = flat.slices[tensor_name]
            start = flat.trained.start
            mine = flat.grads[where.start - start : where.stop - start].view(parameter.shape)
            assert torch.equal(mine, parameter.grad)
    for view in flat.grad_views:
        assert inside(view, flat.grads)
        assert view.data_ptr() % ALIGNMENT == 0


@every_model
def test_grads_lie_as_what_is_trained_does(name: str) -> None:
    flat, _ = pair(name)
    assert len(flat.grads) == flat.trained.stop - flat.trained.start
    for value, grad in zip(flat.views, flat.grad_views, strict=True):
        place = (value.data_ptr() - flat.values[flat.trained].data_ptr()) // value.itemsize
        assert place == (grad.data_ptr() - flat.grads.data_ptr()) // grad.itemsize


@every_model
def test_the_trained_slice_holds_the_trainable_parameters_and_buffers_lie_behind(name: str) -> None:
    flat, model = pair(name)
    trainable = {key: value for key, value in model.named_parameters() if value.requires_grad}
    within = {key for key, where in flat.slices.items() if flat.trained.start <= where.start < flat.trained.stop}
    assert within == set(trainable)
    assert flat.count == sum(parameter.numel() for parameter in trainable.values())
    behind = {key for key, where in flat.slices.items() if where.start >= flat.trained.stop}
    assert behind == {key for key, buffer in model.named_buffers() if buffer.is_floating_point()}
    assert flat.shared == slice(0, len(flat.values))
    assert flat.size == len(flat.values)


def test_a_parameter_that_the_loss_does_not_reach_has_gradient_zero() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 3), "unused": nn.Linear(2, 2)})
    flat = FlatModel(model)
    flat.grads.fill_(7.0)
    flat.write(flat.gradient(model["used"](torch.ones(1, 4)).sum()))
    start = flat.slices["unused.weight"].start
    assert not flat.grads[start : start + 4].any()


def test_private_tensors_come_first_each_in_its_section() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    flat = FlatModel(model, private=keep_private(["1", "2.bias"]))
    order = sorted(flat.slices, key=lambda name: flat.slices[name].start)
    sections = [
        {"1.running_mean", "1.running_var"},
        {"1.weight", "1.bias", "2.bias"},
        {"0.weight", "0.bias", "2.weight"},
    ]
    place = 0
    for section in sections:
        assert set(order[place : place + len(section)]) == section
        place += len(section)
    assert place == len(order)
    assert flat.trained == slice(flat.slices[order[2]].start, len(flat.values))
    assert flat.shared == slice(flat.slices[order[5]].start, len(flat.values))


@pytest.mark.parametrize(
    ("prefixes", "name", "kept"),
    [
        (["head"], "head.weight", True),
        (["head"], "head", True),
        (["head"], "header.weight", False),
        (["head.bias"], "head.weight", False),
        ([], "head.weight", False),
    ],
)
def test_keep_private_goes_by_whole_names(prefixes: list[str], name: str, kept: bool) -> None:
    assert keep_private(prefixes)(name) is kept


def test_frozen_parameters_and_integer_buffers_stay_out() -> None:
    flat, model = pair("frozen")
    assert set(flat.slices) == {"2.weight", "2.bias"}
    flat.values.fill_(9.0)
    assert torch.equal(flat.model[0].weight, model[0].weight)
    normed, _ = pair("normed")
    assert "1.num_batches_tracked" not in normed.slices
    assert normed.model[1].num_batches_tracked.dtype == torch.int64


def test_tied_parameters_and_shared_buffers_are_there_once_and_stay_tied() -> None:
    flat, _ = pair("tied")
    assert sorted(flat.slices) == ["back.bias", "code.scale", "code.weight", "head.bias", "head.weight"]
    model = flat.model
    assert model.code.weight is model.back.weight
    assert model.code.scale.data_ptr() == model.back.scale.data_ptr()
    flat.values[flat.slices["code.weight"]] = 2.0
    flat.values[flat.slices["code.scale"]] = 3.0
    assert (model.back.weight == 2.0).all()
    assert (model.back.scale == 3.0).all()


@every_model
def test_state_dict_goes_round(name: str) -> None:
    flat, model = pair(name)
    kept = flat.state_dict()
    assert list(kept) == list(model.state_dict())
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())
    assert all(tensor.is_contiguous() and not inside(tensor, flat.values) for tensor in kept.values())
    before = flat.values.clone()
    flat.values.zero_()
    flat.model.load_state_dict(kept)
    assert torch.equal(flat.values, before)
    model.load_state_dict(kept)


def test_restore_gives_integer_buffers_what_they_began_with() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    model[1].num_batches_tracked.fill_(11)
    flat = FlatModel(model)
    model(torch.ones(3, 4))
    assert model[1].num_batches_tracked == 12
    flat.restore()
    assert model[1].num_batches_tracked == 11


def test_batch_statistics_are_written_into_values() -> None:
    flat, model = pair("normed")
    loss(flat.model)
    loss(model)
    where = flat.slices["1.running_mean"]
    assert torch.equal(flat.values[where], model[1].running_mean)
