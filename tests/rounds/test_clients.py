"""Who comes and what they keep: what holds of clients over whole runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedmpi
from fedmpi.flow import Refused
from fedmpi.job import JobError
from fedmpi.use.evaluate import score
from fedmpi.use.load import load
from fedmpi.use.predict import predictions
from tests.blobs import blobs
from tests.fake import launch
from tests.strategies import oracle

PROBLEM = oracle.Problem()


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PROBLEM.write(tmp_path_factory.mktemp("clients") / "four")


def built(table: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run's parts after it has ended, all on one rank."""
    from fedmpi.rounds import run as module

    kept: list[Any] = []
    build = module.build

    def keep(*given: Any, **named: Any) -> Any:
        kept.append(build(*given, **named))
        return kept[-1]

    monkeypatch.setattr(module, "build", keep)
    oracle.trained(table)
    return kept[-1]  # before it, the try-out's


@pytest.mark.parametrize("sampler", ["uniform", "replacement", "examples", "poisson", "round-robin", "power-of-choice"])
@pytest.mark.parametrize("weights", ["uniform", "examples"])
def test_scaffold_s_c_is_the_mean_of_the_clients_own(
    four: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, weights: str
) -> None:
    """Whoever comes, and however often: Karimireddy et al. 2020, line 17, keeps c the mean of all c_i."""
    sections = {"cohort": {"size": 2, "sampler": sampler}, "aggregation": {"weights": weights}, "rounds": 8}
    parts = built(oracle.job(four, "scaffold", **sections), monkeypatch)
    own = [parts.memory.load(client, 8) for client in range(PROBLEM.clients)]
    assert sum(vector is not None for vector in own) > 1
    controls = [np.zeros(parts.layout.trained.stop) if vector is None else vector.numpy() for vector in own]
    mean = np.average(controls, axis=0, weights=PROBLEM.shares(weights))
    np.testing.assert_allclose(parts.state.planes[1, parts.layout.trained].numpy(), mean, atol=1e-12)


@pytest.mark.parametrize("sampler", ["uniform", "replacement", "examples", "poisson"])
def test_feddyn_s_h_is_what_its_clients_gradients_come_to(
    four: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    parts = built(oracle.job(four, "feddyn", cohort={"size": 2, "sampler": sampler}, rounds=8), monkeypatch)
    own = [parts.memory.load(client, 8) for client in range(PROBLEM.clients)]
    total = sum(vector.numpy() for vector in own if vector is not None)
    np.testing.assert_allclose(parts.plan.strategy.vectors["h"].numpy(), total / PROBLEM.clients, atol=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_fine_tuning_trains_at_the_close_too(four: Path, schedule: str) -> None:
    """At the rate of the round that made the model, not of the one that never comes, where a schedule is 0."""
    run = oracle.trained(oracle.job(four, "fine-tuning", local={"schedule": schedule}, rounds=2))
    told = run.lines[-1]["evaluation"]
    assert told["personal"]["loss"]["mean"] < told["clients"]["loss"]["mean"] - 1e-3


@pytest.mark.parametrize("strategy", ["ditto", "apfl", "pfedme", "per-fedavg", "fine-tuning"])
def test_who_has_nothing_to_train_on_uses_the_common_model(tmp_path: Path, strategy: str) -> None:
    clients = {name: (x, y, x, y) for name, (x, y) in blobs((12, 9)).items()}
    x, y = blobs((10,), seed=3)["site-0"]
    clients["empty"] = (x[:0], y[:0], x, y)
    fedmpi.write_shards(tmp_path / "set", clients, classes=("a", "b", "c"))
    job = {"rounds": 3, "threads": 1, "data": {"shards": str(tmp_path / "set")}, "model": "logistic"}
    job |= {"strategy": strategy, "local": {"lr": 0.05, "batch": 4}}
    fedmpi.train(job, out=tmp_path / "run")
    common, own = load(tmp_path / "run"), load(tmp_path / "run", client="empty")
    for name, tensor in common.model.state_dict().items():
        assert torch.equal(own.model.state_dict()[name], tensor)


def test_a_clients_own_model_predicts(four: Path, tmp_path: Path) -> None:
    fedmpi.train(oracle.job(four, "fedper") | {"model": {"name": "mlp", "hidden": [4]}}, out=tmp_path / "run")
    np.savez(tmp_path / "x.npz", x=PROBLEM.x[0])
    said = []
    for client in ("c0", "c3"):
        predictions(load(tmp_path / "run", client=client), tmp_path / "x.npz", tmp_path / "said.npz")
        with np.load(tmp_path / "said.npz") as columns:
            said.append(columns["probability"])
    assert np.abs(said[0] - said[1]).max() > 1e-3
    with pytest.raises(JobError, match="--client: is missing"):
        predictions(load(tmp_path / "run"), tmp_path / "x.npz", tmp_path / "said.npz")
    with pytest.raises(JobError, match="--client: 'nobody' given.*c0, c1"):
        load(tmp_path / "run", client="nobody")


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_one_model_for_all_has_no_client_s(four: Path, tmp_path: Path, strategy: str) -> None:
    fedmpi.train(oracle.job(four, strategy) | {"model": "logistic"}, out=tmp_path / "run")
    with pytest.raises(JobError, match=f"--client: {strategy} makes one model"):
        load(tmp_path / "run", client="c0")


@pytest.mark.parametrize("strategy", ["ditto", "apfl", "fedper", "ifca", "local", "fine-tuning"])
def test_scores_of_a_run_are_those_of_its_journal(four: Path, tmp_path: Path, strategy: str) -> None:
    table = oracle.job(four, strategy, cohort={"size": 2}) | {"model": {"name": "mlp", "hidden": [4]}}
    told = fedmpi.train(table, out=tmp_path / "run").lines[-1]["evaluation"]
    found = score(load(tmp_path / "run"))
    assert found.keys() == told.keys()
    for kind, scores in told.items():
        assert found[kind]["loss"] == pytest.approx(scores["loss"])


def test_without_clients_memory_the_common_model_is_still_there(four: Path, tmp_path: Path) -> None:
    fedmpi.train(oracle.job(four, "ditto") | {"model": "logistic"}, out=tmp_path / "run")
    for file in (tmp_path / "run" / "clients").iterdir():
        file.unlink()
    assert "clients" in score(load(tmp_path / "run"))
    with pytest.raises(Refused, match="is gone"):
        load(tmp_path / "run", client="c0")


def trace(folder: Path, lines: str) -> dict[str, Any]:
    (folder / "trace.csv").write_text("client,start,end,latency\n" + lines)
    return {"size": 1, "sampler": {"name": "trace", "file": str(folder / "trace.csv")}}


@pytest.mark.parametrize("loop", ["synchronous", "cyclic"])
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_trace_that_ends_ends_the_run_with_its_model(four: Path, tmp_path: Path, ranks: int, loop: str) -> None:
    cohort = trace(tmp_path, "c0,0,10,3\nc1,0,10,3\n")
    table = oracle.job(four, "fedavg", cohort=cohort, rounds=50, checkpoint={"every": 0}, loop=loop)
    run = oracle.trained(table, ranks, tmp_path / "run")
    assert [line["clients"] for line in run.lines] == [1, 1, 1, 0]  # in the fourth they leave before they are done
    assert "trace.csv" in str(run.stopped)
    assert (tmp_path / "run" / "DONE").exists()
    shorter = oracle.trained(table | {"rounds": 3}, ranks)
    np.testing.assert_allclose(oracle.vector(run.model), oracle.vector(shorter.model), atol=1e-12)


def test_a_trace_in_which_nobody_comes_is_refused_on_every_rank(four: Path, tmp_path: Path) -> None:
    cohort = trace(tmp_path, "c0,5,5.5,3\n")

    def work(comm: Any) -> None:
        with pytest.raises(Refused):
            fedmpi.train(oracle.job(four, "fedavg", cohort=cohort) | {"model": "logistic"}, comm)

    (tmp_path / "trace.csv").write_text("client,start,end,latency\n")
    launch(3, work)


def test_a_run_to_which_nobody_has_come_goes_on(four: Path, tmp_path: Path) -> None:
    never = {"fraction": 1e-9, "sampler": "poisson"}
    table = oracle.job(four, "scaffold", cohort=never, rounds=2)
    run = oracle.trained(table, out=tmp_path / "run")
    assert [line["clients"] for line in run.lines] == [0, 0]
    np.testing.assert_array_equal(oracle.vector(run.model), oracle.vector(oracle.start()))

    def model(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
        return oracle.start()

    more = fedmpi.train(table | {"rounds": 4}, model=model, out=tmp_path / "run", resume=True)
    assert len(more.lines) == 4


def test_poisson_comes_at_the_rate_that_was_asked(four: Path) -> None:
    table = oracle.job(
        four, "fedavg", cohort={"fraction": 0.1, "sampler": "poisson"}, rounds=300, evaluation={"every": 0}
    )
    came = sum(line["clients"] for line in oracle.trained(table).lines)
    assert abs(came - 120) < 5 * np.sqrt(1200 * 0.1 * 0.9)  # and not a client of four each round, which would be 300


def test_runs_leave_no_file_open(four: Path, tmp_path: Path) -> None:
    opened = []
    for place in range(3):
        oracle.trained(oracle.job(four, "ditto", rounds=1), out=tmp_path / str(place))
        opened.append(len(os.listdir("/proc/self/fd")))
    assert opened[-1] <= opened[0]


def test_models_that_should_begin_apart_do(four: Path, tmp_path: Path) -> None:
    table = oracle.job(four, "ifca")
    with pytest.raises(JobError, match="give a factory"):
        fedmpi.train(table, model=oracle.start())
    with pytest.raises(JobError, match="begins alike for every seed"):
        oracle.trained(table)
    with pytest.raises(JobError, match=r"leave model.init out"):
        fedmpi.train(table | {"model": {"name": "logistic", "init": "some.safetensors"}})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"strategy": "fedper", "evaluation": {"clients": False}, "stop": {"patience": 3}}, "stop: fedper"),
        ({"strategy": "fedbn"}, "fedbn"),
        ({"strategy": {"name": "fedrep", "head": ("nowhere",)}}, "strategy.head: 'nowhere'"),
        ({"strategy": "os:getcwd"}, "strategy: 'os:getcwd' gave a str"),
        ({"strategy": "iiadmm", "aggregation": {"stages": [{"name": "clip", "bound": 1.0}]}}, "clip"),
        ({"strategy": "mime", "local": {"clip": 1.0}}, "local.clip"),
        ({"strategy": "fednova", "local": {"optimizer": "adam"}}, "local.optimizer"),
        ({"strategy": "fedadam", "server": {"optimizer": "adam"}}, "server.optimizer"),
        ({"strategy": {"name": "pfedme", "lam": 30.0}}, "local.lr"),
        ({"loop": "cyclic", "cohort": {"size": 2, "sampler": "replacement"}}, "loop: cyclic takes a client once"),
        ({"loop": "ensemble"}, "loop: ensemble"),
        ({"cohort": {"size": 2, "sampler": "lottery"}}, "cohort.sampler"),
    ],
)
def test_what_cannot_go_together_is_refused_before_any_rank_starts(
    four: Path, change: dict[str, Any], told: str
) -> None:
    others = {name: table for name, table in change.items() if name != "strategy"}
    table = oracle.job(four, change.get("strategy", "fedavg"), **others)
    with pytest.raises(JobError, match=told):
        fedmpi.train(table | {"model": {"name": "mlp", "hidden": [4]}})


def test_a_module_that_differs_by_rank_begins_as_home_s(four: Path) -> None:
    """A script's own modules need no seed: heads and own models begin alike wherever a client is served."""
    table = oracle.job(four, "fedper", aggregation={"stages": ["fixed-point"]}, cohort={"size": 2})

    def work(comm: Any) -> Any:
        model = oracle.start(hidden=True, seed=comm.me + 1)
        return fedmpi.train(table, comm, model=model)

    alone = fedmpi.train(table, model=oracle.start(hidden=True, seed=1))
    runs = launch(3, work)
    assert runs[0].lines[-1]["evaluation"] == alone.lines[-1]["evaluation"]


def test_stop_looks_at_clients_own_models(four: Path) -> None:
    table = oracle.job(four, "fine-tuning", rounds=30, stop={"metric": "loss", "loss": 0.6})
    run = oracle.trained(table)
    told = run.lines[-1]["evaluation"]
    assert run.stopped == "loss 0.6 reached"
    assert told["personal"]["loss"]["mean"] <= 0.6 < told["clients"]["loss"]["mean"]


@pytest.mark.parametrize("strategy", ["moon", "feddecorr"])
def test_a_script_gets_its_module_back_without_hooks(four: Path, strategy: str) -> None:
    run = oracle.trained(oracle.job(four, strategy, rounds=1), hidden=True)
    assert not any(module._forward_pre_hooks for module in run.model.modules())
