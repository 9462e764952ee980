"""Worker processes: order, errors, death, and nothing left behind."""

import faulthandler
import gc
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pictura.data import workers
from pictura.data.workers import Note, in_order


def double(job: int, note: Note) -> dict[str, Any]:
    time.sleep(0.02 * (job % 3))  # so that workers finish in another order
    return {"job": job, "array": np.full((job, 3), job, np.uint8), "many": np.arange(job * 1000)}


def misbehave(job: int, note: Note) -> int:
    note(f"example {job}")
    if job == 3:
        raise KeyError("gone")
    if job == 4:
        raise ValueError("that is your mistake")
    if job == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 6:
        faulthandler.disable()  # pytest's; it would print the whole stack
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == 7:
        os._exit(3)
    return job


def gone(pid: int) -> bool:
    for _ in range(600):
        if not Path(f"/proc/{pid}").exists() or "Z (zombie)" in Path(f"/proc/{pid}/status").read_text():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(autouse=True)
def nobody_left() -> Iterator[None]:
    yield
    gc.collect()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_come_in_the_order_of_the_jobs(count: int) -> None:
    results = list(in_order(double, range(10), count))
    assert [result["job"] for result in results] == list(range(10))
    for job, result in enumerate(results):
        assert result["array"].tolist() == [[job] * 3] * job
        assert result["array"].flags.writeable
        assert (result["many"] == np.arange(job * 1000)).all()


def test_jobs_without_end_are_asked_for_a_little_ahead() -> None:
    asked = []

    def jobs() -> Iterator[int]:
        for job in range(10**9):
            asked.append(job)
            yield job

    results = in_order(double, jobs(), 2, ahead=2)
    assert [next(results)["job"] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(asked) == 5 + 4
    results.close()  # type: ignore[attr-defined]


def test_jobs_and_results_larger_than_a_socket_holds_do_not_block_each_other() -> None:
    def echo(job: Any, note: Note) -> Any:
        return job

    jobs = [np.full(2**20, number) for number in range(6)]
    for number, result in enumerate(in_order(echo, iter(jobs), 1, ahead=3)):
        assert (result == number).all()


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        (3, RuntimeError, r"'gone' \(in loader worker 0 at example 3\)"),
        (4, ValueError, "^that is your mistake$"),
        (5, RuntimeError, r"was killed at example 5, most likely .* memory: lower loader\.workers"),
        (6, RuntimeError, r"ended by SIGSEGV at example 6: .*loader\.workers=0"),
        (7, RuntimeError, r"ended with exit code 3 at example 7"),
    ],
)
def test_a_failure_says_what_and_where(job: int, error: type[Exception], message: str) -> None:
    results = in_order(misbehave, iter([1, 2, job]), 1)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(error, match=message) as caught:
        next(results)
    if job == 3:
        assert "misbehave" in str(caught.value.__cause__), "the worker's own traceback is lost"


def test_a_worker_killed_while_it_waits_is_noticed() -> None:
    results = in_order(misbehave, iter([0, 1, 2] + [1] * 10**5), 2)
    next(results)
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="was killed"):
        list(results)


def test_a_dropped_iterator_takes_its_workers_along() -> None:
    results = in_order(double, iter(range(10**6)), 2)
    pids = [child.pid for child in multiprocessing.active_children()]
    assert len(pids) == 2
    del results
    gc.collect()
    assert all(gone(pid) for pid in pids if pid)


def test_a_worker_that_hangs_does_not_hold_up_the_end() -> None:
    def hang(job: int, note: Note) -> None:
        time.sleep(1000)

    started = time.monotonic()
    in_order(hang, iter([1, 2]), 2).close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 120


def test_the_log_says_so_when_a_worker_takes_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(job: int, note: Note) -> int:
        note("/net/slow.jpg")
        time.sleep(0.5)
        return job

    monkeypatch.setattr(workers, "PATIENCE", 0.1)
    with caplog.at_level(logging.WARNING):
        assert list(in_order(slow, iter([1]), 1)) == [1]
    assert "worker 0 has been busy" in caplog.text
    assert "/net/slow.jpg" in caplog.text


def test_terminating_the_group_leaves_the_decision_to_the_parent() -> None:
    results = in_order(double, iter(range(6)), 1)
    (child,) = multiprocessing.active_children()
    assert child.pid is not None
    next(results)  # by now it has its signal handlers
    os.kill(child.pid, signal.SIGTERM)
    os.kill(child.pid, signal.SIGINT)
    assert [result["job"] for result in results] == [1, 2, 3, 4, 5]


SCRIPT = """
import multiprocessing, os, signal, sys
from pictura.data.workers import in_order
def work(job, note):
    return job
results = in_order(work, iter(range(10**9)), 3)
next(results)
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
END
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(0)", "raise KeyboardInterrupt"])
def test_workers_leave_with_their_parent(end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("END", end)], capture_output=True, text=True, timeout=600, check=False
    )
    pids = list(map(int, done.stdout.split()))
    assert len(pids) == 3, done.stderr
    assert all(gone(pid) for pid in pids)
    if "exit" in end:
        assert not done.stderr


def test_spawned_workers_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no safe fork (macOS), everything goes through pickle."""
    monkeypatch.setattr(workers.sys, "platform", "darwin")
    results = list(in_order(_spawnable(), range(3), 1))
    assert results == [0, 2, 4]


def _spawnable() -> Any:
    from functools import partial

    return partial(_twice, np.int64(2))


def _twice(factor: np.int64, job: int, note: Note) -> int:
    note("unheard")
    return int(factor * job)
