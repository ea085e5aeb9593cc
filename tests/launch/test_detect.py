"""Detection: what a launcher sets for its ranks makes a world, what SLURM sets alone never does."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.flow import Refused
from fedmpi.launch.detect import refuse_singletons, terminal, world

laws = settings(derandomize=True, database=None, deadline=None, max_examples=100)

# A batch step, as SLURM makes it: the place where a launch is still to be started.
BATCH = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "4",
    "SLURM_NPROCS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_TASKS_PER_NODE": "2(x2)",
}
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}

MPIRUN = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "1",
    "PMIX_RANK": "1",
    "PMIX_NAMESPACE": "prterun-1",
}
# Environments of rank 1 of 4, as the launchers were seen to make them.
RANKS = {
    "mpirun": MPIRUN,
    "mpirun in a batch job": {**STEP, "SLURM_STEP_NUM_TASKS": "2", **MPIRUN},  # 2: that of the launcher's daemons
    "hydra": {"PMI_SIZE": "4", "PMI_RANK": "1", "PMI_FD": "8", "MPI_LOCALNRANKS": "4", "MPI_LOCALRANKID": "1"},
    "mvapich": {"MV2_COMM_WORLD_SIZE": "4", "MV2_COMM_WORLD_RANK": "1"},
    "srun pmi2": {**STEP, "PMI_SIZE": "4", "PMI_RANK": "1", "PMI_FD": "8", "SLURM_PROCID": "1"},
    "srun pmix": {**STEP, "PMIX_RANK": "1", "PMIX_NAMESPACE": "slurm.pmix.7.0", "SLURM_PROCID": "1"},
}

slurm = st.dictionaries(
    st.sampled_from(sorted(STEP)) | st.from_regex(r"SLURM_[A-Z_]{1,12}", fullmatch=True),
    st.integers(0, 5000).map(str) | st.text(max_size=8),
)


@laws
@given(slurm)
def test_slurm_alone_never_makes_a_world(environ: dict[str, str]) -> None:
    assert world(environ) is None


@laws
@given(st.sampled_from(sorted(RANKS)), slurm)
def test_what_slurm_says_hides_no_launch(name: str, noise: dict[str, str]) -> None:
    launch = world({**noise, **RANKS[name]})
    assert launch is not None
    assert launch.rank == 1


@pytest.mark.parametrize("name", RANKS)
def test_each_launcher(name: str) -> None:
    launch = world(RANKS[name])
    assert launch is not None
    assert (launch.rank, launch.size) == (1, 4)
    refuse_singletons(4, environ=RANKS[name])
    with pytest.raises(Refused, match=r"4 ranks.*fedmpi train JOB -n 4"):
        refuse_singletons(1, environ=RANKS[name])


def test_the_batch_step_and_a_shell_are_no_launch() -> None:
    one = {**STEP, "SLURM_STEP_NUM_TASKS": "1"}
    shells = [BATCH, one, {**one, "PMIX_RANK": "0", "PMIX_NAMESPACE": "slurm.pmix.7.0"}]
    shells.append({**one, "PMI_RANK": "0", "PMI_SIZE": "1", "PMI_FD": "8"})
    for environ in shells:
        assert world(environ) is None
        refuse_singletons(1, environ=environ)


def test_one_rank_under_a_launcher_is_a_launch() -> None:
    for environ in (
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        {**STEP, "OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        {**STEP, "SLURM_STEP_NUM_TASKS": "1", "PMI_SIZE": "1", "PMI_RANK": "0", "MPI_LOCALNRANKS": "1"},
    ):
        launch = world(environ)
        assert launch is not None
        assert launch.size == 1
        refuse_singletons(1, environ=environ)


def test_a_launch_that_does_not_tell_its_size() -> None:
    launch = world({"PMIX_RANK": "2", "PMIX_NAMESPACE": "prterun-1"})
    assert launch is not None
    assert (launch.rank, launch.size) == (2, None)
    launch = world({"PMI_RANK": "", "PMI_SIZE": "many"})
    assert launch is not None
    assert (launch.rank, launch.size) == (None, None)


@laws
@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from(sorted(RANKS)) | st.none())
def test_our_own_launcher_is_believed(told: int, size: int, name: str | None) -> None:
    environ = {"FEDMPI_RANKS": str(told), **(RANKS[name] if name else {})}
    if told == size and (size > 1 or name is None):
        refuse_singletons(size, environ=environ)
    elif told != size:
        with pytest.raises(Refused, match=rf"MPI_COMM_WORLD has {size}.*fedmpi doctor"):
            refuse_singletons(size, "Some MPI 1.0", environ)


@laws
@given(st.integers(2, 64), slurm)
def test_a_world_of_several_is_never_refused_for_what_slurm_says(size: int, environ: dict[str, str]) -> None:
    refuse_singletons(size, environ=environ)


def test_plain_srun_is_refused_with_the_remedy() -> None:
    with pytest.raises(Refused, match=r"srun started 4 tasks.*srun --mpi=pmix.*fedmpi train JOB -n 4"):
        refuse_singletons(1, environ=STEP)
    refuse_singletons(1, environ={**STEP, "SLURM_STEP_ID": "4294967291"})  # the batch step, submitted from a job step


def test_a_terminal_is_what_the_launcher_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert terminal({"FEDMPI_TERMINAL": "120x40"}) == (120, 40)
    assert terminal({"FEDMPI_TERMINAL": ""}) is None
    assert terminal({"FEDMPI_TERMINAL": "wide"}) is None
    assert terminal(RANKS["mpirun"]) is None  # its own output is a pseudo-terminal, which says nothing
    assert terminal({}) is not None
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert terminal({}) is None
