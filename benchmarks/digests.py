"""The bits that the recipes under jobs/ end with, which no number of ranks, no MPI and no change of the code may move.

    python benchmarks/digests.py [--source FOLDER] [--jobs digits linear ...] [--ranks 1,3,4] [--python PYTHON ...]

Each job runs through `fedmpi train` with the fixed-point stage, the sequential engine and one thread; a digest is the
first 16 hex digits of the SHA-256 of model.safetensors' tensors, in the order of their names, without the file's
metadata.  A line is a job, its rounds, and the digest, the same at every number of ranks and under every `--python` (an
environment with another MPI); where it is not, every digest is printed and the exit status is 1.  `--source` holds
mnist/ and heart-disease/; a job whose data is not there is skipped, and told.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from heart_disease import hospitals
from machine import machine
from running import HERE, command
from safetensors.numpy import load_file

import fedmpi

# Job: its rounds (all of a job's own would only take longer) and what makes its shards, beside --out; None: below.
JOBS: dict[str, tuple[int, list[str] | None]] = {
    "linear": (50, ["linear", "--clients", "2"]),
    "digits": (20, ["digits", "--clients", "20", "--partition", "dirichlet", "--alpha", "0.3"]),
    "personal": (12, ["digits", "--clients", "20", "--partition", "labels"]),
    "heart-disease": (15, None),
    "mnist-2nn": (5, ["idx", "--source", "{source}/mnist", "--clients", "100", "--partition", "iid"]),
}
NEEDS = {"heart-disease": "heart-disease", "mnist-2nn": "mnist"}  # the folder of --source


def digest(model: Path) -> str:
    """16 hex digits of a safetensors file: each tensor's name, type, shape and bytes, in the order of the names."""
    whole = hashlib.sha256()
    for name, tensor in sorted(load_file(model).items()):
        whole.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        whole.update(np.ascontiguousarray(tensor).tobytes())
    return whole.hexdigest()[:16]


def shards(name: str, source: Path, out: Path) -> None:
    """Make a job's shard set."""
    making = JOBS[name][1]
    if making is None:
        fedmpi.write_shards(out, hospitals(source / name), task="binary", classes=("healthy", "diseased"))
        return
    words = [word.format(source=source) for word in making]
    command("shard", *words, "--out", str(out), folder=out.parent)


def trained(python: Path, name: str, ranks: int, data: Path) -> str:
    """The digest of a job's model, trained by that Python's fedmpi and MPI on so many ranks."""
    out = data.parent / "run"
    settings = [f"rounds={JOBS[name][0]}", f"data.shards={data}", "threads=1", 'aggregation.stages=["fixed-point"]']
    settings.append('local.engine="sequential"')  # whose bits they are
    words = ["train", str(HERE / "jobs" / f"{name}.toml"), "-n", str(ranks), "--out", str(out)]
    words += ["--overwrite", "--quiet", *(word for setting in settings for word in ("--set", setting))]
    command(*words, python=python, folder=data.parent)
    return digest(out / "model.safetensors")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--source", type=Path, default=HERE.parent / "shared" / "data")
    arguments.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    arguments.add_argument("--ranks", default="1,3,4")
    arguments.add_argument("--python", type=Path, nargs="+", default=[Path(sys.executable)])
    given = arguments.parse_args()
    source = given.source.resolve()
    pythons = [Path(os.path.abspath(python)) for python in given.python]  # a link stays: it says which environment
    os.environ["OMP_NUM_THREADS"] = "1"
    counts = [int(ranks) for ranks in given.ranks.split(",")]
    print(f"{machine()}; {Path(fedmpi.__file__).parent}; ranks {given.ranks}", flush=True)
    equal = True
    for name in given.jobs:
        if name in NEEDS and not (source / NEEDS[name]).is_dir():
            print(f"{name}: skipped, {source / NEEDS[name]} is not there", flush=True)
            continue
        with tempfile.TemporaryDirectory(prefix="fedmpi-digests-") as folder:
            data = Path(folder, "shards")
            shards(name, source, data)
            found = {(python, ranks): trained(python, name, ranks, data) for python in pythons for ranks in counts}
        rounds = f"{name:14} {JOBS[name][0]:3} rounds"
        if len(set(found.values())) == 1:
            print(f"{rounds}  {next(iter(found.values()))}", flush=True)
            continue
        equal = False
        for (python, ranks), one in found.items():
            print(f"{rounds}  {one}  DIFFERS: {ranks} ranks, {python}", flush=True)
    raise SystemExit(0 if equal else 1)


if __name__ == "__main__":
    main()
