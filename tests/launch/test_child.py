"""A child: its exit code comes back, signals reach it once, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.launch import child
from fedmpi.launch.child import supervise
from fedmpi.launch.local import Mpirun, environment, start

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its orphans")


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """Signals as a terminal's shell leaves them: under nohup or a script's `&` some would be ignored."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in child.FORWARDED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def shell(text: str) -> int:
    return supervise(["/bin/sh", "-c", text], os.environ)


def alive(pid: int) -> bool:
    """Whether it runs: one that ended and waits for its parent to notice does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def until(true: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def when(true: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Act as soon as something is true, while the main thread waits for its child."""
    thread = threading.Thread(target=lambda: act() if until(true) else None, daemon=True)
    thread.start()
    return thread


def numbers(file: Path) -> list[int]:
    return [int(word) for word in file.read_text().split()] if file.exists() else []


@settings(derandomize=True, database=None, deadline=None, max_examples=20)
@given(st.integers(0, 255))
def test_its_exit_code_comes_back(code: int) -> None:
    assert shell(f"exit {code}") == code


@settings(derandomize=True, database=None, deadline=None, max_examples=20)
@given(st.sampled_from([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGUSR1]))
def test_death_by_a_signal_is_128_and_its_number(number: signal.Signals) -> None:
    assert shell(f"ulimit -c 0; kill -{number} $$") == 128 + number


@pytest.mark.parametrize(("sent", "seen"), child.FORWARDED.items())
def test_a_signal_reaches_it_once(tmp_path: Path, sent: signal.Signals, seen: signal.Signals) -> None:
    log = tmp_path / "log"
    traps = " ".join(f"trap 'echo {int(number)} >>{log}' {int(number)};" for number in child.FORWARDED)
    ready = tmp_path / "ready"
    before = [signal.getsignal(number) for number in child.FORWARDED]
    act = when(ready.exists, lambda: os.kill(os.getpid(), sent))
    code = shell(f"{traps} touch {ready}; while [ ! -s {log} ]; do sleep 0.02; done; sleep 0.1; exit 9")
    act.join()
    assert numbers(log) == [seen]
    assert code == (9 if sent == signal.SIGUSR1 else 128 + sent)
    assert [signal.getsignal(number) for number in child.FORWARDED] == before


def test_stopped_and_yet_well_ended_is_well_ended(tmp_path: Path) -> None:
    act = when((tmp_path / "ready").exists, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert shell(f"trap 'exit 0' TERM; touch {tmp_path}/ready; while :; do sleep 0.02; done") == 0
    act.join()


def test_what_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        act = when((tmp_path / "ready").exists, lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert shell(f"touch {tmp_path}/ready; sleep 0.2; exit 3") == 3
        act.join()
    finally:
        signal.signal(signal.SIGHUP, before)


@linux
def test_the_terminal_cannot_reach_it_twice(tmp_path: Path) -> None:
    assert shell(f"cut -d' ' -f1,5 /proc/$$/stat >{tmp_path}/ids; readlink /proc/$$/fd/0 >{tmp_path}/input") == 0
    pid, group = numbers(tmp_path / "ids")
    assert pid == group != os.getpgid(0)
    assert (tmp_path / "input").read_text().strip() == "/dev/null"


@linux
@pytest.mark.parametrize("deaf", ["", "trap '' TERM;"])
def test_nothing_of_it_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: str) -> None:
    monkeypatch.setattr(child, "GRACE", 0.3)
    ours = subprocess.Popen(["sleep", "60"])  # a child of ours, which it never had
    try:
        pids, stray = tmp_path / "pids", tmp_path / "stray"
        stray.write_text(f"{deaf} echo $$ >>{pids}; while :; do sleep 0.05; done")
        code = shell(f"sh {stray} & sh {stray} & until [ $(wc -l <{pids}) = 2 ]; do sleep 0.02; done 2>&-; exit 4")
        assert code == 4
        assert len(numbers(pids)) == 2
        assert not [pid for pid in numbers(pids) if alive(pid)]
        assert ours.poll() is None
    finally:
        ours.kill()
        ours.wait()


@linux
def test_it_ends_when_this_process_is_killed(tmp_path: Path) -> None:
    loop = ["/bin/sh", "-c", "echo $$ >pid; while :; do sleep 0.05; done"]
    text = f"import os, runpy; runpy.run_path({child.__file__!r})['supervise']({loop!r}, os.environ)"
    launcher = subprocess.Popen([sys.executable, "-c", text], cwd=tmp_path)
    assert until(lambda: bool(numbers(tmp_path / "pid")))
    launcher.kill()
    launcher.wait()
    (pid,) = numbers(tmp_path / "pid")
    assert until(lambda: not alive(pid))


@linux
def test_a_killed_mpirun_leaves_no_ranks(mpirun: Mpirun, tmp_path: Path) -> None:
    pids, parents = tmp_path / "pids", tmp_path / "parents"
    loop = f"echo $PPID >>{parents}; echo $$ >>{pids}; while :; do sleep 0.05; done"
    act = when(lambda: len(numbers(pids)) == 2, lambda: os.kill(numbers(parents)[0], signal.SIGKILL))
    assert supervise([*start(mpirun, 2), "/bin/sh", "-c", loop], environment(2)) == 128 + signal.SIGKILL
    act.join()
    assert not [pid for pid in numbers(pids) if alive(pid)]


def test_a_stop_reaches_the_ranks(mpirun: Mpirun, tmp_path: Path) -> None:
    pids, log = tmp_path / "pids", tmp_path / "log"
    loop = f"trap 'echo 10 >>{log}' USR1; echo $$ >>{pids}; while :; do sleep 0.05; done"

    def act() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: len(numbers(log)) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = when(lambda: len(numbers(pids)) == 2, act)
    assert supervise([*start(mpirun, 2), "/bin/sh", "-c", loop], environment(2)) == 128 + signal.SIGINT
    thread.join()
    assert numbers(log) == [10, 10]
    assert until(lambda: not [pid for pid in numbers(pids) if alive(pid)])
