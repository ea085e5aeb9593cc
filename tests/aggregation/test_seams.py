"""What a stage may do beside encoding: rows at once, notes, fixed totals, fillers, agreement, opening, sites, home."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmpi.aggregation import STAGES, Pipeline, ReducePath, pipeline
from fedmpi.comm import Solo
from fedmpi.flow import Layout, Passage
from fedmpi.job import Aggregation, JobError
from tests import seams
from tests.crossings import passage_of
from tests.fake import Fake, launch

CPU = torch.device("cpu")
CAP, CLIENTS = 8, 6
EXAMPLES = [8, 3, 5, 20, 1, 8]
CLIP = {"name": "clip", "bound": 2.0}
OWN = ("TopK", "Small", "Noted", "Fixed", "Poured", "Doubled", "Grid", "Opened", "Halved", "Counted")
every_size = pytest.mark.parametrize("size", [1, 2, 3])
every_staging = pytest.mark.parametrize("staged", [False, True], ids=["straight", "staged"])


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OWN:
        monkeypatch.setitem(STAGES, name.lower(), getattr(seams, name))


def chain(*stages: Any) -> Pipeline:
    return pipeline(Aggregation.model_validate({"stages": list(stages)}), CAP, CLIENTS)


def laid(stages: Pipeline, dtype: torch.dtype = torch.float32, notes: bool = True) -> Layout:
    weights = ("examples", "uniform", "none", *(stages.notes.values() if notes else ()))
    return Layout(10, slice(0, 8), dtype, 2, weights, ("a",), tuple(stages.notes), stages.totals)


def updates(layout: Layout, seed: int = 0) -> Tensor:
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(CLIENTS, layout.up * layout.size + 1)))
    rows = torch.zeros(CLIENTS, layout.width, dtype=layout.dtype)
    rows[:, : layout.up * layout.size] = values[:, :-1]
    layout.scalar(rows, "a").copy_(values[:, -1])
    return rows


def crossed(size: int, *stages: Any, staged: bool = False, times: int = 1, seed: int = 0) -> Any:
    """Home's planes and sums of a crossing by all clients, and its stages; `times` it is collected so often."""

    def work(comm: Fake) -> Any:
        made = chain(*stages)
        layout = laid(made)
        made.join(comm, 1)  # type: ignore[arg-type]
        path = ReducePath(comm, made, layout, CPU, staged)  # type: ignore[arg-type]
        for round in (1, 2):  # a crossing leaves nothing for the next
            passage = passage_of(layout, EXAMPLES, round=round)
            path.begin(passage)
            for client in range(comm.me, CLIENTS, size):
                one = slice(client, client + 1)
                assert not path.add(updates(layout, seed)[one], passage.of(one)).any()
            outcomes = [path.collect(passage, torch.zeros(1, dtype=torch.float64)) for _ in range(times)]
            outcomes = [(outcome[0].clone(), outcome[1]) for outcome in outcomes if outcome is not None]
        return outcomes, made, comm.traffic

    return launch(size, work)


def mean(size: int, *stages: Any, **others: Any) -> tuple[Tensor, dict[str, float]]:
    outcomes: list[tuple[Tensor, dict[str, float]]] = crossed(size, *stages, **others)[0][0]
    assert all(torch.equal(one[0], outcomes[0][0]) and one[1] == outcomes[0][1] for one in outcomes)
    return outcomes[0]


# Rows at once.


ROWS = [(), ("fixed-point",), (CLIP, "fixed-point"), ("small",), (CLIP, "small", "fixed-point"),
        ("topk", "fixed-point"), ("topk", "small"), ("noted", "fixed-point")]  # fmt: skip


@pytest.mark.parametrize("stages", ROWS, ids=str)
@pytest.mark.parametrize("bad", [(), (2,), (0, 5), (0, 1, 2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e3, 1e18])
def test_rows_enter_as_they_do_one_by_one_and_an_unfit_one_keeps_no_other_out(
    stages: tuple[Any, ...], bad: tuple[int, ...], value: float
) -> None:
    sums, reasons, kept, counted = [], [], [], []
    for together in (True, False):
        made = chain(*stages)
        layout = laid(made)
        rows = updates(layout)
        for row in bad:
            rows[row, 4] = value
        path = ReducePath(Solo(), made, layout, CPU)
        sizes = {"planes": layout.up * layout.size}
        memory = {name: torch.ones(CLIENTS, sizes[kind]) for name, kind in made.memory.items()}
        passage = passage_of(layout, EXAMPLES, memory=memory)
        path.begin(passage)
        if together:
            reasons.append(path.add(rows, passage).tolist())
        else:
            ones = [slice(row, row + 1) for row in range(CLIENTS)]
            reasons.append([path.add(rows[one], passage.of(one))[0].tolist() for one in ones])
        entered = [row for row in range(CLIENTS) if not reasons[-1][row][0]]
        sums.append(path.sum.clone())
        kept.append({name: part[entered] for name, part in memory.items()})
        counted.append(made.counted() if len(entered) == CLIENTS else {})
    assert torch.equal(sums[0], sums[1])
    assert reasons[0] == reasons[1]
    assert counted[0] == counted[1]
    assert all(torch.equal(part, kept[1][name]) for name, part in kept[0].items())
    large = "small" in stages or ("fixed-point" in stages and value > 1e9)
    if not np.isfinite(value) or (large and CLIP not in stages):
        assert [row for row, (reason, _) in enumerate(reasons[0]) if reason] == list(bad)
        assert all(at == 4 for reason, at in reasons[0] if reason)
    else:
        assert not np.any(reasons[0])


def test_a_row_that_is_not_finite_is_as_if_it_had_not_come() -> None:
    made = chain("fixed-point")
    layout = laid(made)
    with_it, without = (ReducePath(Solo(), made, layout, CPU) for _ in range(2))
    rows, passage = updates(layout), passage_of(layout, EXAMPLES)
    rest = np.array([0, 1, 3, 4, 5])
    without.begin(passage)
    without.add(rows[rest].clone(), passage.of(rest))
    with_it.begin(passage)
    rows[2] = float("nan")
    assert with_it.add(rows, passage)[:, 0].tolist() == [0, 0, 1, 0, 0, 0]
    assert torch.equal(with_it.sum, without.sum)
    one, other = (path.collect(passage, torch.zeros(1)) for path in (with_it, without))
    assert one is not None
    assert other is not None
    assert torch.equal(one[0], other[0])
    assert one[1] == other[1]
    assert one[1]["clients"] == CLIENTS - 1


# On ranks' and sites' sums, and at home.


@every_size
@every_staging
@pytest.mark.parametrize("name", ["poured", "doubled"])
def test_masks_poured_beforehand_cancel_to_the_very_bits(size: int, staged: bool, name: str) -> None:
    for stages in (("fixed-point",), (CLIP, "fixed-point")):
        clean, masked = mean(size, *stages, staged=staged), mean(size, *stages, name, staged=staged, times=3)
        assert torch.equal(masked[0], clean[0])
        assert masked[1] == clean[1]


@every_staging
def test_a_pending_is_waited_for_before_the_first_update_and_where_nobody_comes(staged: bool) -> None:
    made = chain("fixed-point", "poured")
    layout = laid(made)
    made.join(Solo(), 1)
    path = ReducePath(Solo(), made, layout, CPU, staged)
    for comes in (True, False):
        passage = passage_of(layout, EXAMPLES)
        path.begin(passage)
        assert made[-1].calls == ["begun"]  # type: ignore[attr-defined]
        if comes:
            path.add(updates(layout), passage)
            assert made[-1].calls == ["begun", "poured"]  # type: ignore[attr-defined]
        outcome = path.collect(passage, torch.zeros(1))
        assert outcome is not None
        assert outcome[0].any() == comes
        assert made[-1].calls == ["begun", "poured"]  # type: ignore[attr-defined]
        assert path.sum.any() or staged or not comes


def test_what_a_rank_sends_of_poured_masks_is_no_zero_anywhere() -> None:
    """The tail is masked as the planes are."""
    made = chain("fixed-point", "poured")
    layout = laid(made)

    def work(comm: Fake) -> Tensor:
        stages = chain("fixed-point", "poured")
        stages.join(comm, 1)  # type: ignore[arg-type]
        path = ReducePath(comm, stages, layout, CPU)  # type: ignore[arg-type]
        path.begin(passage_of(layout, []))
        path.collect(passage_of(layout, []), torch.zeros(1, dtype=torch.float64))
        return path.host.clone()

    assert all(sent.ne(0).all() for sent in launch(2, work)[1:])


@every_size
@every_staging
def test_a_site_s_planes_travel_in_16_bits_of_an_agreed_grid(size: int, staged: bool) -> None:
    clean, coarse = mean(size), mean(size, "grid", staged=staged, times=2)
    assert coarse[1] == pytest.approx(clean[1], rel=1e-6)  # the tail is exact
    largest = float(clean[0].abs().max()) * CLIENTS
    assert 0 < float((coarse[0] - clean[0]).abs().max()) < largest * size / 32000
    *_, traffic = crossed(size, "grid", times=2)[0]
    assert traffic.count("largest") == 2  # once a crossing, however often it is collected


@every_size
def test_a_sum_is_opened_by_all_ranks_together(size: int) -> None:
    assert torch.equal(mean(size, "fixed-point", "opened", times=2)[0], mean(size, "fixed-point")[0])


@every_size
def test_home_s_stage_stands_where_its_place_is(size: int) -> None:
    for behind in ((), ("fixed-point",)):
        clean, halved = mean(size, CLIP, *behind), mean(size, CLIP, "halved", *behind)
        torch.testing.assert_close(halved[0], clean[0] / 2)
        assert halved[1] == pytest.approx(clean[1])


@every_size
def test_notes_are_summed_beside_the_rest_and_divided_by_their_weighting(size: int) -> None:
    (outcomes, made, _), *_ = crossed(size, "noted", CLIP, "fixed-point")
    layout = laid(made)
    rows = updates(layout)
    norms = np.linalg.norm(layout.planes(rows)[..., layout.trained].double().numpy().reshape(CLIENTS, -1), axis=1)
    assert outcomes[0][1]["norm"] == pytest.approx(norms.mean(), rel=1e-6)
    assert made.ledgers() == {"noted": {"norm": pytest.approx(norms.mean(), rel=1e-6)}}
    plain = mean(size, CLIP, "fixed-point")
    assert torch.equal(outcomes[0][0], plain[0])
    assert {name: value for name, value in outcomes[0][1].items() if name != "norm"} == plain[1]


@every_size
def test_a_fixed_total_divides_and_keeps_the_observed_ones_off_the_wire(size: int) -> None:
    made = chain("fixed")
    layout = laid(made)
    assert layout.width == 2 * layout.size + 1
    planes, sums = mean(size, "fixed")
    rows = layout.planes(updates(layout)).double().numpy()
    weights = np.minimum(np.array(EXAMPLES) / CAP, 1)
    np.testing.assert_allclose(planes[0], (weights @ rows[:, 0]) / 4, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(planes[1], rows[:, 1].sum(0) / 8, rtol=1e-5, atol=1e-6)
    assert (sums["weight"], sums["clients"]) == (4.0, 8.0)


class Pieces(seams.Stage):
    """It takes note of the places of its pieces."""

    elementwise = True
    seen: list[tuple[int, int]]

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        self.seen = [*getattr(self, "seen", []), (passage.offset, wire.shape[-1])]
        return wire


def test_a_piece_comes_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedmpi.aggregation.paths import entry

    monkeypatch.setattr(entry, "BLOCK", 8)
    stage = Pieces()
    layout = Layout(10, slice(0, 8), torch.float32)
    path = ReducePath(Solo(), [stage], layout, CPU)
    path.begin(passage_of(layout, 1))
    path.add(torch.ones(1, layout.width), passage_of(layout, 1))
    assert stage.seen == [(0, 8), (8, 4)]


# What cannot be.


def own_stage(**traits: Any) -> type:
    return type("Own", (seams.Stage,), traits)


def begins(self: Any, wire: Tensor, passage: Passage) -> None: ...


@pytest.mark.parametrize(
    ("stages", "traits", "words"),
    [
        (["own"], {"acts_on": "rank"}, "own acts on a rank's sum, which is of weighted values; say place = 'weighed'"),
        (["own"], {"acts_on": "domain"}, "own acts on a site's sum, which is of weighted values"),
        (["grid", "own"], {"acts_on": "rank", "place": "weighed"}, "but grid before it on a site's sum; put own first"),
        (["own", "fixed-point"], {"acts_on": "rank", "place": "weighed"}, "put fixed-point first"),
        (["own"], {"memory": {"a": "plane"}}, "memory['a'] = 'plane'; there are planes, trained, model, scalar; did"),
        (["own"], {"memory": {"a": "planes"}, "acts_on": "rank", "place": "weighed"}, "keeps a memory of each client"),
        (["own"], {"memory": {"a": "planes"}, "elementwise": True}, "let elementwise be False"),
        (["own"], {"notes": {"a": "job"}}, "notes['a'] = 'job'; there are examples, uniform, none"),
        (["own"], {"notes": {"a": "uniform"}, "place": "weighed"}, "notes['a'] should be 'none'"),
        (["own"], {"notes": {"weight": "none"}}, "own has notes['weight'], which is another's"),
        (["noted", "own"], {"notes": {"norm": "none"}}, "own has notes['norm'], which is another's"),
        (["own"], {"totals": {"none": 1.0}}, "own has totals['none'] = 1.0; there are examples and uniform"),
        (["own"], {"begin": begins}, "own fills the buffer that its output lands in, but weigh after it changes that"),
        (["own", "poured"], {"begin": begins, "acts_on": "rank", "place": "integer"}, "put own behind it"),
        (["own"], {"begin": begins, "acts_on": "home"}, "own fills a buffer, and acts on the sum of all; use decode"),
        (["own"], {"rides": frozenset({"rows"})}, "own cannot be summed, which the path 'reduce' needs"),
        (["own"], {"exact": True}, "own has exact; a stage of the same bits in every order says place = 'integer'"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_in_one_line(
    stages: list[str], traits: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STAGES, "own", own_stage(**traits))
    with pytest.raises(JobError) as refused:
        chain(*stages)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
