"""The report: every number is the journal's, nothing points outside, and no odd journal breaks it."""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.flow import Refused
from fedmpi.report.groups import grouped
from fedmpi.report.page import shown_metrics, write_report
from fedmpi.report.runs import read_run
from tests.report.test_runs import Line, job, journal, keep


class Page(HTMLParser):
    """A page as a browser reads it: its tags must close, its tables are lists of rows of (text, number)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[tuple[str, float | None]]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(("", None))
        elif tag == "data" and self.tables[-1:] and "table" in self.open:
            text, number = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (text, float(dict(attrs)["value"] or "nan") if number is None else number)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data
        if "table" in self.open and ("td" in self.open or "th" in self.open):
            text, number = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (text + data.strip(), number)


def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with both baselines, and its report."""
    folder = keep(tmp_path_factory.mktemp("runs") / "digits", journal(12))
    keep(folder / "baselines" / "pooled", journal(12, 5, 0.97, 2.0))
    keep(folder / "baselines" / "local", [{**journal(1, 5, 0.9, 0.3)[0], "round": 12}])
    assert write_report([folder]) == folder / "report.html"
    return folder


def test_the_page_is_whole_and_alone(demo: Path) -> None:
    text = (demo / "report.html").read_text(encoding="utf-8")
    whole = Page(text)
    assert "http" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe", "object", "img"} & {tag for tag, _ in whole.tags}
    for _, attributes in whole.tags:
        for name, value in attributes.items():
            assert name not in ("src", "href", "xlink:href") or str(value).startswith("#")
    defined = set(re.findall(r' id="([^"]+)"', text))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)) <= {(one, "") for one in defined} | {
        ("", one) for one in defined
    }


def test_every_picture_is_a_file_too(demo: Path) -> None:
    figures = [attributes["aria-label"] for tag, attributes in page(demo / "report.html").tags if tag == "svg"]
    files = sorted((demo / "pictures").iterdir())
    assert len(figures) == len(files) > 8
    assert all(file.suffix == ".png" and file.read_bytes().startswith(b"\x89PNG\r\n") for file in files)
    shown = {"Test accuracy", "Clients' loss", "Training loss", "Time per phase", "Bytes per round", "Idle per rank"}
    assert shown <= set(figures)


@pytest.mark.usefixtures("undrawn")
def test_names_that_look_alike_are_files_of_their_own(tmp_path: Path) -> None:
    scores = {"F1": 0.1, "f1": 0.2, "f-1": 0.3, "\u03b2": 0.4}
    write_report([keep(tmp_path / "run", [{"round": 1, "evaluation": {"test": scores}}])])
    assert len(list((tmp_path / "run" / "pictures").iterdir())) == len(scores)


@pytest.mark.usefixtures("undrawn")
def test_one_rank_alone_is_not_said_to_wait(tmp_path: Path) -> None:
    lines = [{**line, "idle": [0.0]} for line in journal(2)]
    folder = keep(tmp_path / "run", lines, job(run={"ranks": 1, "host": "node017"}))
    whole = page(write_report([folder]))
    assert "1 rank \u00b7 host node017" in " ".join(whole.text.split())
    assert not (folder / "pictures" / "idle-per-rank.png").exists()


def test_baselines_stand_beside_the_run(demo: Path) -> None:
    whole = page(demo / "report.html")
    for name in ("federated", "pooled baseline", "local baseline", "worst tenth"):
        assert name in whole.text
    assert [row[0][0] for row in whole.tables[0][1:]] == ["digits", "digits: pooled baseline", "digits: local baseline"]


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    folder = keep(tmp_path / "run", [{"round": at, "train_loss": 1 / at} for at in (1, 2, 3)])
    assert write_report([folder], tmp_path / "again.html").read_bytes() == write_report([folder]).read_bytes()


def test_the_job_is_shown_as_it_is_written(demo: Path) -> None:
    assert (demo / "job.toml").read_text(encoding="utf-8") in page(demo / "report.html").text


@pytest.mark.usefixtures("undrawn")
def test_every_number_of_the_comparison_is_the_journals(tmp_path: Path) -> None:
    runs = {f"run{k}": journal(5 + k, k, 0.9 + k / 50, every=2) for k in (1, 2, 3)}
    folders = [keep(tmp_path / name, lines, job(name=name, local__lr=len(lines))) for name, lines in runs.items()]
    rows = {row[0][0]: row for row in page(write_report(folders)).tables[0][1:]}
    assert list(rows) == list(runs)
    for name, lines in runs.items():
        scored = [line for line in lines if "evaluation" in line]
        best = max(scored, key=lambda line: line["evaluation"]["test"]["accuracy"])
        clients = scored[-1]["evaluation"]["clients"]["accuracy"]
        assert [number for _, number in rows[name][1:8]] == [
            scored[-1]["evaluation"]["test"]["accuracy"],
            best["evaluation"]["test"]["accuracy"],
            clients["mean"],
            clients["worst_tenth"],
            len(lines),
            lines[-1]["seconds"]["elapsed"],
            len(lines) * (797_000 + 797_010),
        ]
        assert rows[name][2][0].endswith(f"round {best['round']}")
        assert rows[name][8][0] == "all rounds done"


@pytest.mark.usefixtures("undrawn")
def test_the_last_rounds_are_the_journals(tmp_path: Path) -> None:
    lines = journal(14)
    rows = page(write_report([keep(tmp_path / "run", lines)])).tables[-1][1:]
    assert [int(row[0][0]) for row in rows] == list(range(5, 15))
    for row, line in zip(rows, lines[-10:], strict=True):
        test = line["evaluation"]["test"]
        expected = [10, line["train_loss"], 0.1, test["accuracy"], test["f1"], test["loss"]]
        assert [number for _, number in row[1:7]] == expected


# JSON of any shape where a line's tables are expected, often with the words that the report looks for
words = st.sampled_from(
    [
        *("test", "clients", "personal", "accuracy", "loss", "mean", "std", "worst_tenth"),
        *("ranks", "train", "total", "evaluate", "down", "up", "x"),
    ]
)
atoms = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.floats(0, 1)
shapes = st.recursive(
    atoms, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6
)
fields = [
    *("round", "clients", "weight", "train_loss", "evaluation", "seconds", "bytes", "lost", "idle"),
    *("stages", "stopped", "lr", "new"),
]
odd = st.dictionaries(st.sampled_from(fields), shapes, min_size=1)


@st.composite
def spoilt(draw: st.DrawFn) -> list[Line]:
    """Lines of a good journal, some with tables gone or in another shape."""
    lines = journal(draw(st.integers(1, 4)), every=draw(st.integers(1, 3)))
    for line in lines:
        for field in draw(st.sets(st.sampled_from(fields))):
            line.pop(field, None)
        line.update(draw(odd))
    return lines


@settings(derandomize=True, database=None, deadline=None, max_examples=12)
@given(first=spoilt(), second=st.lists(odd, min_size=1, max_size=3), baseline=st.lists(odd, min_size=1, max_size=2))
@pytest.mark.usefixtures("undrawn")
def test_no_shape_of_a_journal_breaks_a_report(
    first: list[Line], second: list[Line], baseline: list[Line], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("odd")
    folders = [keep(root / "a", first), keep(root / "b", second, {})]
    keep(root / "a" / "baselines" / "pooled", baseline)
    page(write_report(folders[:1]))
    page(write_report(folders, root / "both.html"))


def test_odd_journals_are_drawn_for_real(tmp_path: Path) -> None:
    bare: list[Line] = [{"round": 1}, {"round": 2, "seconds": {"total": None}}]
    lines = journal(4)
    lines[1]["evaluation"]["test"]["accuracy"] = None
    lines[2]["train_loss"] = math.inf
    for line in lines:  # as under differential privacy
        del line["clients"], line["weight"], line["idle"]
    folders = [keep(tmp_path / "bare", bare, {}), keep(tmp_path / "private", lines)]
    for folder in folders:
        page(write_report([folder]))
    assert not list((tmp_path / "bare" / "pictures").iterdir())
    assert len(list((tmp_path / "private" / "pictures").iterdir())) > 8


def test_hostile_names_are_text(tmp_path: Path) -> None:
    name = "<script>alert('x')</script> $x^2$ _ --> & \x01"
    scores = {"test": {name: 0.5}, "clients": {name: {"mean": 0.4}}}
    lines = [
        {"round": 1, "evaluation": scores, "seconds": {name: 1.0, "total": 1.0}, "stages": {name: {name: 1}}},
        {"round": 2, "stages": {name: {name: 2}}, "stopped": name},
    ]
    tables = [job(name=name, local__lr=lr, strategy={"name": name}) for lr in (0.1, 0.2)]
    folders = [keep(tmp_path / str(place), lines, table) for place, table in enumerate(tables)]
    for whole in (page(write_report(folders[:1])), page(write_report(folders, tmp_path / "both.html"))):
        assert not [tag for tag, _ in whole.tags if tag == "script"]
        assert "<script>alert('x')</script> $x^2$" in whole.text


@pytest.mark.usefixtures("undrawn")
def test_a_group_of_seeds_shows_its_mean_and_each_seed(tmp_path: Path) -> None:
    every = [journal(3, seed, 0.8 + seed / 20) for seed in (1, 2)]
    folders = [keep(tmp_path / f"s{seed}", lines, job(seed=seed)) for seed, lines in enumerate(every, 1)]
    rows = page(write_report(folders)).tables[0][1:]
    finals = [lines[-1]["evaluation"]["test"]["accuracy"] for lines in every]
    assert [row[0][0] for row in rows] == ["digits, 2 seeds", "seed 1", "seed 2"]
    assert [row[1][1] for row in rows] == [pytest.approx(sum(finals) / 2), *finals]


def test_the_leading_metric_is_the_one_asked_for(tmp_path: Path) -> None:
    plain, stopping = job(), job(stop={"metric": "loss"})
    del plain["evaluation"]["metrics"]
    runs = [read_run(keep(tmp_path / str(place), journal(2), table)) for place, table in enumerate((plain, stopping))]
    named = [shown_metrics(grouped([run])) for run in runs]
    assert named == [["accuracy", "f1", "loss"], ["loss", "accuracy", "f1"]]


def spoil_empty(folder: Path) -> None:
    (folder / "journal.jsonl").write_text("")


def spoil_line(folder: Path) -> None:
    text = (folder / "journal.jsonl").read_text().splitlines()
    (folder / "journal.jsonl").write_text("\n".join([text[0], text[1][:20], text[2]]) + "\n")


def spoil_kind(folder: Path) -> None:
    (folder / "journal.jsonl").write_text('[1]\n{"round": 1}\n')


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "job.toml").unlink(), "holds no run: there is no job.toml"),
        (lambda folder: (folder / "journal.jsonl").unlink(), "holds no run: there is no journal.jsonl"),
        (lambda folder: (folder / "job.toml").write_text("name ="), "cannot|can be read"),
        (spoil_empty, "holds no round"),
        (spoil_line, "line 2 is no line of a journal"),
        (spoil_kind, "line 1 is no line of a journal"),
        (shutil.rmtree, "holds no run"),
    ],
)
def test_a_folder_without_a_run_is_refused(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    good, bad = keep(tmp_path / "good", journal(3)), keep(tmp_path / "bad", journal(3))
    spoil(bad)
    with pytest.raises(Refused, match=message) as refused:
        write_report([good, bad])
    assert str(bad) in str(refused.value)
    assert not (good / "report.html").exists()
    assert not (good / "pictures").exists()


def test_what_cannot_be_asked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = keep(tmp_path / "run", [{"round": 1}])
    with pytest.raises(Refused, match="none was given"):
        write_report([])
    with pytest.raises(Refused, match="could not be written"):
        write_report([folder], folder / "job.toml" / "report.html")
    for missing in ("jinja2", "matplotlib"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            with pytest.raises(Refused, match=re.escape('pip install "fedmpi[report]"')):
                write_report([keep(tmp_path / "other", journal(1))])


@pytest.mark.usefixtures("undrawn")
def test_out_may_be_a_file_or_a_folder(tmp_path: Path) -> None:
    folder = keep(tmp_path / "run", [{"round": 1}])
    assert write_report([folder], tmp_path) == tmp_path / "report.html"
    assert write_report([folder, folder], tmp_path / "new" / "x.html") == tmp_path / "new" / "x.html"
    assert (tmp_path / "new" / "pictures").is_dir()
