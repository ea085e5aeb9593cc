"""The page of a run, or of several: whole in one file, with its pictures beside it as PNG files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from fedmpi.flow import Refused
from fedmpi.report.colours import COLOURS
from fedmpi.report.costs import draw_costs, draw_stages
from fedmpi.report.gallery import Gallery
from fedmpi.report.groups import Group, differences, grouped
from fedmpi.report.pictures import Picture
from fedmpi.report.runs import BASELINES, MODELS, read_run
from fedmpi.report.scores import draw_scores
from fedmpi.report.tables import number_at, value_at


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write a page on these runs to `out` (else `report.html` in the first folder), pictures in `pictures/` beside it.

    Runs alike but for their seeds are one mean curve with its range.  All is drawn before anything is written.
    Returns the page's path.  Raises Refused for a folder without a run and for a damaged or empty journal.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        raise Refused('a report needs jinja2 and matplotlib: pip install "fedmpi[report]"') from None
    if not folders:
        raise Refused("a report is of one run folder or more; none was given")
    groups = grouped([read_run(Path(folder)) for folder in dict.fromkeys(map(os.path.abspath, folders))])
    metrics = shown_metrics(groups)
    pictures = draw(groups, metrics)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(finite=math.isfinite, svg=Markup, nan=math.nan, number_at=number_at)
    environment.tests["finite"] = math.isfinite
    environment.filters["each"] = lambda runs, method, *arguments: [getattr(run, method)(*arguments) for run in runs]
    html = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8")).render(
        groups=groups,
        baselines=[base for group in groups for name in BASELINES if (base := group.baseline(name))],
        metrics=metrics,
        lower=[metric for metric in metrics if groups[0].runs[0].lower(metric)],
        pictures=pictures,
        models=MODELS,
        differences=differences(groups),
        ledger=list(dict.fromkeys(key for group in groups for run in group.runs for key in run.ledger())),
        colours=COLOURS,
    )
    path = Path(folders[0]) / "report.html" if out is None else Path(out)
    path = path / "report.html" if path.is_dir() else path
    try:
        (path.parent / "pictures").mkdir(parents=True, exist_ok=True)
        for picture in (picture for part in pictures.values() for picture in part):
            _write(path.parent / "pictures" / f"{picture.name}.png", picture.png)
        _write(path, html.encode("utf-8", "replace"))
    except OSError as error:
        raise Refused(f"{path}: the report could not be written: {error}") from None
    return path


def shown_metrics(groups: Sequence[Group]) -> list[str]:
    """Return the metrics in any run's scores: the first job's `stop.metric` leads, then its `evaluation.metrics`."""
    runs = [record for group in groups for run in group.runs for record in (run, *run.baselines.values())]
    known = list(dict.fromkeys(name for run in runs for name in run.metrics()))
    job = groups[0].runs[0].job
    named = value_at(job, "evaluation", "metrics")
    wanted = [value_at(job, "stop", "metric"), *(named if isinstance(named, list) else ())]
    scores = [name for name in known if name != "loss"]
    return [name for name in dict.fromkeys(map(str, [*wanted, *scores, *known])) if name in known]


def draw(groups: Sequence[Group], metrics: Sequence[str]) -> dict[str, list[Picture]]:
    """Return the pictures of each part of the page, in the order shown."""
    gallery = Gallery(groups)
    draw_scores(gallery, metrics)
    draw_costs(gallery, metrics)
    draw_stages(gallery)
    return gallery.parts


def _write(path: Path, content: bytes) -> None:
    """Write a file at once or not at all: aside first, then under its name."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(content)
    os.replace(aside, path)
