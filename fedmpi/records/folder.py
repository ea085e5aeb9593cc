"""A run's folder: the places of its files, and the rules for taking it."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from fedmpi.flow import Refused
from fedmpi.job import Job, JobError, validate
from fedmpi.records.seal import table_sum, text, unsealed

SEALED = {"shards", "lower"}  # names in [run] since it has a checksum


class RunFolder:
    """`job.toml`, `journal.jsonl`, `checkpoints/`, `model.safetensors`, and `DONE`, which is written last.

    Every file that is read back holds a checksum, compared when it is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.job = path / "job.toml"
        self.journal = path / "journal.jsonl"
        self.ledger = path / "ledger.jsonl"  # what releasing the rounds' sums has cost
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.safetensors"
        self.clients = path / "clients"  # what clients keep from round to round
        self.first = path / "first.safetensors"  # all that the model held as the run began
        self.model = path / "model.safetensors"
        self.profile = path / "profile"  # each rank's time
        self.done = path / "DONE"

    @property
    def holds_run(self) -> bool:
        """Return whether a run left a line or a checkpoint here: one that ended earlier leaves nothing to protect."""
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

        if self.job.exists() and not self.holds_run and "run" not in self.sealed_job()[0]:
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
        """Remove this folder's run, and nothing else."""
        for file in (self.done, self.first, self.model, self.journal, self.ledger, self.job, self.path / "report.html"):
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file, ignore_errors=True)
            file.unlink(missing_ok=True)
        for folder in (
            self.checkpoints, self.clients, self.profile, self.path / "pictures", self.path / "baselines",
        ):  # fmt: skip
            shutil.rmtree(folder, ignore_errors=True)

    def keep_journal(self) -> Path:
        """Put the journal aside under a free name, so another can begin, and return its new path."""
        number = 1
        while (aside := self.path / f"journal-{number}.jsonl").exists():
            number += 1
        self.journal.rename(aside)
        return aside

    def write_job(self, job: Mapping[str, Any]) -> None:
        """Write the resolved job, its checksum in `run.crc`.  Refused where the folder cannot be written."""
        table = dict(job)
        if "run" in table:  # else it is a job that no run has made yet
            table["run"] = {name: value for name, value in table["run"].items() if name != "crc"}
            table["run"]["crc"] = table_sum(tomllib.loads(tomli_w.dumps(table)))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            aside = self.path / ".job.part"
            aside.write_text(tomli_w.dumps(table), encoding="utf-8")
            aside.replace(self.job)
        except OSError as error:
            raise Refused(f"--out {self.path}: cannot be written: {error.strerror}") from None

    def read_job(self) -> dict[str, Any]:
        """Return the table of this run's job.  Refused where it was changed since; a note where it has no checksum."""
        table, sealed = self.sealed_job()
        if not sealed:
            unsealed(self.job)
        return table

    def sealed_job(self) -> tuple[dict[str, Any], bool]:
        """Return the same, and whether it has a checksum; silent where it has none."""
        try:
            table = tomllib.loads(text(self.job).decode())
        except FileNotFoundError:
            raise Refused(f"{self.path}: holds no run: there is no {self.job.name} in it") from None
        except (OSError, ValueError, RecursionError) as error:
            raise Refused(f"{self.job}: cannot be read: {str(error) or type(error).__name__}") from None
        run = table.get("run")
        if not isinstance(run, dict):
            if any(isinstance(part, dict) and part.keys() >= SEALED for part in table.values()):
                raise Refused(f"{self.job}: {CHANGED}")
            return table, False
        given = run.pop("crc", None)
        if (given is None and run.keys() & SEALED) or (given is not None and given != table_sum(table)):
            raise Refused(f"{self.job}: {CHANGED}")
        return table, given is not None

    def launches(self) -> int:
        """Return the number of launches that this folder's run has had; 0 where no run wrote its job."""
        try:
            run = self.sealed_job()[0].get("run", {})
        except Refused:
            return 0  # a new run's, or it was refused before
        return int(run.get("launch", 1)) if run else 0

    def job_of(self, table: Mapping[str, Any]) -> Job:
        """Return the job of a table from `read_job`.  Refused where it is not valid."""
        try:
            return validate(table)
        except JobError as error:
            raise Refused(f"{self.job}: is not the job of a run: {'; '.join(str(error).splitlines())}") from None


CHANGED = "was changed or damaged since the run wrote it (its checksum differs); put it back as it was"
