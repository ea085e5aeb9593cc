"""`fedmpi shard`: the help of what was named, options in the command's words, a bar on a terminal alone."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedmpi.data import IMPORTERS, PARTITIONS
from tests.cli.conftest import Command


@pytest.mark.parametrize("importer", IMPORTERS)
@pytest.mark.parametrize("partition", ["iid", "dirichlet"])
def test_help_shows_every_option_of_what_was_named(inside: Command, importer: str, partition: str) -> None:
    said = inside("shard", importer, "--partition", partition, "--help")
    assert said.code == 0
    lines = [line.split() for line in said.out.splitlines() if line.strip()]
    for name, (_, default) in {
        **IMPORTERS.options(importer),
        **PARTITIONS.options(partition),
    }.items():
        place = next(place for place, words in enumerate(lines) if words[0] == f"--{name.replace('_', '-')}")
        told = " ".join(lines[place] + (lines[place + 1] if place + 1 < len(lines) else []))
        told += " ".join(lines[place + 2] if place + 2 < len(lines) else [])
        assert len(told.split()) > 3, told  # a type and a meaning
        assert "[required]" in told if default is ... else default in (None, "") or f"[{default}]" in told


TABLE = "age,site,y\n1,n,p\n2,s,q\n3,n,p\n4,s,q\n"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--target", "z"], 2, "fedmpi: --target: 'z' given"),
        (["--target", "y", "--drop", "y"], 2, "fedmpi: --drop: 'y' given, which --target names too"),
        (["--target", "y", "--group", "site"], 2, "fedmpi: --group: 'site' given, but iid does not look"),
        (["--target", "y", "--task", "sorting"], 2, "fedmpi: --task: 'sorting' given"),
        (["--target", "y", "--sep", "ab"], 2, "fedmpi: --sep: 'ab' given"),
        (["--target", "y", "--clients", "99"], 2, "99"),
        (["--targte", "y"], 2, "fedmpi: --targte: is not an option here; .*did you mean '--target'"),
        (["--target", "y", "--partiton", "iid"], 2, "did you mean '--partition'"),
        (["--target", "y", "--drop", "age", "--drop", "site"], 2, "--drop: is given twice; a list has commas"),
        (["--target", "--drop", "age"], 2, "--target: needs a value"),
        (["--target", "y", "stray"], 2, "'stray': is not an option"),
        (["--target", "y", "--test-source", "none.csv"], 2, "fedmpi: --test-source: there is no file none.csv"),
    ],
)
def test_what_is_wrong_is_told_in_the_commands_words(
    inside: Command, tmp_path: Path, words: list[str], code: int, told: str
) -> None:
    (tmp_path / "set.csv").write_text(TABLE)
    said = inside("shard", "csv", "--source", "set.csv", "--out", "out", "--clients", "2", *words)
    assert said.code == code, said.all
    assert re.search(told, said.err), said.err
    assert not (tmp_path / "out").exists()


def test_options_before_the_importer(inside: Command) -> None:
    assert "the importer comes first" in inside("shard", "--target", "y", "csv", "--out", "out").err


def test_every_column_is_told_in_plain_words(inside: Command, tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text(TABLE)
    said = inside("shard", "csv", "--source", "set.csv", "--target", "y", "--out", "out", "--clients", "2")
    assert said.code == 0, said.all
    assert "\x1b" not in said.out
    assert said.out.splitlines()[:4] == [
        "importing csv",
        "column 'age': numbers, 1 to 4",
        "column 'site': category with 2 values",
        "column 'y': target: 2 classes: p, q",
    ]


def test_a_terminal_has_a_bar(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text(TABLE)
    own, theirs = pty.openpty()
    words = ["shard", "csv", "--source", "set.csv", "--target", "y", "--out", "out", "--clients", "2"]
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.Popen(
        [sys.executable, "-m", "fedmpi", *words],
        cwd=tmp_path,
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env=environment,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(own, 2**16)
        except OSError:  # Linux says so when the other end is gone
            break
        if not piece:
            break
        shown += piece
    os.close(own)
    assert done.wait(60) == 0, shown.decode()
    assert b"\x1b[" in shown
    assert "━".encode() in shown
    assert b"column 'age': numbers, 1 to 4" in shown
