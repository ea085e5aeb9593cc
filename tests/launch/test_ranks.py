"""What ranks say to their launcher reaches it whole, and all else reaches the person, however the stream is cut."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.launch.local import sweep, verdict
from fedmpi.launch.ranks import Ranks
from fedmpi.tell import MARK

laws = settings(derandomize=True, database=None, deadline=None, max_examples=100)

OPENMPI = "prterun noticed that process rank 2 with PID 10899 on node vm exited on\nsignal 9 (Killed).\n"
OPENMPI_LEFT = "prterun detected that one or more processes exited with non-zero status,\nthus ...\n  Exit code:    2\n"
MPICH = """=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 72 RUNNING AT vm
=   EXIT CODE: 9
YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)
"""
MPICH_LEFT = "=   PID 72 RUNNING AT vm\n=   EXIT CODE: 3\n"
INTEL = "=   RANK 2 PID 72 RUNNING AT vm\n=   KILLED BY SIGNAL: 9 (Killed)\n"


def record(**fields: object) -> bytes:
    return f"{MARK}{json.dumps(fields)}\n".encode()


def heard(*pieces: bytes, size: int = 3) -> Ranks:
    ranks = Ranks(size)
    for rank in range(size):
        ranks.take_records(record(rank=rank, pid=70 + rank))
    for piece in pieces:
        ranks.take_records(piece)
    return ranks


others = st.binary(max_size=12).filter(lambda data: MARK.encode() not in data)


@laws
@given(st.lists(st.tuples(others, st.integers(0, 2) | st.none())), others, st.data())
def test_records_and_the_rest_come_apart_however_the_stream_is_cut(
    parts: list[tuple[bytes, int | None]], last: bytes, data: st.DataObject
) -> None:
    stream, plain, said = b"", b"", []
    for before, rank in parts:
        stream, plain = stream + before, plain + before
        if rank is not None:
            stream += record(rank=rank, pid=100 + rank)
            said.append(rank)
    stream, plain = stream + last, plain + last
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    ranks, rest = Ranks(3), b""
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        rest += ranks.take_records(stream[begin:end])
    assert rest + ranks.rest() == plain
    assert ranks.pids == {rank: 100 + rank for rank in said}
    assert ranks.listening == (set(said) == {0, 1, 2})


def test_what_is_no_record_harms_nobody() -> None:
    ranks = Ranks(1)
    assert ranks.take_records(f"{MARK}not json\nafter{MARK}[]\n".encode()) == b"after"
    assert ranks.take_records(f"{MARK}{{}}\n{MARK}".encode()) == b""
    assert ranks.rest() == b""


def test_the_first_word_of_why_counts() -> None:
    ranks = heard(record(end="no such field", code=2), record(end="rank 1 failed", code=1))
    assert verdict("mpirun", ranks, 3, None, "again") == ("no such field", 2)


@pytest.mark.parametrize(
    ("banner", "code"), [(OPENMPI, 137), (MPICH, 9), (INTEL, 9), (OPENMPI.replace("9 (K", "9 (K"), 1)]
)
def test_a_killed_rank_is_named_on_every_launcher(banner: str, code: int) -> None:
    """128 + n whatever the launcher makes of it: MPICH ends with n."""
    why, status = verdict("mpirun", heard(banner.encode()), code, None, "again")
    assert status == 137
    assert why.startswith("rank 2 was killed (137: out of memory?)")
    assert why.endswith("again")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM, signal.SIGBUS, signal.SIGRTMAX])
def test_every_signal_has_its_status(number: int) -> None:
    told = OPENMPI.replace("9 (Killed)", f"{int(number)} (it)").encode()
    why, status = verdict("mpirun", heard(told), 1, None, "again")
    assert status == 128 + number
    assert f"({128 + number}: " in why


def test_how_else_a_launcher_ends(tmp_path: Path) -> None:
    """(code, what was said, all ranks listened) and the status that tells whether it is worth starting again."""
    cases: list[tuple[int, str, bool, int, str]] = [
        (0, "", True, 75, "was a node lost"),
        (1, "", True, 75, "was it told to stop"),
        (2, OPENMPI_LEFT, True, 2, "a rank ended with 2"),
        (3, MPICH_LEFT, True, 3, "a rank ended with 3"),
        (1, "no slots", False, 1, "before its ranks had begun"),
        (137, "", True, 137, "mpirun was killed (137"),
    ]
    for code, said, listened, status, words in cases:
        ranks = heard(said.encode()) if listened else Ranks(3)
        why, got = verdict("mpirun", ranks, code, tmp_path / "DONE", "again")
        assert (got, words in why) == (status, True), why


def test_a_signal_counts_by_whether_they_listened_and_how_often_it_came() -> None:
    early, late = Ranks(3), heard()
    early.signals = [signal.SIGTERM]
    late.signals, late.forwarded = [signal.SIGINT, signal.SIGINT], True
    assert verdict("mpirun", early, 1, None, "again")[1] == 75
    assert verdict("mpirun", late, 1, None, "again")[1] == 130


def test_halves_of_files_are_swept_away_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        "checkpoints/.round-000001.safetensors.part",
        "clients/.launches.part",
        ".job.part",
        "checkpoints/.tmpX",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("checkpoints/round-000001.safetensors", "job.toml", "notes.part", ".hidden"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".hidden", "job.toml", "notes.part", "round-000001.safetensors"]
    sweep(tmp_path / "none")
