"""Laws over every stage: what is decoded of a sum is the weighted mean, within what the stage declares."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmpi.aggregation import STAGES, ReducePath, Stage, pipeline
from fedmpi.aggregation.paths import entry
from fedmpi.aggregation.stages import FixedPoint, Weigh
from fedmpi.comm import Solo
from fedmpi.flow import Layout
from fedmpi.job import Aggregation, Component
from tests.crossings import add, passage_of

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=40)
WIDE = {"clip": {"bound": 1e6}}  # options that a stage must be given, and with which it changes no value
CAP, MOST = 50, 7
DTYPES = [torch.float32, torch.float64]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
LAYOUTS = [
    (1, ("examples",), ()),
    (1, ("uniform",), ()),
    (1, ("none", "examples", "uniform", "none"), ("a", "b", "c")),
    (2, ("examples", "uniform"), ()),
    (2, ("uniform", "none", "examples", "none"), ("a", "b")),
]


def chain(*names: str | dict[str, Any], cap: int = CAP, clients: int = MOST) -> list[Stage]:
    tables = [{"name": name, **WIDE.get(name, {})} if isinstance(name, str) else name for name in names]
    return pipeline(Aggregation(stages=tuple(Component(**table) for table in tables)), cap, clients)


def fresh(stages: list[Stage], layout: Layout) -> ReducePath:
    path = ReducePath(Solo(), stages, layout, torch.device("cpu"))
    path.begin(passage_of(layout, []))
    return path


def drawn(layout: Layout, clients: int, seed: int) -> tuple[list[Tensor], list[int]]:
    """Wires as clients make them, of very different sizes, and their numbers of examples (some above the cap)."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 2 * CAP, clients)
    scale = 10.0 ** random.integers(-6, 2, clients)
    wires = [torch.from_numpy(random.normal(size=layout.width) * by).to(layout.dtype) for by in scale]
    for wire in wires:
        layout.tail(wire)[:2] = 0
    return wires, sizes.tolist()


def crossed(stages: list[Stage], layout: Layout, wires: list[Tensor], examples: list[int]) -> tuple[Tensor, Any]:
    path = fresh(stages, layout)
    passage = passage_of(layout, examples)
    for client, wire in enumerate(wires):
        add(path, wire.clone(), passage, client)
    result = path.collect(passage, torch.zeros(1))
    assert result is not None
    return result


def expected(
    stages: list[Stage], layout: Layout, wires: list[Tensor], examples: list[int]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What each plane and sum should come to, by NumPy, and how far off the stages say that it may be."""
    rows = np.array([wire.double().numpy() for wire in wires]).reshape(len(wires), layout.width)
    weights = {
        "examples": np.minimum(np.array(examples, dtype=float) / CAP, 1.0),
        "uniform": np.ones(len(wires)),
        "none": np.ones(len(wires)),
    }
    lost = sum(stage.error(len(wires)) for stage in stages)
    eps = torch.finfo(layout.dtype).eps * (len(wires) + 4)
    pieces = [slice(place * layout.size, (place + 1) * layout.size) for place in range(layout.up)]
    pieces += [slice(layout.up * layout.size + 2 + place, layout.up * layout.size + 3 + place)
               for place in range(len(layout.sums))]  # fmt: skip
    values, off = [], []
    for piece, weighting in zip(pieces, layout.weights, strict=True):
        weight = weights[weighting]
        total = 1.0 if weighting == "none" else weight.sum()
        mean = weight @ rows[:, piece] / total if total else np.zeros(piece.stop - piece.start)
        size = weight @ abs(rows[:, piece])
        loss = lost + eps * size + (0 if weighting == "none" else (lost + eps * total) * abs(mean))
        values.append(mean)
        off.append(loss / max(total - lost, 1e-300) * 1.01)
    return np.concatenate(values), np.concatenate(off)


def check(stages: list[Stage], layout: Layout, wires: list[Tensor], examples: list[int]) -> None:
    planes, sums = crossed(stages, layout, wires, examples)
    values, off = expected(stages, layout, wires, examples)
    got = np.concatenate([planes.double().numpy().ravel(), [sums[name] for name in layout.sums]])
    assert (abs(got - values) <= off).all(), (got, values, off)
    weight = sum(min(size / CAP, 1.0) for size in examples)
    assert sums["weight"] == pytest.approx(weight, rel=1e-6)
    assert sums["clients"] == len(wires)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(("up", "weights", "names"), LAYOUTS, ids=lambda part: str(part))
@lawful
@given(clients=st.integers(1, MOST), seed=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES))
def test_what_is_decoded_is_the_weighted_mean(
    name: str, up: int, weights: tuple[str, ...], names: tuple[str, ...], clients: int, seed: int, dtype: torch.dtype
) -> None:
    layout = Layout(5, slice(0, 4), dtype, up, weights, names)
    check(chain(name), layout, *drawn(layout, clients, seed))


@pytest.mark.parametrize("names", [(), *((one, other) for one, other in itertools.permutations(STAGES, 2))])
@every_dtype
def test_stages_together_are_the_weighted_mean_too(names: tuple[str, ...], dtype: torch.dtype) -> None:
    from fedmpi.job import JobError

    try:
        stages = chain(*names)
    except JobError:
        return  # an order that is refused: test_pipeline
    layout = Layout(40, slice(0, 30), dtype, 2, ("examples", "none", "uniform"), ("a",))
    check(stages, layout, *drawn(layout, 6, 11))


@pytest.mark.parametrize("name", STAGES)
@every_dtype
def test_without_weight_the_mean_is_zero(name: str, dtype: torch.dtype) -> None:
    layout = Layout(5, slice(0, 4), dtype, 1, ("examples", "uniform", "none"), ("a", "b"))
    planes, sums = crossed(chain(name), layout, [], [])
    assert not planes.any()
    assert set(sums.values()) == {0.0}
    wires, _ = drawn(layout, 3, 1)
    planes, sums = crossed(chain(name), layout, wires, [0, 0, 0])
    assert not planes.any()
    assert sums["weight"] == 0.0
    assert sums["clients"] == 3.0
    assert sums["b"] == pytest.approx(sum(float(wire[-1]) for wire in wires), abs=1e-6)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_knows_its_place(name: str) -> None:
    stage = next(stage for stage in chain(name) if not isinstance(stage, Weigh))
    assert stage.acts_on in ("client", "rank", "domain", "home")
    assert stage.rides <= {"reduce", "rows", "deliver"}
    assert len(stage.count()) == len(stage.counters)
    assert isinstance(stage.ledger(), dict)
    assert stage.error(3) >= 0


@pytest.mark.parametrize("name", [name for name in STAGES if chain(name)[0].elementwise or chain(name)[-1].elementwise])
@every_dtype
def test_an_elementwise_stage_may_be_handed_pieces(name: str, dtype: torch.dtype) -> None:
    layout = Layout(29, slice(0, 29), dtype)
    stage = next(stage for stage in chain(name) if stage.elementwise)
    size, wide = stage.wire(layout.width, dtype)
    wire = drawn(layout, 1, 3)[0][0]
    passage = passage_of(layout, 10)
    whole = stage.encode(wire.clone(), passage)
    assert (len(whole), whole.dtype) == (size, wide)
    parts = torch.cat([stage.encode(part.clone(), passage) for part in torch.split(wire, 4)])
    assert torch.equal(whole, parts)
    assert torch.equal(
        stage.decode(whole.clone(), passage),
        torch.cat([stage.decode(part.clone(), passage) for part in torch.split(whole, 7)]),
    )


# Fixed point.


def total(stages: list[Stage], layout: Layout, wires: list[Tensor], order: tuple[int, ...]) -> bytes:
    path = fresh(stages, layout)
    passage = passage_of(layout, [10 + client for client in range(len(wires))])
    for client in order:
        add(path, wires[client].clone(), passage, client)
    return path.sum.numpy().tobytes()


@every_dtype
def test_a_fixed_point_sum_is_the_same_bits_in_every_order_where_a_float_sum_is_not(dtype: torch.dtype) -> None:
    layout = Layout(40, slice(0, 40), dtype)
    wires, _ = drawn(layout, 5, 2)
    orders = list(itertools.permutations(range(5)))
    assert len({total(chain("fixed-point"), layout, wires, order) for order in orders}) == 1
    assert len({total(chain(), layout, wires, order) for order in orders}) > 1


@lawful
@given(
    bits=st.sampled_from([32, 64]),
    bound=st.floats(1e-3, 1e3),
    clients=st.integers(1, 500),
    cap=st.integers(1, 10**6),
    dtype=st.sampled_from(DTYPES),
)
def test_the_sum_of_a_full_round_at_its_bound_never_wraps(
    bits: int, bound: float, clients: int, cap: int, dtype: torch.dtype
) -> None:
    stages = chain({"name": "clip", "bound": bound}, {"name": "fixed-point", "bits": bits}, cap=cap, clients=clients)
    layout = Layout(2, slice(0, 2), dtype)
    passage = passage_of(layout, np.full(clients, cap))
    path = fresh(stages, layout)
    for sign in (1, -1):
        path.begin(passage)
        row = torch.zeros(layout.width, dtype=dtype)
        row[0] = sign * 3 * bound
        add(path, row, passage)
        path.sum.mul_(clients)
        result = path.collect(passage, torch.zeros(1))
        assert result is not None
        planes, sums = result
        fixed = stages[-1]
        off = fixed.error(clients) / clients + 1e-6 * bound
        assert abs(float(planes[0, 0]) - sign * bound) <= 2 * off
        assert sums["weight"] == clients


@pytest.mark.parametrize(
    "names", [("fixed-point",), ({"name": "clip", "bound": 1.0}, "fixed-point")], ids=["bare", "clip"]
)
def test_in_64_bits_what_is_never_clipped_has_room(names: tuple[Any, ...]) -> None:
    """Buffers behind what is trained, and sums: up to 2^8, however large the cap and the round."""
    layout = Layout(4, slice(0, 2), torch.float64, 1, ("uniform", "none"), ("a",))
    path = fresh(chain(*names, cap=10**6, clients=1000), layout)
    wire = torch.tensor([0.1, 0.1, 200.0, -200.0, 0.0, 0.0, 200.0], dtype=torch.float64)
    passage = passage_of(layout, 10)
    add(path, wire.clone(), passage)
    result = path.collect(passage, torch.zeros(1))
    assert result is not None
    assert result[0][0].tolist() == pytest.approx([0.1, 0.1, 200.0, -200.0], abs=1e-9)
    assert result[1]["a"] == pytest.approx(200.0)


@pytest.mark.parametrize(("cap", "clients"), [(1, 1), (600, 10), (60_000, 100), (10, 100_000)])
def test_in_64_bits_a_small_client_keeps_its_digits(cap: int, clients: int) -> None:
    """2^32 times the power of two above `cap`: one example's weighted update is as fine as 2^-32."""
    fixed = chain("fixed-point", cap=cap, clients=clients)[-1]
    assert isinstance(fixed, FixedPoint)
    assert fixed.dtype == torch.int64
    assert fixed.fraction == min(32 + math.ceil(math.log2(cap)), 63 - math.ceil(math.log2(clients + 1)) - 8)
    assert fixed.error(clients) == clients * 0.5 / 2**fixed.fraction


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("block", [2**17, 8])
@pytest.mark.parametrize("place", [0, 5, 13, 29, 32])
@pytest.mark.parametrize(
    ("bad", "reason"), [(math.nan, 1), (math.inf, 1), (-math.inf, 1), (1e9, 2), (-1e9, 2), (1e17, 2)]
)
def test_fixed_point_stops_what_would_not_be_its_number_and_leaves_no_trace(
    dtype: torch.dtype, block: int, place: int, bad: float, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever piece it lies: two planes of 15 values, the two totals, which weighing writes, and a sum."""
    monkeypatch.setattr(entry, "BLOCK", block)
    layout = Layout(15, slice(0, 12), dtype, 2, ("examples", "none", "none"), ("a",))
    stages = chain("fixed-point")
    path = fresh(stages, layout)
    wires, sizes = drawn(layout, 3, 4)
    passage = passage_of(layout, [sizes[0], CAP, sizes[2]])
    add(path, wires[0].clone(), passage, 0)
    before = path.sum.clone()
    wires[1][place] = bad
    assert add(path, wires[1].clone(), passage, 1)[0] == reason
    assert torch.equal(path.sum, before)
    add(path, wires[2].clone(), passage, 2)
    other = fresh(stages, layout)
    for client in (0, 2):
        add(other, wires[client].clone(), passage, client)
    assert torch.equal(path.sum, other.sum)


@pytest.mark.parametrize("names", [(), ("clip",), ("clip", "fixed-point")], ids=str)
@pytest.mark.parametrize("place", [0, 29, 32])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_never_enters(names: tuple[str, ...], place: int, bad: float) -> None:
    """Not in what is trained, not in a buffer behind it, not in a sum, whatever the stages."""
    layout = Layout(15, slice(0, 12), torch.float32, 2, ("examples", "none", "none"), ("a",))
    path = fresh(chain(*names), layout)
    wires, sizes = drawn(layout, 2, 4)
    passage = passage_of(layout, sizes)
    add(path, wires[0], passage, 0)
    before = path.sum.clone()
    wires[1][place] = bad
    assert add(path, wires[1], passage, 1)[0] == 1
    assert torch.equal(path.sum, before)
