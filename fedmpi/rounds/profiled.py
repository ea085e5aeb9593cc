"""The profile of a run: each rank's time, kept in the run's folder."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from fedmpi.flow import Comm, Passage
from fedmpi.records.folder import RunFolder
from fedmpi.records.profile import Profile, merge
from fedmpi.rounds.line import Watch
from fedmpi.tell import note

BOOT = Path("/proc/sys/kernel/random/boot_id")  # processes of one boot read one clock


def profile(comm: Comm) -> Profile:
    """Return this rank's empty profile, all with one zero: home's clock, or where ranks have others, this moment."""
    boot = BOOT.read_text() if BOOT.exists() else platform.node()
    machine = int.from_bytes(hashlib.blake2b(boot.encode(), digest_size=6).digest())
    everyone = comm.gather(torch.tensor([machine, time.perf_counter()], dtype=torch.float64))
    mine, home = everyone[comm.alive.index(comm.me)], everyone[comm.alive.index(comm.home[0])]
    zero = float(home[1]) if mine[0] == home[0] else time.perf_counter()
    part = "server" if comm.is_home else "clients"
    return Profile(comm.me, f"rank {comm.me} ({part}) on {platform.node()}", zero)


@contextmanager
def profiled(mine: Profile | None, folder: RunFolder | None) -> Iterator[None]:
    """Write this rank's profile behind this, whatever ends it."""
    try:
        yield
    except BaseException:
        if mine is not None and folder is not None:
            with suppress(OSError):  # what ends the run is told, and not what came of it
                mine.write(folder.profile)
        raise
    if mine is not None and folder is not None:
        try:
            mine.write(folder.profile)
        except OSError as error:  # no reason to lose a run
            note(f"{folder.profile}: the trace of rank {mine.rank} could not be written: {error.strerror}")


PHASES = {"received": "broadcast", "scored": "prepare", "arrived": "train", "reduced": "reduce", "stepped": "step"}


def note_crossing(mine: Profile, watch: Watch, passage: Passage) -> None:
    """Note a finished crossing's phases, which end with the watch's marks."""
    told = {"round": passage.round, "crossing": passage.crossing}
    began = watch.began
    for mark, seconds in watch.at.items():
        ended = watch.began + seconds
        mine.span("phases", PHASES[mark], began, ended, **told)
        began = ended
    mine.span("rounds", f"round {passage.round}", watch.began, time.perf_counter(), **told)


def put_together(folder: RunFolder) -> None:
    """Join the ranks' traces to one file; home's, once every rank has written its own."""
    try:
        if merge(folder.profile):
            note(f"{folder.profile}: a rank's trace is full: its later rounds are not in it")
    except OSError as error:
        note(f"{folder.profile}: the ranks' traces could not be put together: {error.strerror}")
