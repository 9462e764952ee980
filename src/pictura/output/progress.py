"""What is shown while something works: a live line on a terminal, one plain line every ten seconds elsewhere.

All of it goes to stderr, so that `--json` on stdout stays clean. On a terminal `update` itself redraws the line, at
most four times a second: there is no thread, which a forked loader worker could inherit in the middle of a write.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from torch import Tensor

REDRAW, PLAIN = 0.25, 10.0  # seconds between two lines, on a terminal and elsewhere
WINDOW = 20.0  # seconds over which the speed is averaged
PATIENCE = 2.0  # work that takes less is shown no line


class Progress:
    """Progress through `total` steps: a context manager with `update(step, metrics)`.

    Args:
        total: the last step; None where it is not known.
        start: the step that is done already (a resumed run).
        samples: examples in a step, over all processes, and `unit`, what they are called.
        flops: floating-point operations of a step, over all processes.
        peak: what the machine reaches per second in matrix products: `measured_peak` times the number of processes.
            With `flops`, the share of it is shown.
        description: first word of the line.
        enabled: False shows nothing (processes other than the main one).
    """

    def __init__(
        self,
        total: int | None,
        *,
        start: int = 0,
        samples: int = 1,
        unit: str = "samples",
        flops: float | None = None,
        peak: float | None = None,
        description: str = "train",
        enabled: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.total, self.step = total, start
        self._samples, self._unit, self._flops, self._peak = samples, unit, flops, peak
        self._description, self._enabled, self._clock = description, enabled, clock
        self._console = console or Console(stderr=True)
        self._metrics: Mapping[str, float | Tensor] = {}
        self._marks: deque[tuple[float, int]] = deque()  # when a step was done, over the last WINDOW seconds
        self._live: Live | None = None
        self._shown: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        if self._enabled and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)
            self._live.start()
            self._show(self._clock())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown is None or self._shown[1] != self.step:
            self._show(self._clock())
        if self._live is not None:
            self._live.stop()

    def update(self, step: int, metrics: Mapping[str, float | Tensor] | None = None) -> None:
        """`step` is done. Tensors in `metrics` are read, which waits for the device, only when the line is drawn."""
        now = self._clock()
        self.step = step
        self._metrics = self._metrics if metrics is None else metrics
        self._marks.append((now, step))  # the first mark is after the first step, which compiles and allocates
        while len(self._marks) > 2 and now - self._marks[1][0] >= WINDOW:
            self._marks.popleft()
        if self._shown is None or now - self._shown[0] >= (PLAIN if self._live is None else REDRAW):
            self._show(now)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside (an evaluation, a checkpoint) does not count into the speed."""
        began = self._clock()
        yield
        away = self._clock() - began
        self._marks = deque((when + away, step) for when, step in self._marks)

    @property
    def steps_per_second(self) -> float | None:
        """Over the last WINDOW seconds; None before the second step."""
        if len(self._marks) < 2 or self._marks[-1][0] <= self._marks[0][0]:
            return None
        (since, first), (until, last) = self._marks[0], self._marks[-1]
        return (last - first) / (until - since)

    @property
    def samples_per_second(self) -> float | None:
        speed = self.steps_per_second
        return None if speed is None else speed * self._samples

    @property
    def share_of_peak(self) -> float | None:
        """Achieved FLOP/s over the measured peak."""
        speed = self.steps_per_second
        return None if speed is None or not self._flops or not self._peak else speed * self._flops / self._peak

    @property
    def seconds_left(self) -> float | None:
        speed = self.steps_per_second
        return None if not speed or self.total is None else max(self.total - self.step, 0) / speed

    def _show(self, now: float) -> None:
        self._shown = (now, self.step)
        if not self._enabled:
            return
        head = f"{self._description} {self.step}" + ("" if self.total is None else f"/{self.total}")
        if self._live is None:
            self._console.print("   ".join([head, *self._facts()]), markup=False, highlight=False, soft_wrap=True)
            return
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_column(no_wrap=True)
        row.add_column()
        row.add_column(no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total=self.total, completed=self.step, width=24, pulse=self.total is None)
        row.add_row(Text(head), bar, Text("  ".join(self._facts())))
        self._live.update(row, refresh=True)

    def _facts(self) -> list[str]:
        speed, share, left = self.samples_per_second, self.share_of_peak, self.seconds_left
        facts = [] if speed is None else [f"{speed:,.{1 if speed < 100 else 0}f} {self._unit}/s"]
        facts += [] if share is None else [f"{share:.0%} of peak"]
        facts += [] if left is None else [f"{timedelta(seconds=round(left))} left"]
        return facts + [f"{name} {float(value):.4g}" for name, value in self._metrics.items()]
