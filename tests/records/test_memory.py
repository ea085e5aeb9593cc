"""What a client kept is what it finds, whoever serves it, wherever the run was killed and however often it went on."""

from __future__ import annotations

import itertools
import os
import resource
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.flow import Refused
from fedmpi.records import memory
from fedmpi.records.memory import HEAD, SLOTS, Memory

CLIENTS, WIDTH = 3, 5
Kept = dict[int, list[tuple[int, float]]]  # of each client, (round, value) in order


class Killed(BaseException):
    """The process ends here."""


def vector(value: float, width: int = WIDTH, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.full((width,), value, dtype=dtype)


def value(found: torch.Tensor | None) -> float | None:
    """What a vector of one value holds."""
    if found is None:
        return None
    assert (found == found[0]).all()
    return float(found[0])


def opened(folder: Path | None, every: int = 1, width: int = WIDTH, dtype: torch.dtype = torch.float64) -> Memory:
    return Memory(folder, width, dtype, every)


def newest(kept: Kept, client: int, upto: int) -> float | None:
    return next((value for round, value in reversed(kept.get(client, [])) if round <= upto), None)


def cut(monkeypatch: pytest.MonkeyPatch, kept: Memory, write: int, client: int, round: int) -> None:
    """A save in which the process ends at its so-many-th write: half a vector reaches the file, of a stamp nothing."""
    pwrite, left = os.pwrite, [write]

    def dying(file: int, data: Any, place: int) -> int:
        left[0] -= 1
        if left[0] > 0:
            return pwrite(file, data, place)
        pwrite(file, bytes(memoryview(data).cast("B")[: memoryview(data).nbytes // 32 * 16]), place)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", dying)
        with pytest.raises(Killed):
            kept.save(client, round, vector(-1.0))


class Home:
    """The side of home: what it told in the last broadcast, and the checkpoints, of which one may be under way."""

    def __init__(self, begun: int, every: int) -> None:
        self.begun, self.every, self.durable, self.under_way = begun, every, begun, 0

    def tell(self, ranks: list[Memory]) -> None:
        for rank in ranks:
            rank.held = self.durable, self.under_way

    def hand(self, done: int) -> None:
        """After the broadcast: the checkpoint of the round before, unless another is under way."""
        if self.every and done % self.every == 0 and done > self.begun and not self.under_way:
            self.under_way = done

    def reach(self) -> None:
        """The checkpoint under way reaches the disk."""
        if self.under_way:
            self.durable, self.under_way = self.under_way, 0


cohorts = st.lists(st.sets(st.integers(0, CLIENTS - 1)), min_size=1, max_size=9)
launch = st.fixed_dictionaries(
    {
        "cohorts": cohorts,
        "every": st.integers(0, 4),
        "ranks": st.randoms(use_true_random=False),
        "haste": st.sampled_from([0.0, 0.1, 0.3, 0.8]),  # how probable it is that a checkpoint is on disk a save later
        "end": st.sampled_from(["done", "stopped", "killed", "killed while writing", "killed after the checkpoint"]),
        "write": st.integers(1, 3),
    }
)


def played(folder: Path, kept: Kept, begun: int, plan: dict[str, Any], patch: pytest.MonkeyPatch) -> int:
    """A launch of two ranks from round `begun` on; the round that its last checkpoint covers, 0 where there is none.

    The checkpoint of round r is begun while round r + 1 trains, and may reach the disk between any two saves.
    """
    random, ranks, home = plan["ranks"], [opened(folder, plan["every"]) for _ in range(2)], Home(begun, plan["every"])
    last = begun + len(plan["cohorts"])
    for round, cohort in enumerate(plan["cohorts"], begun + 1):
        home.tell(ranks)
        home.hand(round - 1)
        for client in range(CLIENTS):
            assert value(random.choice(ranks).load(client, round - 1)) == newest(kept, client, round - 1)
        for client in sorted(cohort):
            if random.random() < plan["haste"]:
                home.reach()
            if round == last and plan["end"] == "killed while writing":
                cut(patch, random.choice(ranks), plan["write"], client, round)
                break
            kept.setdefault(client, []).append((round, random.random()))
            random.choice(ranks).save(client, round, vector(kept[client][-1][1]))
    if plan["end"] == "killed after the checkpoint":
        home.reach()
    covered = home.durable
    if plan["end"] in ("done", "stopped"):  # a stop drops the round in flight
        covered = last if plan["end"] == "done" else last - 1
        ranks.append(Memory(folder, WIDTH, torch.float64, writes=False))
        for client, reader in itertools.product(range(CLIENTS), ranks):
            assert value(reader.load(client, covered)) == newest(kept, client, covered)
    for rank in ranks:
        rank.close()
    return covered


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(st.lists(launch, min_size=1, max_size=5))
def test_every_launch_finds_what_the_last_checkpoint_covers(launches: list[dict[str, Any]]) -> None:
    kept: Kept = {}
    covered = 0
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        for number, plan in enumerate(launches):
            folder = Path(name) / "clients"
            if number and (covered or launches[number - 1]["end"] == "stopped"):  # which keeps even the first model
                Memory.resume(folder, covered)
            else:
                if number:  # nothing to go on from: a run that begins anew
                    folder.rename(Path(name) / f"dropped-{number}")
                    kept.clear()
                Memory.start(folder)
            kept = {client: [pair for pair in pairs if pair[0] <= covered] for client, pairs in kept.items()}
            covered = played(folder, kept, covered, plan, patch)


@pytest.mark.parametrize("lag", range(7))
def test_a_client_of_every_round_loses_nothing_however_late_the_disk_is(tmp_path: Path, lag: int) -> None:
    """Whatever a kill finds on disk, and whether the clients had been told of it or not, is there to go on from."""
    Memory.start(tmp_path)
    kept, home, begun = opened(tmp_path), Home(0, 1), 0
    for round in range(1, 20):
        home.tell([kept])
        if not home.under_way:
            home.hand(round - 1)
            begun = round
        kept.save(0, round, vector(float(round)))
        for covered in (home.durable, home.under_way, round - 1, round):
            assert value(opened(tmp_path).load(0, covered)) == (covered or None)
        if round - begun >= lag:
            home.reach()
    values = os.stat(tmp_path / "memory.slots").st_size - HEAD
    assert values <= (SLOTS if lag else SLOTS - 1) * kept.stride  # the fourth is for what is late


def test_the_file_of_an_earlier_fedmpi_keeps_its_form(tmp_path: Path) -> None:
    """Three slots, as long as every checkpoint is on disk before the next broadcast."""
    first = opened(tmp_path)  # without a file of launches, as in a first launch then
    for round in (1, 2, 3):
        first.save(0, round, vector(float(round)))
        first.save(1, round, vector(round + 0.5))
        first.held = round - 1, 0
    assert os.stat(tmp_path / "memory.slots").st_size <= 2 * (HEAD + 3 * first.stride)
    assert not Memory.resume(tmp_path, 2)
    again = opened(tmp_path)
    for round in (3, 4, 5):
        again.held = round - 1, 0
        assert value(again.load(1, round - 1)) == round - 0.5
        again.save(1, round, vector(round + 0.5))
    assert not Memory.resume(tmp_path, 4)
    assert [value(opened(tmp_path).load(client, 4)) for client in (0, 1)] == [2.0, 4.5]
    Memory.start(tmp_path / "new")
    assert Memory.resume(tmp_path / "new", 1)


@settings(derandomize=True, database=None, deadline=None, max_examples=50)
@given(cohorts)
def test_without_a_folder_it_keeps_the_round_in_flight_and_what_it_began_with(rounds: list[set[int]]) -> None:
    kept: Kept = {}
    alone = opened(None)
    for round, cohort in enumerate(rounds, 1):
        for client in sorted(cohort):
            kept.setdefault(client, []).append((round, round + client / 8))
            alone.save(client, round, vector(kept[client][-1][1]))
        for client in range(CLIENTS):
            assert value(alone.load(client, round)) == newest(kept, client, round)
            assert value(alone.load(client, round - 1)) == newest(kept, client, round - 1)
    assert not alone.travels


@pytest.mark.parametrize("write", [1, 2, 3])
@pytest.mark.parametrize("rounds", [0, 1, 2, 5])
def test_a_kill_at_any_write_leaves_the_older_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, write: int
) -> None:
    first = opened(tmp_path)
    for round in range(1, rounds + 1):
        first.save(0, round, vector(float(round)))
    cut(monkeypatch, first, write, 0, rounds + 1)
    for again in (first, opened(tmp_path)):
        assert value(again.load(0, rounds + 1)) == (rounds or None)


def test_going_back_behind_an_earlier_resume_drops_what_lay_between(tmp_path: Path) -> None:
    first = opened(tmp_path, 0)
    first.save(0, 2, vector(2.0))
    first.save(1, 5, vector(5.0))
    Memory.resume(tmp_path, 6)
    assert value(opened(tmp_path, 0).load(1, 6)) == 5.0
    Memory.resume(tmp_path, 3)  # the checkpoint of round 6 turned out to be damaged
    again = opened(tmp_path, 0)
    assert value(again.load(0, 7)) == 2.0
    assert again.load(1, 7) is None


def test_a_client_saved_twice_in_a_round_keeps_the_later_value(tmp_path: Path) -> None:
    alone, kept = opened(None), opened(tmp_path)
    for round, number in [(1, 1.0), (2, 2.0), (2, 2.5), (2, 2.75)]:
        alone.save(0, round, vector(number))
        kept.save(0, round, vector(number))
        for reader in (alone, kept, opened(tmp_path)):
            assert value(reader.load(0, round)) == number
            assert value(reader.load(0, round - 1)) == (1.0 if round > 1 else None)


@pytest.mark.parametrize("folder", [True, False], ids=["folder", "no folder"])
def test_what_was_saved_is_a_copy(tmp_path: Path, folder: bool) -> None:
    kept, mine = opened(tmp_path if folder else None), vector(1.0)
    kept.save(0, 1, mine)
    mine.fill_(2.0)
    assert value(kept.load(0, 1)) == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 16, 33])
def test_bits_come_back_as_they_were(tmp_path: Path, dtype: torch.dtype, width: int) -> None:
    saved = {
        client: torch.randn(width, dtype=dtype, generator=torch.Generator().manual_seed(client)) for client in (0, 3)
    }
    saved[3][0] = float("nan")
    writer = opened(tmp_path, 1, width, dtype)
    for client, kept in saved.items():
        for round in (1, 2, 3, 4):
            writer.save(client, round, kept * round)
    for client, kept in saved.items():
        found = opened(tmp_path, 1, width, dtype).load(client, 4)
        assert found is not None
        assert found.dtype == dtype
        torch.testing.assert_close(found, kept * 4, rtol=0, atol=0, equal_nan=True)
    assert opened(tmp_path, 1, width, dtype).load(2, 4) is None


def test_ranks_see_each_other_s_writes_at_once(tmp_path: Path) -> None:
    mine, other = opened(tmp_path), opened(tmp_path)
    for round in range(1, 9):
        writer, reader = (mine, other) if round % 2 else (other, mine)
        writer.save(0, round, vector(float(round)))
        assert value(reader.load(0, round)) == round  # though its cache holds an older value


def test_the_cache_is_bounded_and_serves_what_was_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = opened(tmp_path)
    monkeypatch.setattr(memory, "CACHE", 3 * kept.stride)
    for client in range(8):
        kept.save(client, 1, vector(float(client)))
        assert len(kept.cache) <= 3
    for client in (0, 1, 0, 2, 3):
        assert value(kept.load(client, 1)) == client
        assert len(kept.cache) <= 3
    assert sorted(kept.cache) == [0, 2, 3]
    monkeypatch.setattr(memory, "CACHE", 0)
    kept.save(5, 2, vector(5.5))
    assert list(kept.cache) == [5]  # the one in use is held all the same


@pytest.mark.parametrize("lost", [1, 8, WIDTH * 8])
def test_a_file_cut_short_is_refused(tmp_path: Path, lost: int) -> None:
    opened(tmp_path).save(2, 1, vector(1.0))
    path = tmp_path / "memory.slots"
    os.truncate(path, path.stat().st_size - lost)
    with pytest.raises(Refused, match=r"memory\.slots: is cut short at client 2"):
        opened(tmp_path).load(2, 1)


def test_a_disk_that_takes_half_a_vector_is_refused(tmp_path: Path) -> None:
    kept = opened(tmp_path, width=1000)
    kept.save(0, 1, vector(1.0, 1000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HEAD + kept.stride + 4000, before[1]))  # in the second slot's midst
    try:
        with pytest.raises(Refused, match="could not be written"):
            kept.save(0, 2, vector(2.0, 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert value(opened(tmp_path, width=1000).load(0, 2)) == 1.0


@pytest.mark.parametrize(("every", "synced"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (0, [])])
def test_it_reaches_the_disk_where_a_checkpoint_will_count_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, synced: list[int]
) -> None:
    kept, seen = opened(tmp_path, every), []
    monkeypatch.setattr(os, "fdatasync", lambda file: seen.append(round))
    for round in range(1, 5):
        kept.save(0, round, vector(1.0))
        kept.sync(round)
    assert seen == synced


def test_launches_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "launches.json").write_text("[3,", encoding="utf-8")
    with pytest.raises(Refused, match=r"launches\.json: cannot be read"):
        opened(tmp_path).load(0, 1)
    with pytest.raises(Refused, match=r"launches\.json: cannot be read"):
        Memory.resume(tmp_path, 2)


def test_a_reader_of_a_run_without_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"memory\.slots: cannot be opened"):
        Memory(tmp_path, WIDTH, torch.float64, writes=False).load(0, 1)
    assert list(tmp_path.iterdir()) == []


def test_one_client_of_many_takes_the_room_of_one(tmp_path: Path) -> None:
    kept = opened(tmp_path, width=1000)
    kept.save(99_999, 1, vector(1.0, 1000))
    file = (tmp_path / "memory.slots").stat()
    assert file.st_size > 99_999 * (HEAD + (SLOTS - 1) * 8000)
    assert file.st_blocks * 512 < 100_000
    assert value(kept.load(99_999, 1)) == 1.0
    assert kept.load(50_000, 1) is None
