"""A run's folder: what lies where, and when a new run may take it."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from fedmpi.flow import Refused
from fedmpi.job import JobError


class RunFolder:
    """`job.toml`, `journal.jsonl`, `checkpoints/`, `model.safetensors`, and `DONE`, which is written last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.job = path / "job.toml"
        self.journal = path / "journal.jsonl"
        self.checkpoints = path / "checkpoints"
        self.clients = path / "clients"  # what clients keep from round to round
        self.model = path / "model.safetensors"
        self.done = path / "DONE"

    @property
    def holds_run(self) -> bool:
        """Something came of it: a line or a checkpoint.  A run that ended before leaves nothing to protect."""
        return self.journal.exists() or any(self.checkpoints.glob("*.safetensors"))

    def take(self, resume: bool, overwrite: bool) -> None:
        """Raise JobError where the folder cannot be a new run's, or this one's to go on with.

        An empty folder is made, to see whether it can be written: Refused where it cannot.
        """
        if resume and overwrite:
            raise JobError("--resume goes on with a run and --overwrite replaces it: give one of them")
        if self.path.exists() and not self.path.is_dir():
            raise JobError(f"--out {self.path}: is a file; name a folder")
        if self.holds_run and not (resume or overwrite):
            raise JobError(f"--out {self.path}: holds a run already; --resume goes on with it, --overwrite replaces it")

        if self.job.exists() and not self.holds_run and "run" not in self.read_job():
            raise JobError(
                f"--out {self.path}: holds a job.toml that no run wrote, and would replace; name another folder"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".probe.part"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise Refused(f"--out {self.path}: cannot be written: {error.strerror}") from None

    def clear(self) -> None:
        """Remove the run that lies here, and nothing else."""
        for file in (self.done, self.model, self.journal, self.job, self.path / "report.html"):
            file.unlink(missing_ok=True)
        for folder in (self.checkpoints, self.clients, self.path / "pictures", self.path / "baselines"):
            shutil.rmtree(folder, ignore_errors=True)

    def write_job(self, job: Mapping[str, Any]) -> None:
        """Keep the resolved job.  Refused where the folder cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            aside = self.path / ".job.part"
            aside.write_text(tomli_w.dumps(job), encoding="utf-8")
            aside.replace(self.job)
        except OSError as error:
            raise Refused(f"--out {self.path}: cannot be written: {error.strerror}") from None

    def read_job(self) -> dict[str, Any]:
        """The resolved job that made this run."""
        try:
            return tomllib.loads(self.job.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Refused(f"{self.path}: holds no run (there is no job.toml)") from None
        except (OSError, ValueError) as error:
            raise Refused(f"{self.job}: cannot be read: {error}") from None
