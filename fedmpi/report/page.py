"""What a person sees of a run, or of several: one self-contained page, with its pictures beside it as PNG files."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedmpi.flow import LOWER, Refused
from fedmpi.report import pictures
from fedmpi.report.pictures import ANY, COLOURS, SIZES, TIMES, Curve, Draw, Numbers, Picture, Units
from fedmpi.report.runs import (
    BASELINES,
    CLIENTS,
    MODELS,
    TEST,
    Group,
    Run,
    at,
    differences,
    grouped,
    number,
    read,
)

UNIT = {"accuracy", "precision", "recall", "f1", "auroc"}
BOUNDS = {"r2": (-math.inf, 1.0), **dict.fromkeys(UNIT, (0.0, 1.0)), **dict.fromkeys(LOWER, (0.0, math.inf))}
SCORING = "Models are scored while clients train: evaluate is what that adds to a round."


def report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write a page on these runs to `out` (else `report.html` in the first folder), pictures in `pictures/` beside it.

    Runs that differ in their seed alone are one mean curve with its range.  All is drawn before anything is written.
    Returns the page's path.  Raises Refused for a folder without a run and for a damaged or empty journal.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        raise Refused('a report needs jinja2 and matplotlib: pip install "fedmpi[report]"') from None
    if not folders:
        raise Refused("a report is of one run folder or more; none was given")
    groups = grouped([read(Path(folder)) for folder in dict.fromkeys(map(os.path.abspath, folders))])
    named = metrics(groups)
    drawn = draw(groups, named)
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.globals.update(finite=math.isfinite, svg=Markup, nan=math.nan)
    page.globals["value"] = number
    page.tests["finite"] = math.isfinite
    page.filters["each"] = lambda found, method, *given: [getattr(one, method)(*given) for one in found]
    html = page.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8")).render(
        groups=groups,
        baselines=[base for group in groups for name in BASELINES if (base := group.baseline(name))],
        metrics=named,
        lower=[metric for metric in named if groups[0].runs[0].lower(metric)],
        drawn=drawn,
        models=MODELS,
        differences=differences(groups),
        ledger=list(dict.fromkeys(key for group in groups for run in group.runs for key in run.ledger())),
        colours=COLOURS,
    )
    path = Path(folders[0]) / "report.html" if out is None else Path(out)
    path = path / "report.html" if path.is_dir() else path
    try:
        (path.parent / "pictures").mkdir(parents=True, exist_ok=True)
        for one in (one for part in drawn.values() for one in part):
            _write(path.parent / "pictures" / f"{one.name}.png", one.png)
        _write(path, html.encode("utf-8", "replace"))
    except OSError as error:
        raise Refused(f"{path}: the report could not be written: {error}") from None
    return path


def metrics(groups: Sequence[Group]) -> list[str]:
    """The metrics that any run was scored by; what the first job stops at, or names first, leads."""
    runs = [one for group in groups for run in group.runs for one in (run, *run.baselines.values())]
    found = list(dict.fromkeys(name for run in runs for name in run.metrics()))
    job = groups[0].runs[0].job
    asked = at(job, "evaluation", "metrics")
    wanted = [at(job, "stop", "metric"), *(asked if isinstance(asked, list) else ())]
    scores = [name for name in found if name != "loss"]
    return [name for name in dict.fromkeys(map(str, [*wanted, *scores, *found])) if name in found]


def draw(groups: Sequence[Group], named: Sequence[str]) -> dict[str, list[Picture]]:
    """The pictures of each part of the page, in the order shown; those of the leading metric come first."""
    drawn: dict[str, list[Picture]] = {part: [] for part in ("scores", "clients", "cost", "stages")}
    alone = groups[0] if len(groups) == 1 else None
    single = alone.runs[0] if alone and len(alone.runs) == 1 else None
    kinds = [kind for kind in MODELS if any(group.tells("evaluation", kind) for group in groups)] or ["clients"]
    personal = "personal" in kinds
    pictured = [kinds] if alone else [[kind] for kind in kinds]  # of several runs together it would be too many curves
    seeds = "" if all(len(group.runs) == 1 for group in groups) else " Band: lowest to highest of the seeds."

    def add(part: str, title: str, caption: str, show: Draw, height: float = 3.1) -> None:
        name = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")[:60]
        taken = {one.name for shown in drawn.values() for one in shown}
        name = f"{name}-{len(taken)}" if name in taken else name  # metrics that differ in their capitals
        drawn[part].append(pictures.picture(name, title, caption, show, height))

    def plot(part: str, title: str, caption: str, found: Sequence[Curve], x: str = "round", **axes: Any) -> None:
        if kept := [curve for curve in found if np.isfinite(curve.y).any()]:
            add(part, title, caption, pictures.lines(kept, x=x, **axes))

    def curves(*path: str, baselines: bool = True, over: str = "") -> list[Curve]:
        found = []
        for index, group in enumerate(groups):
            label = "federated" if alone else group.label
            found.append(group.curve(*path, over=over, colour=index, label=label))
            found += levels(index, group, *path) if baselines else []
        return found

    def levels(index: int, group: Group, *path: str) -> list[Curve]:
        found = []
        for place, (name, dash) in enumerate(BASELINES.items(), 2):
            if base := group.baseline(name):
                label = f"{name} baseline" if alone else base.label
                found.append(base.curve(*path, colour=place if alone else index, dash=dash, label=label))
        return found

    def clients(shown: Sequence[str], metric: str, word: str, over: str = "") -> list[Curve]:
        """What clients get by these models; a run without own ones shows its common one beside the others' own."""
        found = []
        for kind, (index, group) in itertools.product(shown, enumerate(groups)):
            here = kind if alone or group.tells("evaluation", kind) else "clients"
            label = f"{group.label}, {MODELS[here]}" if personal else group.label
            if alone:
                label = MODELS[kind] if personal else "federated"
            colour = list(MODELS).index(kind) if alone else index
            found.append(group.curve("evaluation", here, metric, word, over=over, colour=colour, label=label))
        return found

    def bases(metric: str, word: str) -> list[Curve]:
        return [one for at, group in enumerate(groups) for one in levels(at, group, *CLIENTS, metric, word)]

    def compare(part: str, title: str, caption: str, rows: Sequence[Mapping[str, float]], x: str, units: Units) -> None:
        names = dict.fromkeys(name for row in rows for name in row)
        layers = {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
        if layers:
            show = pictures.bars([group.label for group in groups], layers, x=x, units=units)
            add(part, title, caption, show, 1.1 + 0.34 * len(groups))

    rows = [("federated" if alone else group.label, group) for group in groups]
    for name, group in itertools.product(BASELINES, groups):
        if base := group.baseline(name):
            rows.append((f"{name} baseline" if alone else base.label, base))
    scores = received([group for _, group in rows], named[0]) if named and len(rows) > 1 else {}
    if scores:
        note = (
            f"At the end. Bar: mean {named[0]} over clients. Line: from there to the mean of the worst tenth of them."
        )
        bars = sum(int(np.isfinite(mean).sum()) for mean, _ in scores.values())
        show = pictures.paired([label for label, _ in rows], scores, ("mean", "worst tenth"), x=named[0])
        add("clients", "What each client gets", note, show, 1.2 + 0.13 * len(rows) + 0.17 * bars)
    for metric in named:
        bounds = BOUNDS.get(metric, ANY)
        note = f"On the held-out test examples.{seeds}"
        plot("scores", f"Test {metric}", note, curves(*TEST, metric), y=metric, bounds=bounds)
        for shown in pictured:
            model = f": {MODELS[shown[0]]}" if personal and not alone else ""
            note = f"Solid: mean over clients. Dotted: mean of the worst tenth of them.{seeds}"
            means, worst = clients(shown, metric, "mean"), clients(shown, metric, "worst_tenth")
            if single:
                means = [deviating(curve, single, kind, metric) for kind, curve in zip(shown, means, strict=True)]
                note += f" Band: one standard deviation over clients{', upwards' if metric in LOWER else ''}."
            for place, curve in enumerate(worst):
                label = f"{curve.label}, worst tenth" if personal else "worst tenth"
                worst[place] = replace(curve, label=label if alone else "", dash=":", low=math.nan, high=math.nan)
            found = [*means, *bases(metric, "mean"), *worst]
            plot("scores", f"Clients' {metric}{model}", note, found, y=metric, bounds=bounds)
            if metric in (named[0], "loss"):
                note = f"Standard deviation over clients: 0 would be the same score for each.{seeds}"
                spread = [*clients(shown, metric, "std"), *bases(metric, "std")]
                title = f"Spread of {metric} over clients{model}"
                plot("clients", title, note, spread, y=f"std of {metric}", bounds=(0.0, math.inf))
    note = f"Mean over what the round's clients trained on.{seeds}"
    plot("scores", "Training loss", note, curves("train_loss"), y="loss", bounds=(0.0, math.inf))

    if single:
        rounds = np.array([line["round"] for line in single.lines], dtype=np.float64)
        phases = {name: column for name, column in single.phases().items() if np.nansum(column) > 0}
        if phases:
            show = pictures.stack(rounds, phases, y="time per round", units=TIMES)
            add("cost", "Time per phase", f"Rank 0's round. {SCORING}", show)
        if moved := single.columns("bytes"):
            show = pictures.stack(rounds, moved, y="bytes per round", units=SIZES)
            add("cost", "Bytes per round", "What a rank receives (down) and sends (up).", show)
    else:
        middles = [{name: row[0] for name, row in group.timing().items()} for group in groups]
        compare("cost", "Time per phase", f"Rank 0's median round. {SCORING}", middles, "time per round", TIMES)
        middles = [{k: _median(v) for k, v in group.runs[0].columns("bytes").items()} for group in groups]
        note = "What a rank receives (down) and sends (up) in the median round."
        compare("cost", "Bytes per round", note, middles, "bytes per round", SIZES)
        for over, x, units in (("seconds", "wall time", TIMES), ("bytes", "bytes", SIZES)):
            for metric in named[:1]:
                note = f"What the score cost in {x}{' per rank' if over == 'bytes' else ''}.{seeds}"
                looks = {"y": metric, "x_units": units, "bounds": BOUNDS.get(metric, ANY)}
                found = curves(*TEST, metric, over=over, baselines=False)
                plot("cost", f"Test {metric} by {x}", note, found, x, **looks)
                found = clients(["personal"], metric, "mean", over) if personal else []
                plot("cost", f"Clients' {metric} by {x}", f"Mean over clients. {note}", found, x, **looks)
    waited = [
        idle(group, colour=index, dash="", label="waiting" if alone else group.label)
        for index, group in enumerate(groups)
    ]
    note = "Share of the training phase that each serving rank waited: mean, and 10th to 90th percentile of the rounds."
    waited = waited if any(len(curve.x) > 1 for curve in waited) else []  # one rank alone waits for nobody
    plot("cost", "Idle per rank", note, waited, "serving rank", y="share idle", bounds=(0.0, 1.0))
    for stage, word in dict.fromkeys(key for group in groups for run in group.runs for key in run.ledger()):
        told = curves("stages", stage, word, baselines=False)
        if any(len(np.unique(curve.y[np.isfinite(curve.y)])) > 1 for curve in told):
            plot("stages", f"{stage}: {word}", f"As the stage {stage} told it.{seeds}", told, y=word)
    return drawn


def received(groups: Sequence[Group], metric: str) -> dict[str, tuple[Numbers, Numbers]]:
    """By kind of model: clients' final mean and worst tenth, `(groups,)` each, NaN where a group has none such."""
    found = {}
    for kind, model in MODELS.items():
        tables = [("clients" if kind == "personal" else "") if group.local else kind for group in groups]
        rows = [
            [group.final("evaluation", table, metric, word) for word in ("mean", "worst_tenth")]
            for group, table in zip(groups, tables, strict=True)
        ]
        mean, worst = np.array(rows).T
        if np.isfinite(mean).any():
            found[model] = (mean, worst)
    return found


def deviating(curve: Curve, run: Run, kind: str, metric: str) -> Curve:
    """The mean over clients of a run, with a band of one standard deviation over them."""
    deviation = run.values("evaluation", kind, metric, "std")
    wide = np.array([deviation.get(int(round_), math.nan) for round_ in curve.x])
    low = curve.y if metric in LOWER else curve.y - wide  # losses are skew: less may be below zero
    return replace(curve, low=low, high=curve.y + wide)


def idle(group: Group, **looks: Any) -> Curve:
    """The mean share of the training phase that each serving rank waited, and its 10th to 90th percentile."""
    given = [row for run in group.runs for line in run.lines if isinstance(row := line.get("idle"), list)]
    ranks = [
        np.array([number(row[place]) for row in given if place < len(row)])
        for place in range(max(map(len, given), default=0))
    ]
    known = [(place, row[np.isfinite(row)]) for place, row in enumerate(ranks, 1) if np.isfinite(row).any()]
    low, high = (np.array([np.percentile(row, q) for _, row in known]) for q in (10, 90))
    x = np.array([place for place, _ in known], dtype=np.float64)
    return Curve(x=x, y=np.array([row.mean() for _, row in known]), low=low, high=high, **looks)


def _median(column: Numbers) -> float:
    known = column[np.isfinite(column)]
    return float(np.median(known)) if known.size else math.nan


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(content)
    os.replace(aside, path)
