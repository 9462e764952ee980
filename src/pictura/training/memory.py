"""The most memory that a stretch of code held."""

import resource
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class MemoryPeak:
    """`with MemoryPeak(device) as memory: …`, then `memory.mib`: the peak inside, in MiB.

    On a GPU that is allocated memory; on the CPU it is the process's resident memory, all that it holds.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.mib = device, 0.0

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(
                OSError
            ):  # not Linux, or a container that forbids it: then the peak is that of the whole life
                CLEAR.write_text("5")  # the high-water mark goes down to what is held now
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mib = peak_mib(self.device)


def peak_mib(device: torch.device) -> float:
    """Peak memory since the last reset, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM"):  # some sandboxed kernels leave it out
                return float(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
