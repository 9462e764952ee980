"""Signals are asked for, not obeyed at once; and handlers are left as they were found."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from pictura.training.signals import StopRequest


@pytest.fixture(autouse=True)
def handlers_come_back() -> Iterator[None]:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_flag(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert not stop.requested
        assert stop.name == ""
        os.kill(os.getpid(), number)
        assert stop.requested
        assert stop.name == number.name
    assert stop.requested  # the last line of a run still asks


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_after_that_aborts(first: signal.Signals) -> None:
    with StopRequest():
        os.kill(os.getpid(), first)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_sigterm_again_changes_nothing() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.name == "SIGINT"


def test_handlers_are_restored_after_an_error() -> None:
    with pytest.raises(RuntimeError), StopRequest():
        raise RuntimeError
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_it_is_a_flag_that_nobody_sets() -> None:
    seen: list[bool] = []

    def run() -> None:
        with StopRequest() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]


def sleep(ready: "multiprocessing.connection.Connection") -> None:
    ready.send(True)
    time.sleep(60)


@pytest.mark.parametrize(("number", "dies"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_a_forked_worker_dies_of_sigterm_but_not_of_ctrl_c(number: signal.Signals, dies: bool) -> None:
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    with StopRequest() as stop:
        child = context.Process(target=sleep, args=(theirs,))
        child.start()
        try:
            assert mine.recv()
            assert child.pid is not None
            os.kill(child.pid, number)
            child.join(timeout=20 if dies else 0.3)
            assert child.exitcode == (-number if dies else None)
        finally:
            child.kill()
            child.join()
    assert not stop.requested
