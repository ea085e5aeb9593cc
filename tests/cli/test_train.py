"""`fedmpi train` as a person meets it: what it makes, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmpi.launch.local import find_mpirun
from tests.cli.conftest import Command, command

MODEL = """
import torch

class Net(torch.nn.Linear):
    def forward(self, x):
        if self.training:
            {body}
        return super().forward(x)

def make(shape, outputs):
    return Net(*shape, outputs)
"""


def mpirun(ranks: int) -> list[str]:
    """The words with which a user starts these ranks."""
    found = find_mpirun()
    over = ["--map-by", ":OVERSUBSCRIBE"] if found.flavour == "openmpi" else []
    return [str(found.path), *over, "-n", str(ranks), sys.executable, "-m", "mpi4py", "-m", "fedmpi"]


AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def test_one_process(inside: Command, job: Path, tmp_path: Path) -> None:
    said = inside("train", str(job), "-n", "1", "--out", "runs/a")
    assert said.code == 0, said.all
    assert sorted(path.name for path in (tmp_path / "runs/a").iterdir()) == [
        "DONE",
        "checkpoints",
        "first.safetensors",
        "job.toml",
        "journal.jsonl",
        "model.safetensors",
    ]
    assert "round 3/3" in said.out
    assert "\x1b" not in said.all  # no terminal, no escape codes


def test_it_starts_mpirun_itself(run: Command, inside: Command, job: Path, tmp_path: Path) -> None:
    fixed = ["--set", 'aggregation.stages=["fixed-point"]']
    assert run("train", str(job), "-n", "3", "--out", "own", *fixed).code == 0
    assert inside("train", str(job), "-n", "1", "--out", "alone", *fixed).code == 0
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("own", "alone"))
    assert one == other


WRONG = [
    ("rounds", ["--set", "rounds=0"], ["rounds", "0 given", "greater than 0"]),
    ("type", ["--set", "local.lr=fast"], ["local.lr", "'fast' given", "number"]),
    ("field", ["--set", "cohort.sise=3"], ["cohort.sise", "size", "fraction"]),
    ("table", ["--set", "optimiser.lr=1"], ["optimiser", "local"]),
    ("strategy", ["--set", "strategy=fedavgg"], ["strategy", "'fedavgg' given", "fedavg, fedsgd"]),
    ("option", ["--set", "model.hiden=[1]"], ["model.hiden", "hidden"]),
    ("option's type", ["--set", "model.hidden=wide"], ["model.hidden", "'wide' given"]),
    ("stage", ["--set", 'aggregation.stages=["clop"]'], ["aggregation.stages", "'clop' given", "clip"]),
    ("stage option", ["--set", 'aggregation.stages=["clip"]'], ["bound", "missing"]),
    ("order", ["--set", 'aggregation.stages=["fixed-point", {name="clip", bound=1}]'], ["clip", "first"]),
    ("cohort", ["--set", "cohort.size=99"], ["cohort.size", "99 given", "5 clients"]),
    ("both", ["--set", "cohort.fraction=0.5"], ["size", "fraction", "not both"]),
    ("metric", ["--set", 'evaluation.metrics=["mse"]'], ["evaluation.metrics", "'mse' given", "accuracy"]),
    ("target", ["--set", "stop.acuracy=0.9"], ["stop.acuracy", "accuracy"]),
    ("model", ["--set", "model=cnn"], ["model", "cnn", "images"]),
    ("module", ["--set", "model=no.such:thing"], ["model", "no.such:thing"]),
    ("init", ["--set", "model.init=none.safetensors"], ["model.init", "none.safetensors"]),
    ("fedsgd", ["--set", "strategy=fedsgd"], ["local.batch", "fedsgd"]),
    ("set", ["--set", "rounds"], ["--set", "FIELD=VALUE"]),
    ("optimizer", ["--set", "local.optimizer={name='sgd', nesterov=true}"], ["local.optimizer", "sgd"]),
]


@pytest.mark.parametrize(("words", "told"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_job_is_one_message_and_code_2(inside: Command, job: Path, words: list[str], told: list[str]) -> None:
    said = inside("train", str(job), "-n", "3", "--out", "out", *words)
    assert said.code == 2, said.all
    assert "Traceback" not in said.all
    assert len(said.err.strip().splitlines()) == 1, said.err
    for word in told:
        assert word in said.err
    assert not (job.parent / "out").exists()


def test_under_the_users_own_mpirun_too(job: Path, tmp_path: Path) -> None:
    said = command([*mpirun(3), "train", str(job), "--set", "rounds=0"], tmp_path, **AS_ROOT)
    assert said.code == 2
    assert said.err.count("rounds: 0 given") == 1
    assert "Traceback" not in said.all


def test_a_job_file_that_is_not_there_or_not_toml(inside: Command, tmp_path: Path) -> None:
    assert "there is no such job file" in inside("train", "none.toml", "-n", "1").err
    (tmp_path / "bad.toml").write_text("rounds = = 3")
    said = inside("train", "bad.toml", "-n", "1")
    assert said.code == 2
    assert "is not TOML" in said.err


def damage_missing(folder: Path) -> None:
    next(folder.glob("train-*.h5")).unlink()


def damage_truncated(folder: Path) -> None:
    path = next(folder.glob("train-*.h5"))
    os.truncate(path, path.stat().st_size // 2)


def damage_schema(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["schema"] = 99
    (folder / "manifest.json").write_text(json.dumps(manifest))


def damage_bytes(folder: Path) -> None:
    path = next(folder.glob("train-*.h5"))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 40)
        file.write(b"\xff" * 16)


@pytest.mark.parametrize("damage", [damage_missing, damage_truncated, damage_schema, damage_bytes])
def test_a_damaged_shard_set_is_code_1(
    inside: Command, job: Path, shards: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    shutil.copytree(shards, tmp_path / "copy")
    damage(tmp_path / "copy")
    said = inside("train", str(job), "-n", "1", "--out", "out", "--set", f"data.shards={tmp_path / 'copy'}")
    assert said.code == 1, said.all
    assert "Traceback" not in said.all
    assert said.err.count("fedmpi: ") == 1
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_damage_found_by_a_rank_in_the_middle_of_a_round(run: Command, job: Path, shards: Path, tmp_path: Path) -> None:
    """It cannot come to the reduction that the others wait in: it tells, and ends them."""
    shutil.copytree(shards, tmp_path / "copy")
    damage_bytes(tmp_path / "copy")
    words = ["--set", f"data.shards={tmp_path / 'copy'}", "--set", "cohort.size=5"]
    said = run("train", str(job), "-n", "3", "--out", "out", *words)
    assert said.code == 1, said.all
    assert "Traceback" not in said.all
    assert said.err.count("fedmpi: ") == 1


def test_an_error_in_the_users_model_ends_the_job(run: Command, job: Path, tmp_path: Path) -> None:
    """On a rank, where the try-out before the launch met none."""
    body = 'import os; 1 / (os.environ.get("OMPI_COMM_WORLD_RANK") != "1")'
    (tmp_path / "mine.py").write_text(MODEL.format(body=body))
    began = time.monotonic()
    job.write_text(job.read_text().replace("hidden = [8]", "").replace('"mlp"', '"mine:make"'))
    said = run("train", str(job), "-n", "3", "--out", "out")
    assert said.code not in (0, 2)
    assert time.monotonic() - began < 40
    assert "ZeroDivisionError" in said.err
    assert "mine.py" in said.err


def test_killed_and_resumed_it_is_the_same_model(inside: Command, job: Path, tmp_path: Path) -> None:
    """A real SIGKILL of the whole launch at some moment of the run: of the one that fedmpi starts by itself.

    The user's own launch, on other ranks, goes on with it.
    """
    words = ["--set", "rounds=40", "--set", 'aggregation.stages=["fixed-point"]']
    assert inside("train", str(job), "-n", "1", "--out", "whole", *words).code == 0
    start = [sys.executable, "-m", "fedmpi", "train", str(job), "-n", "3", "--out", "cut", *words]
    child = subprocess.Popen(start, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    journal = tmp_path / "cut" / "journal.jsonl"
    while not journal.exists() or journal.read_text().count("\n") < 5:
        assert child.poll() is None
        time.sleep(0.01)
    subprocess.run(["pkill", "-KILL", "-g", str(child.pid)], check=False)
    child.wait()
    subprocess.run(["pkill", "-KILL", "-f", "--", f"--out cut.*{tmp_path.name}|{tmp_path}.*--out cut"], check=False)
    assert child.returncode == -signal.SIGKILL
    time.sleep(0.5)  # ranks see their launcher gone
    said = command([*mpirun(2), "train", str(job), "--out", "cut", "--resume", *words], tmp_path, **AS_ROOT)
    assert said.code == 0, said.all
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == other
    assert [json.loads(line)["round"] for line in journal.read_text().splitlines()] == list(range(1, 41))


def test_dry_run_shows_and_does_nothing(inside: Command, job: Path, tmp_path: Path) -> None:
    said = inside("train", str(job), "-n", "3", "--dry-run", "--out", "out")
    assert said.code == 0
    assert 'name = "fedavg"' in said.out
    assert "bytes down" in said.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["pooled", "local"])
def test_baselines_lie_beside_the_run(inside: Command, job: Path, tmp_path: Path, kind: str) -> None:
    assert inside("train", str(job), "-n", "1", "--out", "out").code == 0
    said = inside("train", str(job), "-n", "1", "--out", "out", "--baseline", kind)
    assert said.code == 0, said.all
    lines = (tmp_path / "out" / "baselines" / kind / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2, 3]
    assert 0 <= json.loads(lines[-1])["evaluation"]["test"]["accuracy"] <= 1
    assert (tmp_path / "out" / "DONE").exists()


def test_a_resume_is_refused_before_any_rank_is_started(
    inside: Command, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And told with the option that would let it go on, which the ranks are given too."""
    words: list[list[str]] = []
    monkeypatch.setattr("fedmpi.launch.run", lambda ranks, given, **rest: words.append(list(given)) or 0)
    assert inside("train", str(job), "-n", "1", "--out", "out", "--set", "local.schedule=cosine").code == 0
    longer = ["train", str(job), "-n", "3", "--out", "out", "--set", "local.schedule=cosine", "--set", "rounds=9"]
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    said = inside(*longer, "--resume")
    assert (said.code, words) == (2, [])
    assert "rounds: 9 given, it was 3" in said.err
    assert "--reschedule" in said.err
    assert inside(*longer, "--resume", "--reschedule").code == 0
    assert "--reschedule" in words[0]
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
