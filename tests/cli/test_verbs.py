"""The other verbs, from a shard set to a prediction."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Command


def test_from_shards_to_predictions(inside: Command, tmp_path: Path) -> None:
    """The README's path, on a set that scikit-learn ships; the scores of `evaluate` are the journal's last."""
    said = inside(
        "shard", "iris", "--clients", "5", "--partition", "dirichlet-client", "--alpha", "1.0", "--out", "iris"
    )
    assert said.code == 0, said.all
    (tmp_path / "job.toml").write_text(
        'name = "iris"\nrounds = 5\n[data]\nshards = "iris"\n[model]\nname = "logistic"\n'
        '[evaluation]\nmetrics = ["accuracy", "f1"]\n'
    )
    assert inside("train", "job.toml", "-n", "1", "--out", "runs/iris").code == 0
    last = json.loads((tmp_path / "runs/iris/journal.jsonl").read_text().splitlines()[-1])
    scores = json.loads(inside("evaluate", "runs/iris", "--json").out)
    assert scores == last["evaluation"]
    assert json.loads(inside("evaluate", "runs/iris", "--on", "iris", "--checkpoint", "best", "--json").out)["test"][
        "accuracy"
    ]
    np.savez(tmp_path / "new.npz", x=np.zeros((3, 4), np.float32))
    assert inside("predict", "runs/iris", "--source", "new.npz", "--out", "said.csv").code == 0
    with (tmp_path / "said.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert rows[0]["prediction"] in ("setosa", "versicolor", "virginica")
    assert sum(float(value) for name, value in rows[0].items() if name != "prediction") == pytest.approx(1, abs=1e-4)
    said = inside("report", "runs/iris")
    assert said.code == 0, said.all
    assert (tmp_path / "runs/iris/report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["shard", "digitz", "--out", "x", "--clients", "2"], 2, "digits"),
        (["shard", "digits", "--out", "x", "--clients", "2", "--partition", "irid"], 2, "dirichlet"),
        (["shard", "digits", "--out", "x", "--clients", "2", "--alhpa", "1"], 2, "alhpa"),
        (["shard", "idx", "--source", "none", "--out", "x", "--clients", "2"], 2, "none"),
        (["shard", "npz", "--out", "x", "--clients", "2"], 2, "--source: is missing"),
        (["shard", "nope", "--out", "x", "--clients", "2"], 2, "importer: 'nope'"),
        (["evaluate", "none"], 1, "holds no run"),
        (["predict", "none", "--source", "a.csv", "--out", "b.csv"], 1, "holds no run"),
        (["report", "none"], 1, "none"),
        (["train"], 2, "JOB"),
        (["trian"], 2, "trian"),
        (["train", "job.toml", "--baseline", "both"], 2, "pooled"),
        (["bench", "--scaling", "1,x"], 2, "write numbers of ranks"),
        (["bench", "none.toml"], 2, "none.toml"),
        (["bench", "--launcher", "srun -n 4"], 2, "{ranks}"),
        (["train", "job.toml", "--baseline", "pooled", "--profile"], 2, "a baseline is not profiled"),
    ],
)
def test_what_goes_wrong_is_told_without_a_traceback(inside: Command, words: list[str], code: int, told: str) -> None:
    said = inside(*words)
    assert said.code == code, said.all
    assert told in said.all
    assert "Traceback" not in said.all


def test_list_names_every_component_with_its_options(inside: Command) -> None:
    """Against the dicts themselves."""
    from fedmpi.job import registries

    listed = json.loads(inside("list", "--json").out)
    for room, registry in registries().items():
        assert set(listed[room]) == set(registry)
        assert all(entry["about"] for entry in listed[room].values())
    assert listed["stages"]["clip"]["options"] == {"bound": None}
    assert "alpha" in listed["partitions"]["dirichlet"]["options"]
    assert "fedavg" in inside("list").out


def test_doctor(inside: Command) -> None:
    said = inside("doctor")
    assert said.code == 0, said.all
    assert "MPI" in said.out
    assert inside("--version").out.startswith("fedmpi ")


def test_list_fits_a_terminal_of_80_columns(inside: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    from fedmpi.job import registries

    for room, registry in registries().items():
        for words in ((room,), *((room, name) for name in registry)):
            said = inside("list", *words)
            assert said.code == 0
            assert max(map(len, said.out.splitlines())) <= 80
            assert all(f"  {name}\n" in said.out for name in registry if len(words) == 1)


def test_one_entry_is_told_in_full(inside: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option of every component, with its default; the whole docstring, and the paper of a module of its own."""
    from fedmpi.job import registries

    monkeypatch.setenv("COLUMNS", "100")
    for room, registry in registries().items():
        for name, factory in registry.items():
            said = " ".join(inside("list", room, name).out.split())
            assert " ".join((factory.__doc__ or "").split()) in said
            for option, (_, default) in registry.options(name).items():
                assert f" {option}: " in said
                assert ("must be given" if default is ... else "where not given") in said
    said = " ".join(inside("list", "strategies", "scaffold").out.split())
    assert "Karimireddy, Kale, Mohri" in said
    assert "option: 1 or 2; 2 where not given" in said
    wrong = inside("list", "strategies", "scafold")
    assert wrong.code == 2
    assert "did you mean 'scaffold'?" in " ".join(wrong.err.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_the_verbs(run: Command, shell: str) -> None:
    words = {"COMP_WORDS": "fedmpi tr", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "fedmpi tr"}
    said = run(_FEDMPI_COMPLETE=f"complete_{shell}", _TYPER_COMPLETE_FISH_ACTION="get-args", **words)
    assert said.code == 0, said.all
    assert "train" in said.out
