"""The record of a run: `metrics.jsonl`, one JSON object a line with the step first, and TensorBoard event files.

A line goes to the operating system as soon as it is written, so a killed run loses at most the line it was writing.
A run that resumes at step k drops what lies after k: those steps come again.
"""

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from pictura.output.files import write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Value = float | str | Tensor


class MetricsLog:
    """Writes `folder/metrics.jsonl` and, with `tensorboard`, event files beside it. Only the main process has one.

    Args:
        resume: the step of the checkpoint that the run goes on from; None begins the file anew.
    """

    def __init__(self, folder: Path | str, resume: int | None = None, tensorboard: bool = True) -> None:
        self.path = Path(folder) / "metrics.jsonl"
        self._events: SummaryWriter | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._start(resume)
            if tensorboard:
                self._events = _event_writer(self.path.parent, resume)
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _start(self, resume: int | None) -> None:
        lines = [] if resume is None else [line for line in read_metrics(self.path) if line["step"] <= resume]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))

    def write(self, step: int, metrics: Mapping[str, Value]) -> None:
        """One line. A tensor has one element; what JSON has no number for becomes "NaN", "Infinity", "-Infinity"."""
        line = json.dumps({"step": step, **json_ready(metrics)}, allow_nan=False).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _unwritable(self.path, error) from error
        if self._events is not None:
            for name, value in metrics.items():
                if not isinstance(value, str):
                    self._events.add_scalar(name, float(value), step)

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """Lines of a `metrics.jsonl`: whole ones only, since a killed run may have torn the last. No file, no lines."""
    path = Path(path)
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            raise ValueError(f"{path}: line {number} has no step; this is no metrics file of a run")
        lines.append(line)
    return lines


def json_ready(metrics: Mapping[str, Value]) -> dict[str, float | str]:
    """Metrics as JSON can hold them. `float()` of each number reads back, "NaN" and "-Infinity" too."""
    return {name: value if isinstance(value, str) else _number(value) for name, value in metrics.items()}


def _number(value: float | Tensor) -> float | str:
    number = value.item() if isinstance(value, Tensor) else value
    if isinstance(number, int):
        return number
    number = float(number)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _event_writer(folder: Path, resume: int | None) -> "SummaryWriter":
    try:
        from torch.utils.tensorboard import SummaryWriter  # here: over a second to import
    except ImportError as error:
        raise ValueError("tensorboard: not installed; pip install tensorboard, or set it to false") from error
    # `purge_step` tells TensorBoard to hide what an abandoned run wrote from that step on.
    return SummaryWriter(str(folder), purge_step=None if resume is None else resume + 1)


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(f"{path}: cannot be written ({error.strerror}); free some space, or choose another folder")
