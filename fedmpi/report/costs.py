"""The pictures of the time and bytes of runs, and of their stages' ledgers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedmpi.report.axes import SIZES, TIMES, Numbers
from fedmpi.report.bars import stack_chart
from fedmpi.report.curves import ANY, Curve
from fedmpi.report.gallery import Gallery
from fedmpi.report.groups import Group
from fedmpi.report.runs import TEST, RunRecord
from fedmpi.report.scores import BOUNDS
from fedmpi.report.tables import number_at
from fedmpi.report.timeline import height, lane_chart, middle_round

SCORING = "Models are scored while clients train: evaluate is what that adds to a round."


def draw_costs(gallery: Gallery, metrics: Sequence[str]) -> None:
    """Add the pictures of time, bytes and idle ranks: round by round for a single run, else run by run."""
    if gallery.single:
        _by_round(gallery, gallery.single)
        _timeline(gallery, gallery.single)
    else:
        _by_group(gallery)
        if metrics:
            _scores_by_cost(gallery, metrics[0])
    curves = [
        idle(group, colour=index, dash="", label="waiting" if gallery.alone else group.label)
        for index, group in enumerate(gallery.groups)
    ]
    note = "Share of the training phase that each serving rank waited: mean, and 10th to 90th percentile of the rounds."
    curves = curves if any(len(curve.x) > 1 for curve in curves) else []  # one rank alone waits for nobody
    gallery.plot("cost", "Idle per rank", note, curves, "serving rank", y="share idle", bounds=(0.0, 1.0))


def _by_round(gallery: Gallery, run: RunRecord) -> None:
    """Add the pictures of one run's time and bytes, round by round."""
    rounds = np.array([line["round"] for line in run.lines], dtype=np.float64)
    phases = {name: column for name, column in run.phases().items() if np.nansum(column) > 0}
    if phases:
        show = stack_chart(rounds, phases, y="time per round", units=TIMES)
        gallery.add("cost", "Time per phase", f"Rank 0's round. {SCORING}", show)
    if columns := run.columns("bytes"):
        show = stack_chart(rounds, columns, y="bytes per round", units=SIZES)
        gallery.add("cost", "Bytes per round", "What a rank receives (down) and sends (up).", show)


def _timeline(gallery: Gallery, run: RunRecord) -> None:
    """Add the picture of what the ranks did in a round, where the run was profiled."""
    spans = middle_round(run.profile)
    if spans is None:
        return
    note = (
        f"Round {spans.round}, of median length: each rank's phases, below them its clients, its waits for other ranks "
        "(known where ranks outnumber cores) and its checkpoints.  ui.perfetto.dev shows all of profile/trace.json."
    )
    gallery.add("cost", "A round on every rank", note, lane_chart(spans), height(spans.ranks))


def _by_group(gallery: Gallery) -> None:
    """Add the pictures of the median round's time and bytes, group by group."""
    medians = [{name: row[0] for name, row in group.timing().items()} for group in gallery.groups]
    note = f"Rank 0's median round. {SCORING}"
    gallery.compare("cost", "Time per phase", note, medians, "time per round", TIMES)
    columns = [group.runs[0].columns("bytes") for group in gallery.groups]
    medians = [{name: _median(column) for name, column in table.items()} for table in columns]
    note = "What a rank receives (down) and sends (up) in the median round."
    gallery.compare("cost", "Bytes per round", note, medians, "bytes per round", SIZES)


def _scores_by_cost(gallery: Gallery, metric: str) -> None:
    """Add the pictures of a metric over wall time and over bytes."""
    for over, x, units in (("seconds", "wall time", TIMES), ("bytes", "bytes", SIZES)):
        note = f"What the score cost in {x}{' per rank' if over == 'bytes' else ''}.{gallery.seeds}"
        looks: dict[str, Any] = {"y": metric, "x_units": units, "bounds": BOUNDS.get(metric, ANY)}
        curves = gallery.curves(*TEST, metric, over=over, baselines=False)
        gallery.plot("cost", f"Test {metric} by {x}", note, curves, x, **looks)
        curves = gallery.clients(["personal"], metric, "mean", over) if gallery.personal else []
        gallery.plot("cost", f"Clients' {metric} by {x}", f"Mean over clients. {note}", curves, x, **looks)


def draw_stages(gallery: Gallery) -> None:
    """Add a picture for each entry of the stages' ledgers whose value changes over the rounds."""
    for stage, name in dict.fromkeys(key for group in gallery.groups for run in group.runs for key in run.ledger()):
        curves = gallery.curves("stages", stage, name, baselines=False)
        if any(len(np.unique(curve.y[np.isfinite(curve.y)])) > 1 for curve in curves):
            gallery.plot("stages", f"{stage}: {name}", f"As the stage {stage} told it.{gallery.seeds}", curves, y=name)


def idle(group: Group, **looks: Any) -> Curve:
    """Return each serving rank's mean share of the training phase spent waiting, with its 10th to 90th percentile."""
    rows = [row for run in group.runs for line in run.lines if isinstance(row := line.get("idle"), list)]
    ranks = [
        np.array([number_at(row[place]) for row in rows if place < len(row)])
        for place in range(max(map(len, rows), default=0))
    ]
    known = [(place, shares[np.isfinite(shares)]) for place, shares in enumerate(ranks, 1) if np.isfinite(shares).any()]
    low, high = (np.array([np.percentile(shares, q) for _, shares in known]) for q in (10, 90))
    x = np.array([place for place, _ in known], dtype=np.float64)
    return Curve(x=x, y=np.array([shares.mean() for _, shares in known]), low=low, high=high, **looks)


def _median(column: Numbers) -> float:
    """Return the median of a column's finite values, NaN where it has none."""
    finite = column[np.isfinite(column)]
    return float(np.median(finite)) if finite.size else float("nan")
