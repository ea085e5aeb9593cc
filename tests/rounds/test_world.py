"""The same laws over a real MPI, at the number of ranks of this launch."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import fedmpi
from tests.blobs import blobs

pytestmark = pytest.mark.mpi


@pytest.fixture
def world() -> Any:
    from mpi4py import MPI

    return MPI.COMM_WORLD


@pytest.fixture
def job(world: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A shard set that rank 0 wrote, and a job over it."""
    folder = None
    if world.rank == 0:
        folder = tmp_path_factory.mktemp("world") / "blobs"
        fedmpi.write_shards(folder, blobs(), holdout=0.25, classes=("a", "b", "c"))
    return {
        "seed": 3,
        "rounds": 4,
        "data": {"shards": str(world.bcast(folder))},
        "cohort": {"fraction": 0.5},
        "model": {"name": "mlp", "hidden": [8]},
        "local": {"lr": 0.1, "batch": 4, "epochs": 2},
        "aggregation": {"stages": [{"name": "clip", "bound": 1.0}, "fixed-point"]},
        "server": {"optimizer": "adam", "lr": 0.05},
    }


def weights(run: fedmpi.Run) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])


def in_one_process(world: Any, job: dict[str, Any], **given: Any) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """The weights and scores of the run that uses no MPI: rank 0 makes it, every rank has them."""
    alone = fedmpi.train(job, **given) if world.rank == 0 else None
    found: tuple[torch.Tensor, list[dict[str, Any]]] = world.bcast(alone and (weights(alone), scores(alone)))
    return found


def scores(run: fedmpi.Run) -> list[dict[str, Any]]:
    return [line["evaluation"] for line in run.lines]


def test_same_bits_as_one_process_alone(world: Any, job: dict[str, Any]) -> None:
    """So at every number of ranks and on every MPI: each is compared with the run that uses none."""
    expected, _ = in_one_process(world, job)
    for trains in (False, True):
        run = fedmpi.train(job | {"server": job["server"] | {"trains": trains}}, world)
        assert torch.equal(weights(run), expected)
        assert len(run.lines) == (4 if world.rank == 0 else 0)


def test_a_wrong_job_is_told_on_one_rank_and_leaves_all(world: Any, job: dict[str, Any]) -> None:
    with pytest.raises(fedmpi.Refused) as caught:
        fedmpi.train(job | {"cohort": {"size": 1000}}, world)
    assert caught.value.code == 2
    told = world.gather(str(caught.value))
    if world.rank == 0:
        assert "cohort.size" in told[0]
        assert all("rank 0" in other for other in told[1:])


def test_resume_on_this_number_of_ranks(
    world: Any, job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A run cut off in one process goes on here with the same bits."""
    out = world.bcast(tmp_path_factory.mktemp("run") / "out" if world.rank == 0 else None)

    class Killed(BaseException):
        pass

    def kill(line: dict[str, Any]) -> None:
        if line["round"] == 2:
            raise Killed

    if world.rank == 0:
        with pytest.raises(Killed):
            fedmpi.train(job, out=out, on_round=kill)
    world.Barrier()
    run = fedmpi.train(job, world, out=out, resume=True)
    assert torch.equal(weights(run), in_one_process(world, job)[0])
    assert (Path(out) / "DONE").exists() or world.rank


CASES: dict[str, dict[str, Any]] = {
    "memory": {"strategy": "scaffold"},
    "two passes": {"strategy": "mime", "server": {}},
    "own models": {"strategy": "ditto"},
    "private heads": {"strategy": "fedper"},
    "clusters": {"strategy": "ifca", "server": {}},
    "scalars in the header": {"strategy": "agnostic"},
    "candidates": {"cohort": {"size": 4, "sampler": "power-of-choice"}},
    "nobody, at times": {"cohort": {"fraction": 0.05, "sampler": "poisson"}},
    "a ring": {"loop": "cyclic", "aggregation": {}, "server": {}},
    "an ensemble": {"loop": "ensemble", "strategy": "local", "aggregation": {}},
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_round_gives_the_bits_of_one_process(
    world: Any, job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, case: str
) -> None:
    """With a run folder any rank serves any client next, without one each stays where it is."""
    folder = world.bcast(tmp_path_factory.mktemp("kept") / "run" if world.rank == 0 else None)
    job |= {"threads": 1} | CASES[case]
    expected, told = in_one_process(world, job)
    for out in (None, folder):
        run = fedmpi.train(job, world, out=out)
        assert torch.equal(weights(run), expected)
        assert scores(run) == (told if world.rank == 0 else [])


@pytest.mark.parametrize("who", ["home", "last"])
def test_a_rank_that_is_asked_to_stop_stops_all_and_the_run_goes_on(
    world: Any, job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, who: str
) -> None:
    """USR1 to one rank: every rank leaves with 75 after the same round, and a resume gives the same bits."""
    out = world.bcast(tmp_path_factory.mktemp("asked") / "run" if world.rank == 0 else None)
    rank = 0 if who == "home" else world.size - 1

    class Asking(torch.nn.Linear):
        """A model whose third forward pass of training is interrupted."""

        count = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Asking.count += self.training
            if self.training and Asking.count == 3:
                os.kill(os.getpid(), signal.SIGUSR1)
            return super().forward(x)

    if world.rank == rank and not (rank == 0 and world.size > 1):
        kind: type[torch.nn.Linear] = Asking
        told = None
    else:
        kind = torch.nn.Linear
        told = (lambda line: os.kill(os.getpid(), signal.SIGUSR1)) if world.rank == rank else None
    job |= {"model": "mine", "threads": 1, "local": job["local"] | {"engine": "sequential"}}  # each step is a pass
    with pytest.raises(fedmpi.Refused) as stopped:
        fedmpi.train(job, world, model=lambda shape, outputs: kind(*shape, outputs), out=out, on_round=told)
    assert stopped.value.code == 75
    plain = {"model": lambda shape, outputs: torch.nn.Linear(*shape, outputs)}
    run = fedmpi.train(job, world, out=out, resume=True, **plain)
    assert torch.equal(weights(run), in_one_process(world, job, **plain)[0])
