"""A journal grows by whole lines, and what a kill tore is not read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.flow import Refused
from fedmpi.records.journal import Journal, read_journal

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=60)
numbers = st.one_of(st.integers(-(2**63), 2**63), st.floats(allow_nan=False, allow_infinity=False))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)
lines_of = st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=5)


def journal(tmp_path: Path, rounds: int = 4) -> Journal:
    made = Journal(tmp_path / "journal.jsonl")
    for round in range(1, rounds + 1):
        made.write({"round": round, "clients": 3, "name": "ünï\u2028\n"})
    return made


@lawful
@given(lines=lines_of)
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]]) -> None:
    made = Journal(tmp_path_factory.mktemp("j") / "journal.jsonl")
    made.path.touch()
    for line in lines:
        made.write(line)
        made.sync()
    assert read_journal(made.path) == lines


def test_a_line_is_a_line_of_json(tmp_path: Path) -> None:
    text = journal(tmp_path).path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert [json.loads(line)["round"] for line in text.splitlines()] == [1, 2, 3, 4]


def test_a_last_line_torn_at_any_byte_is_left_out(tmp_path: Path) -> None:
    made = journal(tmp_path)
    whole = made.path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for length in range(start, len(whole) - 1):
        made.path.write_bytes(whole[:length])
        assert [line["round"] for line in read_journal(made.path)] == [1, 2, 3]
    made.path.write_bytes(whole[:-1])  # the newline alone is missing: the line is all there
    assert [line["round"] for line in read_journal(made.path)] == [1, 2, 3, 4]


def test_after_a_cut_a_torn_journal_grows_by_whole_lines_again(tmp_path: Path) -> None:
    made = journal(tmp_path)
    whole = made.path.read_bytes()
    for torn in (whole[:-1], whole[:-9]):
        made.path.write_bytes(torn)
        made.cut(5)
        rounds = [line["round"] for line in read_journal(made.path)]
        made.write({"round": 9})
        assert [line["round"] for line in read_journal(made.path)] == [*rounds, 9]


@pytest.mark.parametrize("damage", [b"{tor\n", b"\xff\xfe\x00\n", b"\x00\x00\x00\n"])
def test_damage_before_the_end_is_refused_by_line(tmp_path: Path, damage: bytes) -> None:
    made = journal(tmp_path, 2)
    made.path.write_bytes(made.path.read_bytes() + damage + b'{"round":4}\n')
    with pytest.raises(Refused, match=r"journal\.jsonl.*3"):
        read_journal(made.path)


def test_a_tail_that_a_power_cut_left_is_torn_like_any_other(tmp_path: Path) -> None:
    made = journal(tmp_path, 2)
    made.path.write_bytes(made.path.read_bytes() + b"\x00" * 20)
    assert len(read_journal(made.path)) == 2


@pytest.mark.parametrize("round", [0, 1, 3, 5, 99])
def test_a_cut_keeps_earlier_rounds_and_nothing_aside(tmp_path: Path, round: int) -> None:
    made = journal(tmp_path)
    before = read_journal(made.path)
    made.cut(round)
    assert read_journal(made.path) == [line for line in before if line["round"] < round]
    assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]


def test_a_cut_of_nothing_writes_nothing(tmp_path: Path) -> None:
    made = Journal(tmp_path / "journal.jsonl")
    made.cut(1)
    made.sync()
    assert not made.path.exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_json_number_is_never_written(tmp_path: Path, value: float) -> None:
    made = journal(tmp_path)
    before = made.path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        made.write({"round": 5, "train_loss": value})
    assert made.path.read_bytes() == before


def test_a_place_that_does_not_take_it_is_one_refusal(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="could not be written"):
        Journal(tmp_path / "gone" / "journal.jsonl").write({"round": 1})
    with pytest.raises(Refused, match="cannot be read"):
        read_journal(tmp_path / "journal.jsonl")
