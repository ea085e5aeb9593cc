"""A round on the simulated clock is what a loop over its moments, one after another, comes to."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.cohort.samplers import SAMPLERS, Drawn, Sampler
from fedmpi.flow import Refused, entropy
from fedmpi.job import Component, JobError

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=150)

TICK = 0.25  # of a second: every time below is a multiple, so that floats are exact
IDS = ["ada", "bob", "cyd", "dan", "eve", "fay"]


@dataclass(frozen=True)
class Stay:
    client: int
    start: int  # seconds
    end: int | None


@dataclass(frozen=True)
class World:
    """A trace, and what is asked of it; times in seconds, work in examples."""

    stays: Sequence[Stay]
    speed: Sequence[int]  # of each client, examples a second
    latency: Sequence[float]
    work: Sequence[int]
    size: int
    over: float = 1.0
    deadline: float | None = None
    period: int | None = None
    seed: int = 0

    def text(self) -> str:
        lines = ["client,start,end,speed,latency"]
        for stay in self.stays:
            speed, latency = self.speed[stay.client], self.latency[stay.client]
            end = "" if stay.end is None else stay.end
            lines.append(f"{IDS[stay.client]},{stay.start},{end},{speed},{latency}")
        return "\n".join(lines) + "\n"

    def there(self, client: int, tick: int) -> bool:
        """Whether a client is there in the tick that begins now."""
        second = tick * TICK if self.period is None else (tick * TICK) % self.period
        return any(
            stay.client == client and stay.start <= second and (stay.end is None or second < stay.end)
            for stay in self.stays
        )

    def quiet(self, tick: int) -> bool:
        """Whether nobody is there and nobody will come."""
        return self.period is None and all(stay.end is not None and stay.end <= tick * TICK for stay in self.stays)


def simulated(world: World, rounds: int) -> list[tuple[list[int], dict[str, float]] | None]:
    """Each round's cohort and what is told of it, tick after tick; None, and no more, where nobody comes again."""
    told: list[tuple[list[int], dict[str, float]] | None] = []
    now = 0
    for round in range(1, rounds + 1):
        if world.quiet(now):
            return [*told, None]
        while not any(world.there(client, now) for client in range(len(IDS))):
            now += 1
        available = [client for client in range(len(IDS)) if world.there(client, now)]
        asked = picked(world.seed, round, available, -int(-world.size * world.over // 1))
        begin = now
        due = {
            client: begin + int((world.latency[client] + world.work[client] / world.speed[client]) / TICK)
            for client in asked
        }
        busy, done, late, gone = list(asked), [], 0, 0
        while True:
            for client in [client for client in busy if due[client] == now]:
                busy.remove(client)
                if len(done) < world.size:
                    done.append(client)
                else:
                    late += 1
            for client in [client for client in busy if not world.there(client, now)]:
                busy.remove(client)
                gone += 1
            hopeless = all(any(not world.there(client, tick) for tick in range(now, due[client])) for client in busy)
            if len(done) == world.size or not busy or (done and hopeless):
                break
            if world.deadline is not None and now == begin + int(world.deadline / TICK):
                break
            now += 1
        counts = {"available": len(available), "asked": len(asked), "late": late + len(busy), "gone": gone}
        told.append((sorted(done), {"clock": now * TICK, **counts}))
    return told


def picked(seed: int, round: int, available: list[int], count: int) -> list[int]:
    """The uniform draw of a round, over those available in index order."""
    if count >= len(available):
        return available
    random = np.random.default_rng(np.random.SeedSequence(entropy(seed, round)))
    return [available[place] for place in sorted(random.choice(len(available), count, replace=False, shuffle=False))]


def sampler(file: Path, size: int, work: Sequence[int] = (), seed: int = 0, **options: Any) -> Sampler:
    """A trace as the trainer makes it, from a job's table."""
    made: Sampler = SAMPLERS.choose(
        Component(name="trace", file=str(file), **{name: one for name, one in options.items() if one is not None}),
        seed=seed,
        clients=len(IDS),
        size=size,
        ids=lambda: IDS,
        sizes=np.ones(len(IDS), dtype=np.int64),
        work=np.array(work or [0] * len(IDS)),
    )
    return made


def of(world: World, file: Path) -> Sampler:
    file.write_text(world.text(), encoding="utf-8")
    return sampler(
        file, world.size, world.work, world.seed, over=world.over, deadline=world.deadline, period=world.period
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    each = len(IDS)
    period = draw(st.sampled_from([None, 24]))
    stays = []
    for client in range(each):
        cuts = sorted(draw(st.lists(st.integers(0, 24), max_size=4, unique=True)))
        for start, end in zip(cuts[::2], cuts[1::2], strict=False):
            stays.append(Stay(client, start, draw(st.sampled_from([end, end, end, None]))))
    stays = [stay for stay in stays if stay.start < 24] or [Stay(0, 3, None)]
    # Touching or overlapping lines of one client are one stay.
    longer = [Stay(stay.client, stay.end, stay.end + 2) for stay in stays if stay.end is not None and stay.end < 22]
    stays += longer[::3]
    return World(
        stays=draw(st.permutations(stays)),
        speed=draw(st.lists(st.sampled_from([1, 2, 4]), min_size=each, max_size=each)),
        latency=draw(st.lists(st.sampled_from([0, 0.5, 1.75]), min_size=each, max_size=each)),
        work=draw(st.lists(st.integers(0, 30), min_size=each, max_size=each)),
        size=draw(st.integers(1, 4)),
        over=draw(st.sampled_from([1, 1.5, 2, 6])),
        deadline=draw(st.sampled_from([None, 0.5, 3, 10])),
        period=period,
        seed=draw(st.integers(0, 2**63 - 1)),
    )


@lawful
@given(world=worlds())
def test_rounds_are_those_of_a_loop_over_every_moment(tmp_path_factory: pytest.TempPathFactory, world: World) -> None:
    trace = of(world, tmp_path_factory.getbasetemp() / "trace.csv")
    for round, expected in enumerate(simulated(world, rounds=8), start=1):
        if expected is None:
            with pytest.raises(Refused, match=r"trace.csv: at [0-9.]+ simulated seconds every client has left"):
                trace.draw(round)
        else:
            cohort, told = expected
            drawn = trace.draw(round)
            assert (drawn.clients.tolist(), drawn.notes) == (cohort, told)
            assert drawn.times.tolist() == [1] * len(cohort)
            assert told["asked"] == len(cohort) + told["late"] + told["gone"]


def test_the_worlds_above_hold_what_they_are_meant_to() -> None:
    """Rounds that are empty, that lose clients both ways, that wait and that end the trace: or the law says little."""
    seen: set[str] = set()

    @settings(lawful, max_examples=60)
    @given(world=worlds())
    def look(world: World) -> None:
        before = 0.0
        for one in simulated(world, rounds=8):
            if one is None:
                seen.add("over")
                break
            cohort, told = one
            seen.update(name for name in ("late", "gone") if told[name])
            seen.add("full" if len(cohort) == world.size else "short" if cohort else "empty")
            seen.add("again" if world.period and told["clock"] > world.period else "once")
            seen.add("some" if told["asked"] < told["available"] else "all")
            seen.add("met" if any(world.there(client, int(before / TICK)) for client in range(6)) else "waited")
            before = told["clock"]

    look()
    assert seen >= {"over", "late", "gone", "full", "short", "empty", "again", "some", "all", "waited"}


def same(one: Drawn, other: Drawn) -> bool:
    return one.clients.tolist() == other.clients.tolist() and one.notes == other.notes


@settings(lawful, max_examples=50)
@given(world=worlds(), data=st.data())
def test_a_resumed_run_meets_the_rounds_it_would_have_had(
    tmp_path_factory: pytest.TempPathFactory, world: World, data: st.DataObject
) -> None:
    file = tmp_path_factory.getbasetemp() / "trace.csv"
    lived = of(world, file)
    drawn = []
    with contextlib.suppress(Refused):
        for round in range(1, 13):
            drawn.append(lived.draw(round))
    resumed = of(world, file)
    for round in data.draw(st.lists(st.integers(1, len(drawn)), max_size=6)):
        assert same(resumed.draw(round), drawn[round - 1])


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "trace.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_client_that_the_file_does_not_name_is_never_there(tmp_path: Path) -> None:
    trace = sampler(written(tmp_path, "client,start,end\nbob,0,\neve,0,\n"), 6)
    drawn = trace.draw(1)
    assert drawn.clients.tolist() == [1, 4]
    assert drawn.notes == {"clock": 0.0, "available": 2, "asked": 2, "late": 0, "gone": 0}


def test_over_selection_asks_for_no_more_than_its_product(tmp_path: Path) -> None:
    """In floating point 50 * 1.1 is a little above 55; nobody is asked for that."""
    ids = [f"c{index}" for index in range(99)]
    file = written(tmp_path, "client,start,end\n" + "".join(f"{one},0,\n" for one in ids))
    component = Component(name="trace", file=str(file), over=1.1)
    arguments = {"seed": 0, "clients": 99, "ids": lambda: ids, "work": np.zeros(99)}
    for size, asked in ((50, 55), (11, 13)):
        trace: Sampler = SAMPLERS.choose(component, size=size, **arguments)
        assert trace.draw(1).notes["asked"] == asked


def test_a_late_joiner_is_waited_for_and_an_empty_end_is_for_ever(tmp_path: Path) -> None:
    trace = sampler(written(tmp_path, "client,start,end,latency\nada,0,2,1\nbob,100,,1\n"), 2)
    assert [trace.draw(round).clients.tolist() for round in (1, 2, 3, 4)] == [[0], [0], [1], [1]]
    assert [trace.draw(round).notes["clock"] for round in (1, 2, 3, 4)] == [1, 2, 101, 102]


def test_who_is_there_over_the_end_of_a_period_stays(tmp_path: Path) -> None:
    """From 22 to 30 of a day of 24 hours: two lines, one stay, and 7 hours of work are done in it."""
    text = "client,start,end,latency\nada,22,24,7\nada,0,6,7\n"
    trace = sampler(written(tmp_path, text), 1, period=24)
    assert [trace.draw(round).clients.tolist() for round in (1, 2, 3)] == [[], [0], []]
    assert [trace.draw(round).notes["clock"] for round in (1, 2, 3)] == [6, 29, 30]


def test_always_there_is_there_whatever_the_period(tmp_path: Path) -> None:
    text = "client,start,end,latency\nada,12,24,100\nada,0,12,100\nbob,0,,100\n"
    trace = sampler(written(tmp_path, text), 2, period=24)
    assert trace.draw(3).clients.tolist() == [0, 1]
    assert trace.draw(3).notes["clock"] == 300


def test_far_periods_are_as_exact_as_the_first(tmp_path: Path) -> None:
    """0.1 + 0.1 + ... drifts off 0.1 n; the end of a stay must not."""
    trace = sampler(written(tmp_path, "client,start,end,latency\nada,0,0.3,0.3\n"), 1, period=0.7)
    cohorts = [trace.draw(round).clients.tolist() for round in range(1, 3001)]
    assert cohorts == [[0]] * 3000
    assert trace.draw(3000).notes["clock"] == pytest.approx(2999 * 0.7 + 0.3, rel=1e-12)


def test_joined_lines_work_at_the_pace_of_the_first(tmp_path: Path) -> None:
    text = "client,start,end,speed,latency\nada,5,20,100,9\nada,0,5,2,1\n"
    assert sampler(written(tmp_path, text), 1, [20] * 6).draw(1).notes["clock"] == 11


def test_empty_cells_are_as_if_the_column_were_missing(tmp_path: Path) -> None:
    """With a spreadsheet's mark, spaces and empty lines."""
    text = "\ufeffclient , end, speed, start, latency\n\nada, , , 0,\n , , , ,\nbob, , 2, 0,\n"
    trace = sampler(written(tmp_path, text), 2, [10] * 6)
    assert trace.draw(1).clients.tolist() == [0, 1]
    assert trace.draw(1).notes["clock"] == 5


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "line 1: has no column 'client'; there should be client, start, end"),
        ("client,start\nada,0\n", {}, "line 1: has no column 'end'"),
        ("client,start,end,sped\nada,0,1,1\n", {}, "line 1: column 'sped' is not one of client, start, end, speed"),
        ("client,start,end,end\nada,0,1,1\n", {}, "line 1: column 'end' is not one of"),
        ("client,start,end\n", {}, "has no line below its header, so no client is ever there"),
        ("client,start,end\nada,0,1\nzoe,0,1\n", {}, "line 3: client 'zoe' is not in the shard set"),
        ("client,start,end\nada,0\n", {}, "line 2: has 2 values for 3 columns"),
        ("client,start,end\n\nada,5,4\n", {}, "line 3: end 4 given; should be after start, 5"),
        ("client,start,end\nada,5,5\n", {}, "line 2: end 5 given; should be after start, 5"),
        ("client,start,end\nada,soon,5\n", {}, "line 2: start 'soon' given; should be a number"),
        ("client,start,end\nada,,5\n", {}, "line 2: start '' given; should be a number"),
        ("client,start,end\nada,0,nan\n", {}, "line 2: end 'nan' given; should be a number"),
        ("client,start,end\nada,0,inf\n", {}, "line 2: end 'inf' given; should be a number"),
        ("client,start,end\nada,0,1_3\n", {}, "line 2: end '1_3' given; should be a number"),
        ("client,start,end\nada,0,\u0665\n", {}, "line 2: end '\u0665' given; should be a number"),
        ("client,start,end,speed\nada,0,1,0\n", {}, "line 2: speed 0 given; should be above 0"),
        ("client,start,end,speed\nada,0,1,-2\n", {}, "line 2: speed -2 given; should be above 0"),
        ("client,start,end,latency\nada,0,1,-2\n", {}, "line 2: latency -2 given; should be 0 or more"),
        ("client,start,end\nada,0,25\n", {"period": 24}, "line 2: from 0 to 25 given; with a period a line should lie"),
        ("client,start,end\nada,-1,5\n", {"period": 24}, "line 2: from -1 to 5 given; with a period"),
        ('client,start,end\n"ada,0,1\n', {}, "line 2: unexpected end of data"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(
    tmp_path: Path, text: str, options: dict[str, Any], message: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(Refused) as caught:
        sampler(file, 1, **options)
    assert re.match(re.escape(str(file)) + "[,:] " + re.escape(message), str(caught.value))


def test_a_file_that_is_no_text_or_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"client,start,end\n\xff\xfe\x00\n")
    with pytest.raises(Refused, match=r"bytes.csv, line 1: 'utf-8' codec"):
        sampler(tmp_path / "bytes.csv", 1)
    with pytest.raises(JobError, match=r"cohort.sampler.file: .*none.csv: cannot be read: No such file"):
        sampler(tmp_path / "none.csv", 1)


def test_nobody_coming_again_is_told_with_the_second(tmp_path: Path) -> None:
    trace = sampler(written(tmp_path, "client,start,end,latency\nada,0,3,2\n"), 1)
    assert [trace.draw(round).notes["gone"] for round in (1, 2)] == [0, 1]
    with pytest.raises(Refused, match=r"trace.csv: at 3.0 simulated seconds every client has left, and none comes"):
        trace.draw(9)
    assert trace.draw(2).clients.tolist() == []
