"""What is shown, when, and where; time is a number that the tests set."""

import io
import sys
from collections.abc import Callable

import pytest
import torch
from rich.console import Console

from pictura.output.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def plain() -> tuple[Console, Callable[[], list[str]]]:
    out = io.StringIO()
    return Console(file=out, width=40), lambda: out.getvalue().splitlines()


def terminal() -> tuple[Console, Callable[[], str]]:
    out = io.StringIO()
    return Console(file=out, force_terminal=True, width=120, _environ={"TERM": "xterm"}), out.getvalue


def test_lines_elsewhere_than_on_a_terminal(clock: Clock) -> None:
    """One step a second: the first, one every ten seconds, the last; each on one line, however narrow the console."""
    console, lines = plain()
    with Progress(25, samples=64, flops=1e9, peak=4e9, console=console, clock=clock) as progress:
        for step in range(1, 26):
            clock.now += 1
            progress.update(step, {"clip/loss": torch.tensor(5.0 - step / 10), "clip/accuracy": 0.5})
    assert lines() == [
        "train 1/25   clip/loss 4.9   clip/accuracy 0.5",
        "train 11/25   64.0 samples/s   25% of peak   0:00:14 left   clip/loss 3.9   clip/accuracy 0.5",
        "train 21/25   64.0 samples/s   25% of peak   0:00:04 left   clip/loss 2.9   clip/accuracy 0.5",
        "train 25/25   64.0 samples/s   25% of peak   0:00:00 left   clip/loss 2.5   clip/accuracy 0.5",
    ]


def test_the_last_line_is_not_doubled(clock: Clock) -> None:
    console, lines = plain()
    with Progress(1, console=console, clock=clock) as progress:
        progress.update(1)
    assert lines() == ["train 1/1"]


def test_the_last_line_comes_after_an_error_too(clock: Clock) -> None:
    console, lines = plain()

    def run() -> None:
        with Progress(9, console=console, clock=clock) as progress:
            progress.update(1)
            clock.now += 1
            progress.update(2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    assert [line.split("   ")[0] for line in lines()] == ["train 1/9", "train 2/9"]


def test_speed_is_that_of_the_last_seconds_without_the_first_step(clock: Clock) -> None:
    progress = Progress(1000, samples=2, enabled=False, clock=clock)
    assert progress.samples_per_second is None
    clock.now += 60  # compiles
    progress.update(1)
    assert progress.seconds_left is None
    for step in range(2, 12):
        clock.now += 1.0
        progress.update(step)
    assert progress.steps_per_second == pytest.approx(1.0)
    assert progress.samples_per_second == pytest.approx(2.0)
    assert progress.seconds_left == pytest.approx(989)
    assert progress.share_of_peak is None
    for step in range(12, 412):
        clock.now += 0.1
        progress.update(step)
    assert progress.steps_per_second == pytest.approx(10.0)  # the slow ones are forgotten


def test_an_evaluation_does_not_count(clock: Clock) -> None:
    progress = Progress(100, enabled=False, clock=clock)
    for step in range(1, 11):
        clock.now += 0.5
        progress.update(step)
        with progress.paused():
            clock.now += 7 if step % 5 == 0 else 0
    assert progress.steps_per_second == pytest.approx(2.0)


def test_a_resumed_run_counts_its_own_steps(clock: Clock) -> None:
    progress = Progress(100, start=50, enabled=False, clock=clock)
    for step in (51, 52, 53):
        clock.now += 2.0
        progress.update(step)
    assert progress.steps_per_second == pytest.approx(0.5)
    assert progress.seconds_left == pytest.approx(94)


def test_metrics_are_read_only_when_shown(clock: Clock) -> None:
    class Costly(torch.Tensor):
        reads = 0

        def __float__(self) -> float:
            Costly.reads += 1
            return 1.0

    console, lines = plain()
    with Progress(200, console=console, clock=clock) as progress:
        for step in range(1, 101):
            clock.now += 0.001
            progress.update(step, {"loss": torch.zeros(()).as_subclass(Costly)})
    assert len(lines()) == Costly.reads == 2


def test_nothing_is_shown_where_it_is_not_enabled(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with Progress(2, enabled=False, clock=clock) as progress:
        progress.update(1)
        progress.update(2)
    assert capfd.readouterr() == ("", "")


def test_stdout_stays_clean(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress(1) as progress:
        progress.update(1, {"loss": 1.0})
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "train 1/1   loss 1\n"


def test_a_live_line_on_a_terminal(clock: Clock) -> None:
    console, shown = terminal()
    with Progress(8, samples=3, console=console, clock=clock) as progress:
        for step in range(1, 9):
            clock.now += 0.1
            progress.update(step, {"loss": float(step)})
            sys.stdout.write("a word in between")
    text = shown()
    assert "━" in text
    assert "8/8" in text and "30.0 samples/s" in text and "loss 8" in text
    assert "\x1b[?25h" in text  # the cursor is back
    assert "a word" not in text
    assert 3 <= text.count("samples/s") <= 5  # redrawn at most four times a second
