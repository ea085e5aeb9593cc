"""A signal is heard whatever the main thread waits in, and what others handle or ignore stays theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from fedmpi import hear


def until(true: Callable[[], bool]) -> bool:
    """Let the listening thread run until something is true, or ten seconds have passed."""
    for _ in range(10_000):
        if true():
            return True
        threading.Event().wait(0.001)
    return true()


@pytest.fixture(autouse=True)
def _plain() -> object:
    """USR1 as a shell leaves it."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_it_is_heard_and_forgotten_when_nobody_listens() -> None:
    for _ in range(3):
        with hear.listening():
            assert not hear.asked()
            os.kill(os.getpid(), signal.SIGUSR1)
            assert until(hear.asked)
        assert not hear.asked()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_it_is_heard_while_the_main_thread_runs_no_python() -> None:
    """As in a collective: a C call that holds the main thread until the signal has been acted on."""
    code = """
import ctypes, os, signal, threading
from fedmpi import hear
def act():
    os.kill(os.getpid(), signal.SIGUSR1)
    while not hear.asked():
        pass
    os._exit(7)
with hear.listening():
    threading.Thread(target=act).start()
    pause = ctypes.CDLL(None).sleep
    while True:
        pause(60)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == 7


def test_every_one_after_the_first_is_told() -> None:
    told: list[int] = []
    with hear.listening((signal.SIGUSR1, signal.SIGTERM), told.append):
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            count = len(hear._heard)
            os.kill(os.getpid(), number)
            assert until(lambda count=count: len(hear._heard) == count + 1)
        assert until(lambda: told == [signal.SIGUSR1, signal.SIGTERM])


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_what_is_ignored_or_handled_stays_so(handler: object) -> None:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with hear.listening():
            assert signal.getsignal(signal.SIGUSR1) is handler
            os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is handler
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_whoever_listens_already_goes_on() -> None:
    with hear.listening():
        with hear.listening():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert until(hear.asked)
        assert hear.asked()


def test_a_thread_changes_nothing() -> None:
    seen = []

    def work() -> None:
        with hear.listening():
            seen.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


def test_an_event_loop_that_listened_before_is_still_woken() -> None:
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    before = signal.set_wakeup_fd(mouth)
    try:
        with hear.listening():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert until(hear.asked)
        assert os.read(ear, 1) == bytes([signal.SIGUSR1])
    finally:
        signal.set_wakeup_fd(before)
        os.close(ear)
        os.close(mouth)
