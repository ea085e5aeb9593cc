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
        self.model = path / "model.safetensors"
        self.done = path / "DONE"

    @property
    def holds_run(self) -> bool:
        return self.job.exists() or self.journal.exists()

    def take(self, resume: bool, overwrite: bool) -> None:
        """Raise JobError where the folder cannot be a new run's, or this one's to go on with; changes nothing."""
        if resume and overwrite:
            raise JobError("--resume goes on with a run and --overwrite replaces it: give one of them")
        if self.path.exists() and not self.path.is_dir():
            raise JobError(f"--out {self.path}: is a file; name a folder")
        if self.holds_run and not (resume or overwrite):
            raise JobError(f"--out {self.path}: holds a run already; --resume goes on with it, --overwrite replaces it")

    def clear(self) -> None:
        """Remove the run that lies here, and nothing else."""
        for file in (self.done, self.model, self.journal, self.job, self.path / "report.html"):
            file.unlink(missing_ok=True)
        for folder in (self.checkpoints, self.path / "pictures", self.path / "baselines"):
            shutil.rmtree(folder, ignore_errors=True)

    def write_job(self, job: Mapping[str, Any]) -> None:
        """Keep the resolved job.  Refused where the folder cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            aside = self.path / ".job.part"
            aside.write_text(tomli_w.dumps(job), encoding="utf-8")
            aside.replace(self.job)
        except OSError as error:
            raise Refused(f"--out {self.path}: cannot be written: {error}") from None

    def read_job(self) -> dict[str, Any]:
        """The resolved job that made this run."""
        try:
            return tomllib.loads(self.job.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Refused(f"{self.path}: holds no run (there is no job.toml)") from None
        except (OSError, ValueError) as error:
            raise Refused(f"{self.job}: cannot be read: {error}") from None
