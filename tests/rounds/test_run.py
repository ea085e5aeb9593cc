"""Whole runs, on threads instead of MPI: the laws of the project."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import fedmpi
from fedmpi.job import JobError
from fedmpi.plan.replica import Replica
from fedmpi.records.memory import Memory
from fedmpi.strategies import STRATEGIES
from tests.blobs import SIZES, blobs
from tests.blobs import job as blobs_job
from tests.fake import Fake, launch
from tests.strategies import cases

FIXED = {"aggregation": {"stages": ["fixed-point"]}}


def weights(run: fedmpi.Run) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])


def on(ranks: int, job: dict[str, Any] | Path, **given: Any) -> list[fedmpi.Run]:
    return launch(ranks, lambda comm: fedmpi.train(job, comm, **given))


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: part for name, part in line.items() if name not in ("seconds", "idle", "bytes")} for line in lines]


@dataclass
class Alone:
    """A strategy's run on one rank, in sums of integers, with what it left in its folder."""

    job: dict[str, Any]
    run: fedmpi.Run
    folder: Path

    def equals(self, runs: list[fedmpi.Run]) -> bool:
        """Whether every rank has this run's model, and home its lines."""
        models = all(torch.equal(weights(run), weights(self.run)) for run in runs)
        return models and without_times(runs[0].lines) == without_times(self.run.lines)


@pytest.fixture(scope="module", params=STRATEGIES)
def alone(request: pytest.FixtureRequest, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    table = blobs_job(shards)
    table |= FIXED | cases.over(request.param, table["local"] | {"batch": 8})
    table |= {"model": "mine", "rounds": 3, "stop": {"metric": "loss"}, "cohort": {"size": 6}}
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return Alone(table, fedmpi.train(table, model=cases.model, out=folder), folder)


@pytest.mark.parametrize(("ranks", "trains"), [(2, False), (3, True), (6, True)])
def test_fixed_point_gives_the_same_bits_at_any_number_of_ranks(alone: Alone, ranks: int, trains: bool) -> None:
    """The float sum does not (a test below), so the equality is the stage's doing."""
    server = alone.job["server"] | {"trains": trains}
    assert alone.equals(on(ranks, alone.job | {"server": server}, model=cases.model))


def test_staged_as_on_a_gpu_gives_the_same_bits(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies between MPI's buffers and the device's, which a GPU needs, run on host memory here."""
    monkeypatch.setattr(Replica, "of", partial(Replica.of, staged=True))
    assert alone.equals(on(3, alone.job, model=cases.model))


def test_the_resolved_job_is_the_same_job(alone: Alone, tmp_path: Path) -> None:
    """The file of a run's folder can be run again, on other ranks too, and comes to the same."""
    file = alone.folder / "job.toml"
    assert alone.equals(on(4, file, model=cases.model, out=tmp_path / "again"))
    tables, others = (path.read_text().partition("[run]") for path in (file, tmp_path / "again" / "job.toml"))
    assert tables[:2] == others[:2]  # behind it stands where it ran


def test_a_float_sum_depends_on_the_number_of_ranks(job: dict[str, Any]) -> None:
    made = {tuple(weights(on(ranks, job)[0]).tolist()) for ranks in (2, 3, 4, 6)}
    assert len(made) > 1
    reference = torch.tensor(next(iter(made)))
    for other in made:
        torch.testing.assert_close(torch.tensor(other), reference, atol=1e-5, rtol=1e-5)


def test_every_rank_leaves_with_the_final_model(job: dict[str, Any]) -> None:
    runs = on(3, job)
    assert all(torch.equal(weights(run), weights(runs[0])) for run in runs)
    assert [line["round"] for line in runs[0].lines] == [1, 2, 3, 4, 5]
    assert [run.lines for run in runs[1:]] == [[], []]
    assert runs[0].stopped == "rounds"


def test_a_round_is_one_broadcast_and_one_reduction(job: dict[str, Any]) -> None:
    """Beside them: settling, home's model and launch at the start, the last broadcast, one reduction of all scores."""

    def work(comm: Fake) -> list[str]:
        fedmpi.train(job, comm)
        return [call for call in comm.traffic if call != "settle"]

    for traffic in launch(3, work):
        assert traffic == ["broadcast"] * 4 + ["broadcast", "reduce"] * (job["rounds"] + 1)


def test_more_ranks_than_clients_of_a_round(job: dict[str, Any]) -> None:
    job |= FIXED | {"cohort": {"size": 2}}
    assert torch.equal(weights(on(6, job)[3]), weights(fedmpi.train(job)))


def test_fedsgd_is_gradient_descent_on_the_pooled_data(job: dict[str, Any], tmp_path: Path) -> None:
    """Oracle: softmax regression by a NumPy loop, from the same start."""
    clients = blobs()
    fedmpi.write_shards(tmp_path / "all", clients, holdout=0.0, classes=("a", "b", "c"))
    job |= {"data": {"shards": str(tmp_path / "all")}, "model": {"name": "logistic", "dtype": "float64"}, "rounds": 30}
    job |= {"cohort": {}, "strategy": {"name": "fedsgd"}, "local": {"lr": 0.5}, "evaluation": {"every": 0}}
    begin = {}

    def start(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
        module = torch.nn.Linear(*shape, outputs)
        # Home's, which comes first and alone; threads share one generator, so that others' may begin elsewhere.
        begin.setdefault("weight", module.weight.detach().double().numpy().T)
        begin.setdefault("bias", module.bias.detach().double().numpy())
        return module

    run = on(3, job, model=start)[0]
    x = np.concatenate([x for x, _ in clients.values()]).astype(np.float64)
    y = np.eye(3)[np.concatenate([y for _, y in clients.values()])]
    weight, bias = begin["weight"].copy(), begin["bias"].copy()
    for _ in range(30):
        logits = x @ weight + bias
        chances = np.exp(logits - logits.max(1, keepdims=True))
        error = chances / chances.sum(1, keepdims=True) - y
        weight -= 0.5 * x.T @ error / len(x)
        bias -= 0.5 * error.mean(0)
    np.testing.assert_allclose(run.model.weight.detach().numpy().T, weight, atol=1e-6)
    np.testing.assert_allclose(run.model.bias.detach().numpy(), bias, atol=1e-6)


def test_one_client_and_one_full_batch_epoch_is_plain_gradient_descent(job: dict[str, Any], tmp_path: Path) -> None:
    x, y = blobs()["site-5"]
    fedmpi.write_shards(tmp_path / "one", {"only": (x, y)}, holdout=0.0, classes=("a", "b", "c"))
    job |= {"data": {"shards": str(tmp_path / "one")}, "cohort": {}, "local": {"lr": 0.2, "batch": 0, "epochs": 1}}
    torch.manual_seed(5)
    mine = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    theirs = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    theirs.load_state_dict(mine.state_dict())
    run = fedmpi.train(job, model=mine)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.2)
    for _ in range(job["rounds"]):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    expected = torch.cat([parameter.detach().flatten() for parameter in theirs.parameters()])
    torch.testing.assert_close(weights(run), expected, atol=1e-6, rtol=1e-5)


def test_a_folder_that_holds_a_run_is_refused_unless_told(job: dict[str, Any], tmp_path: Path) -> None:
    fedmpi.train(job, out=tmp_path / "run")
    with pytest.raises(fedmpi.Refused, match="--resume"):
        fedmpi.train(job, out=tmp_path / "run")
    again = fedmpi.train(job | {"seed": 9}, out=tmp_path / "run", overwrite=True)
    assert len((tmp_path / "run" / "journal.jsonl").read_text().splitlines()) == len(again.lines) == 5


def test_a_target_ends_the_run_with_the_model_that_met_it(job: dict[str, Any], tmp_path: Path) -> None:
    job |= {"rounds": 50, "stop": {"accuracy": 0.7}, "evaluation": {"every": 2}}
    run = on(2, job, out=tmp_path / "run")[0]
    last = run.lines[-1]
    assert run.stopped == last["stopped"] == "accuracy 0.7 reached"
    assert last["round"] % 2 == 0
    assert last["evaluation"]["test"]["accuracy"] >= 0.7
    assert all(line["evaluation"].get("test", {"accuracy": 0})["accuracy"] < 0.7 for line in run.lines[:-1])
    shards = fedmpi.ShardSet.open(Path(job["data"]["shards"]))
    x, y = shards.test()
    with torch.no_grad():
        right = (run.model(x).argmax(-1) == y).double().mean()
    assert last["evaluation"]["test"]["accuracy"] == pytest.approx(float(right))


def test_patience_and_seconds(job: dict[str, Any]) -> None:
    still = job | {"rounds": 50, "local": {"lr": 1e-12}, "stop": {"patience": 3, "metric": "accuracy"}}
    assert fedmpi.train(still).lines[-1]["round"] == 4
    assert fedmpi.train(job | {"rounds": 1000, "stop": {"seconds": 0.05}}).stopped == "0.05 seconds"


def test_the_journal_tells_what_a_round_did(job: dict[str, Any]) -> None:
    """Against a NumPy recount of the cohort."""
    run = on(3, job)[0]
    shards = fedmpi.ShardSet.open(Path(job["data"]["shards"]))
    for line in run.lines:
        assert line["clients"] == 7
        assert 0 < line["weight"] <= 7
        assert line["steps"] >= 7 * 2
        assert line["examples"] == pytest.approx(line["weight"] * shards.largest, rel=1e-5)
        assert set(line["seconds"]) == {"broadcast", "train", "reduce", "step", "evaluate", "total", "elapsed"}
        assert line["bytes"]["down"] > 4 * sum(parameter.numel() for parameter in run.model.parameters())
        assert line["lost"] == {"ranks": [], "clients": []}
        accuracy = line["evaluation"]["clients"]["accuracy"]
        assert accuracy["worst_tenth"] <= accuracy["mean"]
        assert json.loads(json.dumps(line)) == line
    assert run.lines[-1]["train_loss"] < run.lines[0]["train_loss"]
    assert shards.clients == len(SIZES)


def test_the_final_model_is_scored_on_every_client(job: dict[str, Any]) -> None:
    run = on(4, job | {"evaluation": {"every": 0}})[0]
    assert all(not line["evaluation"] for line in run.lines[:-1])
    shards = fedmpi.ShardSet.open(Path(job["data"]["shards"]))
    accuracies = []
    for client in range(shards.clients):
        x, y = shards.heldout(client)
        if len(y):
            with torch.no_grad():
                accuracies.append(float((run.model(x).argmax(-1) == y).double().mean()))
    told = run.lines[-1]["evaluation"]["clients"]["accuracy"]
    assert told["mean"] == pytest.approx(np.mean(accuracies))
    assert told["std"] == pytest.approx(np.std(accuracies))


@pytest.mark.parametrize("stages", [[], ["fixed-point"]])
def test_an_update_that_is_not_finite_ends_the_run_by_name(
    job: dict[str, Any], tmp_path: Path, stages: list[str]
) -> None:
    class Bad(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (float("nan") if self.training and len(x) == 3 else 1.0)

    clients = blobs((8, 8, 3, 8))
    fedmpi.write_shards(tmp_path / "bad", clients, holdout=0.0, classes=("a", "b", "c"))
    job |= {"data": {"shards": str(tmp_path / "bad")}, "cohort": {}, "aggregation": {"stages": stages}}
    job |= {"local": {"lr": 0.1, "batch": 0}, "model": "mine"}
    with pytest.raises(fedmpi.Refused, match="site-2.*not finite") as caught:
        on(3, job, model=lambda shape, outputs: Bad(*shape, outputs), out=tmp_path / "run")
    assert caught.value.code == 1
    assert not (tmp_path / "run" / "DONE").exists()


@pytest.mark.parametrize("strategy", ["scaffold", "ditto", "fedper"])
def test_a_client_unfit_for_the_sum_keeps_nothing_of_its_round(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    class Bad(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (float("nan") if self.training and len(x) == 3 else 1.0)

    clients: list[int] = []
    save = Memory.save

    def noted(memory: Memory, client: int, *rest: Any) -> None:
        clients.extend([client] if memory.folder else [])  # not the try-out's
        save(memory, client, *rest)

    monkeypatch.setattr(Memory, "save", noted)
    fedmpi.write_shards(tmp_path / "bad", blobs((8, 8, 3, 8)), holdout=0.0, classes=("a", "b", "c"))
    job |= {"data": {"shards": str(tmp_path / "bad")}, "cohort": {}, "local": {"lr": 0.1, "batch": 0}, "model": "mine"}
    job |= {"strategy": strategy}

    def make(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
        return torch.nn.Sequential(Bad(*shape, 5), torch.nn.Tanh(), torch.nn.Linear(5, outputs))

    with pytest.raises(fedmpi.Refused, match="site-2.*not finite"):
        on(3, job, model=make, out=tmp_path / "run")
    assert sorted(clients) == [0, 1, 3]


def test_an_error_in_a_users_model_is_told_in_one_line_before_a_round(job: dict[str, Any]) -> None:
    class Broken(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                raise RuntimeError("my own mistake")
            return super().forward(x)

    with pytest.raises(JobError, match=r"^model\.name: 'mine' fails.*my own mistake \(.*test_run\.py:\d+\)$"):
        on(3, job | {"model": "mine"}, model=lambda shape, outputs: Broken(*shape, outputs))


def test_batchnorm_statistics_are_averaged_and_its_counts_added_up(job: dict[str, Any]) -> None:
    def make(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(*shape, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, outputs))

    job |= FIXED | {"local": {"lr": 0.1, "batch": 0}, "server": {"optimizer": "adam", "lr": 0.01}, "model": "mine"}
    run = on(3, job, model=make)[1]
    assert run.model[1].running_mean.abs().max() > 0
    assert (run.model[1].running_var > 0).all()
    assert int(run.model[1].num_batches_tracked) == sum(line["steps"] for line in on(1, job, model=make)[0].lines)
    assert torch.equal(weights(run), weights(fedmpi.train(job, model=make)))


def test_a_script_may_bring_its_own_task(job: dict[str, Any]) -> None:
    class Margin:
        metrics = {"hits": lambda outputs, y: (outputs.argmax(-1) == y).double().mean()}

        def inputs(self, x: torch.Tensor) -> torch.Tensor:
            return x.float()

        def outputs(self, classes: tuple[str, ...]) -> int:
            return len(classes)

        def loss(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.multi_margin_loss(outputs, y)

    run = fedmpi.train(job, task=Margin)
    assert run.lines[-1]["evaluation"]["test"]["hits"] > 0.5


def test_a_pretrained_start_keeps_every_digit_of_its_dtype(job: dict[str, Any], tmp_path: Path) -> None:
    exact = torch.nn.Linear(6, 3).double()
    with torch.no_grad():
        exact.weight.fill_(1 / 3)  # no float32 is that
    names = fedmpi.train(job | {"model": "logistic", "rounds": 1}).model.state_dict()
    save_file(dict(zip(names, exact.state_dict().values(), strict=True)), tmp_path / "init.safetensors")
    start = {"name": "logistic", "dtype": "float64", "init": str(tmp_path / "init.safetensors")}
    run = fedmpi.train(job | {"model": start, "rounds": 1, "local": {"lr": 1e-300}})
    assert torch.equal(next(iter(run.model.parameters())), exact.weight)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"evaluation": {"every": 0}, "stop": {"accuracy": 0.9}}, "evaluation.every"),
        ({"evaluation": {"metrics": []}}, "evaluation.metrics"),
        ({"task": "regression"}, "task"),
        ({"device": "cuda"}, "device"),
    ],
)
def test_what_cannot_go_together_is_refused_by_field(job: dict[str, Any], change: dict[str, Any], told: str) -> None:
    with pytest.raises(JobError, match=told):
        on(2, job | change)


def test_fedsgd_tells_its_training_loss(job: dict[str, Any]) -> None:
    job |= {"strategy": "fedsgd", "local": {"lr": 0.1}, "cohort": {}}
    losses = [line["train_loss"] for line in fedmpi.train(job).lines]
    assert all(later < earlier for earlier, later in pairwise(losses))
