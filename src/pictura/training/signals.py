"""Being asked to stop: SIGTERM and the first Ctrl-C become a flag that the loop reads when a step is done."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

STOPS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A run was asked to stop, and its checkpoint is saved; the message tells how to go on.

    `code` is the process's exit code, by the shell's rule: 128 and the signal, so that nobody takes it for finished.
    """

    def __init__(self, number: signal.Signals | None, step: int, folder: Path) -> None:
        number = number or signal.SIGTERM  # None: another process was asked
        self.code = 128 + number
        super().__init__(
            f"stopped by {number.name} at step {step}, checkpoint saved; go on with: pictura train --resume {folder}"
        )


class StopRequest:
    """Inside `with StopRequest() as stop`, `stop.requested` turns true at the first signal.

    A second Ctrl-C raises KeyboardInterrupt at once. Python runs signal handlers in the main thread only; in another
    one this is a flag that no signal sets. Processes are signalled one by one: ask `ranks.any_rank(stop.requested)`.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def name(self) -> str:
        """`SIGTERM` or `SIGINT`; empty where nobody asked."""
        return self.signal.name if self.signal else ""

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in STOPS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            self.signal = signal.Signals(number)
