"""The pictures of runs' scores: over all examples, over clients, and at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedmpi.flow import LOWER
from fedmpi.report.axes import Numbers
from fedmpi.report.bars import pair_chart
from fedmpi.report.curves import ANY, Curve
from fedmpi.report.gallery import Gallery
from fedmpi.report.groups import Group
from fedmpi.report.runs import MODELS, TEST, RunRecord

UNIT = {"accuracy", "precision", "recall", "f1", "auroc"}
BOUNDS = {"r2": (-math.inf, 1.0), **dict.fromkeys(UNIT, (0.0, 1.0)), **dict.fromkeys(LOWER, (0.0, math.inf))}


def draw_scores(gallery: Gallery, metrics: Sequence[str]) -> None:
    """Add the pictures of scores, those of the leading metric first."""
    if metrics:
        _final(gallery, metrics[0])
    kinds = [gallery.kinds] if gallery.alone else [[kind] for kind in gallery.kinds]  # else it would be too many curves
    for metric in metrics:
        note = f"On the held-out test examples.{gallery.seeds}"
        bounds = BOUNDS.get(metric, ANY)
        gallery.plot("scores", f"Test {metric}", note, gallery.curves(*TEST, metric), y=metric, bounds=bounds)
        for some in kinds:
            model = f": {MODELS[some[0]]}" if gallery.personal and not gallery.alone else ""
            _clients(gallery, metric, some, model)
            if metric in (metrics[0], "loss"):
                _spread(gallery, metric, some, model)
    note = f"Mean over what the round's clients trained on.{gallery.seeds}"
    gallery.plot("scores", "Training loss", note, gallery.curves("train_loss"), y="loss", bounds=(0.0, math.inf))


def _final(gallery: Gallery, metric: str) -> None:
    """Add the picture of each client's final score, where there is something to compare."""
    rows = gallery.rows()
    scores = final_scores([group for _, group in rows], metric) if len(rows) > 1 else {}
    if scores:
        note = f"At the end. Bar: mean {metric} over clients. Line: from there to the mean of the worst tenth of them."
        bars = sum(int(np.isfinite(mean).sum()) for mean, _ in scores.values())
        show = pair_chart([label for label, _ in rows], scores, ("mean", "worst tenth"), x=metric)
        gallery.add("clients", "What each client gets", note, show, 1.2 + 0.13 * len(rows) + 0.17 * bars)


def _clients(gallery: Gallery, metric: str, kinds: Sequence[str], model: str) -> None:
    """Add the picture of clients' scores over rounds: their mean, and the worst tenth's."""
    note = f"Solid: mean over clients. Dotted: mean of the worst tenth of them.{gallery.seeds}"
    means, worst = gallery.clients(kinds, metric, "mean"), gallery.clients(kinds, metric, "worst_tenth")
    if run := gallery.single:
        means = [deviating(curve, run, kind, metric) for kind, curve in zip(kinds, means, strict=True)]
        note += f" Band: one standard deviation over clients{', upwards' if metric in LOWER else ''}."
    for place, curve in enumerate(worst):
        label = f"{curve.label}, worst tenth" if gallery.personal else "worst tenth"
        worst[place] = replace(curve, label=label if gallery.alone else "", dash=":", low=math.nan, high=math.nan)
    curves = [*means, *gallery.clients_baselines(metric, "mean"), *worst]
    gallery.plot("scores", f"Clients' {metric}{model}", note, curves, y=metric, bounds=BOUNDS.get(metric, ANY))


def _spread(gallery: Gallery, metric: str, kinds: Sequence[str], model: str) -> None:
    """Add the picture of the spread of clients' scores."""
    note = f"Standard deviation over clients: 0 would be the same score for each.{gallery.seeds}"
    curves = [*gallery.clients(kinds, metric, "std"), *gallery.clients_baselines(metric, "std")]
    title = f"Spread of {metric} over clients{model}"
    gallery.plot("clients", title, note, curves, y=f"std of {metric}", bounds=(0.0, math.inf))


def final_scores(groups: Sequence[Group], metric: str) -> dict[str, tuple[Numbers, Numbers]]:
    """Return clients' final mean and worst tenth by kind of model, `(groups,)` each, NaN where a group has none."""
    scores = {}
    for kind, model in MODELS.items():
        tables = [("clients" if kind == "personal" else "") if group.local else kind for group in groups]
        rows = [
            [group.final("evaluation", table, metric, word) for word in ("mean", "worst_tenth")]
            for group, table in zip(groups, tables, strict=True)
        ]
        mean, worst = np.array(rows).T
        if np.isfinite(mean).any():
            scores[model] = (mean, worst)
    return scores


def deviating(curve: Curve, run: RunRecord, kind: str, metric: str) -> Curve:
    """Return the curve of a run's mean over clients with a band of one standard deviation over them."""
    deviation = run.values("evaluation", kind, metric, "std")
    wide = np.array([deviation.get(int(round_), math.nan) for round_ in curve.x])
    low = curve.y if metric in LOWER else curve.y - wide  # losses are skew: less may be below zero
    return replace(curve, low=low, high=curve.y + wide)
