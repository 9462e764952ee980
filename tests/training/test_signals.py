"""Signals are asked for, not obeyed at once; and handlers are left as they were found."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from pictura.training.signals import StopRequest


@pytest.fixture(autouse=True)
def handlers_come_back() -> Iterator[None]:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what runs in its background
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
