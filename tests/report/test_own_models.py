"""The report of runs whose clients have models of their own: beside the common one, or alone, and told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedmpi.report.gallery import Gallery
from fedmpi.report.groups import Group, grouped
from fedmpi.report.page import draw, shown_metrics, write_report
from fedmpi.report.runs import read_run
from fedmpi.report.scores import draw_scores, final_scores
from tests.report.test_page import page
from tests.report.test_runs import job, journal, keep, personal


@pytest.mark.usefixtures("undrawn")
def test_own_models_stand_beside_the_common_one(tmp_path: Path) -> None:
    """In every table; what a run does not have is left out of its own page, and a dash in a comparison."""
    runs = {"avg": journal(3), "ditto": personal(journal(3)), "fedper": personal(journal(3), only=True)}
    folders = [keep(tmp_path / name, lines, job(name=name, strategy={"name": name})) for name, lines in runs.items()]
    whole = page(write_report(folders))
    head, *rows = whole.tables[0]
    kinds = [f"{whose} {word}" for whose in ("Clients'", "Own models'") for word in ("mean", "worst tenth")]
    assert [text for text, _ in head[3:7]] == kinds
    for row, lines in zip(rows, runs.values(), strict=True):
        last = lines[-1]["evaluation"]
        expected = [
            last[kind]["accuracy"][word] if kind in last else None
            for kind in ("clients", "personal")
            for word in ("mean", "worst_tenth")
        ]
        assert [number for _, number in row[3:7]] == expected
    assert rows[2][1][1] is None
    keep(folders[0] / "baselines" / "local", journal(3))
    local = page(write_report(folders)).tables[0][-1]
    last = journal(3)[-1]["evaluation"]["clients"]["accuracy"]
    assert [number for _, number in local[3:7]] == [None, None, last["mean"], last["worst_tenth"]]
    assert rows[2][2][1] == max(line["evaluation"]["personal"]["accuracy"]["mean"] for line in runs["fedper"])
    assert rows[2][2][0].endswith("Own models' mean, round 3")
    alone = page(write_report(folders[2:]))
    last = runs["fedper"][-1]["evaluation"]["personal"]
    assert [text for text, _ in alone.tables[0][0]] == [
        "At the end",
        "Own models' mean",
        "Worst tenth",
        "Std over clients",
    ]
    for row in alone.tables[0][1:]:
        assert [number for _, number in row[1:]] == [last[row[0][0]][word] for word in ("mean", "worst_tenth", "std")]
    assert [number for _, number in alone.tables[-1][-1][4:6]] == [
        last["accuracy"]["mean"],
        last["accuracy"]["worst_tenth"],
    ]


def test_pictures_tell_own_models_from_the_common_one(tmp_path: Path) -> None:
    runs = {"avg": journal(3), "ditto": personal(journal(3)), "fedper": personal(journal(3), only=True)}
    folders = [keep(tmp_path / name, lines, job(name=name, strategy={"name": name})) for name, lines in runs.items()]
    keep(folders[0] / "baselines" / "local", journal(3))
    drawn = {part: {one.title: one for one in some} for part, some in draw(*seen(folders)).items()}
    own = drawn["scores"]["Clients' accuracy: own model"].svg
    common = drawn["scores"]["Clients' accuracy: common model"].svg
    for name, models in {"avg": ["common"], "ditto": ["common", "own"], "fedper": ["own"]}.items():
        for model, svg in (("common", common), ("own", own)):
            assert (f">{name}, {model} model<" in svg) == (model in models)
    assert ">avg, common model<" in own  # what the others are compared with
    assert "Clients' accuracy by wall time" in drawn["cost"]
    gets = drawn["clients"]["What each client gets"].svg
    for lines in runs.values():
        for kind in {"clients", "personal"} & set(lines[-1]["evaluation"]):
            for word in ("mean", "worst_tenth"):
                assert f">{lines[-1]['evaluation'][kind]['accuracy'][word]:#.3g}<" in gets
    assert ">avg: local baseline<" in gets
    alone = scores(folders[1:2])
    for label in ("common model", "common model, worst tenth", "own model", "own model, worst tenth"):
        assert f">{label}<" in alone["Clients' accuracy"]
    only = scores(folders[2:])
    assert [f">own model{rest}<" in only["Clients' accuracy"] for rest in ("", ", worst tenth")] == [True, True]
    assert "common model" not in only["Clients' accuracy"]


def test_a_local_baselines_scores_are_of_own_models(tmp_path: Path) -> None:
    folder = keep(tmp_path / "run", journal(3))
    keep(folder / "baselines" / "local", journal(3, top=0.5))
    keep(folder / "baselines" / "pooled", journal(3, top=0.7))
    (group,), _ = seen([folder])
    rows = [group, group.baseline("pooled"), group.baseline("local")]
    found = final_scores([row for row in rows if row is not None], "accuracy")
    known = {model: np.isfinite(mean).tolist() for model, (mean, _) in found.items()}
    assert known == {"common model": [True, True, False], "own model": [False, False, True]}
    assert found["own model"][1][2] == journal(3, top=0.5)[-1]["evaluation"]["clients"]["accuracy"]["worst_tenth"]


def scores(folders: list[Path]) -> dict[str, str]:
    """The pictures of scores alone: title and SVG."""
    groups, metrics = seen(folders)
    gallery = Gallery(groups)
    draw_scores(gallery, metrics)
    return {one.title: one.svg for one in gallery.parts["scores"]}


def seen(folders: list[Path]) -> tuple[list[Group], list[str]]:
    groups = grouped([read_run(folder) for folder in folders])
    return groups, shown_metrics(groups)
