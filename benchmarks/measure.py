"""The instruments, used inside a side's process: time per call, growth of memory, the machine's matrix product peak."""

from __future__ import annotations

import gc
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 2**20
BLOCK = (
    0.05  # seconds: quick calls are timed in blocks of this length, so that the clock and the GPU's queue do not show
)
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
_CLEAR_PEAK = "5"  # see proc(5), clear_refs: resets VmHWM to the present size


def synchronize(device: str) -> None:
    """Wait until the device has done all it was told."""
    if device != "cpu":
        import torch

        torch.accelerator.synchronize()


def seconds_per_call(call: Callable[[], Any], device: str, seconds: float) -> float:
    """Median over blocks of calls, about `seconds` in all, the device synchronised; one call, if that takes as long."""

    def block(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        synchronize(device)
        return (time.perf_counter() - start) / calls

    synchronize(device)
    end = time.perf_counter() + seconds
    if (first := block(1)) >= seconds:
        return first
    calls = max(1, math.ceil(BLOCK / max(first, 1e-7)))
    times = [block(calls)]
    while time.perf_counter() < end:
        times.append(block(calls))
    return statistics.median(times)


def memory_growth(call: Callable[[], Any], device: str) -> float:
    """Bytes by which the peak during one call exceeds the size just before, of the process or of tensors on the GPU."""
    gc.collect()
    if device != "cpu":
        import torch

        before = torch.cuda.memory_allocated()
        reset_peak(device)
        call()
        return float(torch.cuda.max_memory_allocated() - before)
    reset_peak(device)
    before = _status("VmRSS") or peak_memory(device)
    call()
    return peak_memory(device) - before


def reset_peak(device: str) -> None:
    """Forget the largest size so far. Without /proc the largest size of the whole life is kept."""
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif os.access(clear := Path("/proc/self/clear_refs"), os.W_OK):
        clear.write_text(_CLEAR_PEAK)


def peak_memory(device: str) -> float:
    """Largest size in bytes since `reset_peak`: resident memory of the process, or tensors on the GPU."""
    if device != "cpu":
        import torch

        return float(torch.cuda.max_memory_allocated())
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT


def children_peak_memory() -> float:
    """Largest resident size in bytes of any child process that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _MAXRSS_UNIT


def total_memory() -> float:
    """Bytes of main memory."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _status(key: str) -> float:
    """A size of this process from /proc, in bytes; 0 where there is no /proc."""
    status = Path("/proc/self/status")
    rows = status.read_text().splitlines() if status.exists() else []
    return next((float(row.split()[1]) * 1024 for row in rows if row.startswith(key + ":")), 0.0)


def matmul_peak(device: str, dtype: str, sizes: tuple[int, ...] = (1024, 2048, 4096), seconds: float = 0.5) -> float:
    """FLOP/s of the fastest square matrix product [n n] @ [n n] in `dtype`: what this machine can do just now."""
    import torch

    best = 0.0
    for n in sizes if device == "cpu" else (*sizes, 2 * sizes[-1]):
        a = torch.randn(n, n, device=device).to(getattr(torch, dtype))
        b = torch.randn(n, n, device=device).to(a.dtype)
        out = torch.empty_like(a)

        def product(a: Any = a, b: Any = b, out: Any = out) -> None:
            torch.mm(a, b, out=out)

        product()
        best = max(best, 2 * n**3 / seconds_per_call(product, device, seconds))
    return best
