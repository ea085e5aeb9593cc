"""The shard sets that several benchmarks run over, made once and kept."""

from __future__ import annotations

from pathlib import Path

from running import command

DATA = Path("data")


def mnist(source: str | None) -> Path:
    """MNIST as 100 clients of 600 examples, IID; `source` is the folder of its idx files, needed the first time."""
    folder = DATA / "mnist"
    if not folder.exists():
        if source is None:
            raise SystemExit(f"{folder} is not there: give --source, the folder of MNIST's idx files")
        command("shard", "idx", "--source", source, "--clients", "100", "--partition", "iid", "--out", str(folder))
    return folder
