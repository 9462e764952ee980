"""What a benchmark case is, and how ours and the peer are measured against each other.

A case builds the same work twice: `ours(device)` and `peer(device)` each return a function of no arguments. Each side
lives in a fresh process of its own. The two processes stay alive and work in turn, A B A B …, for several rounds; the
one whose turn it is not waits on a pipe and uses no processor time (this is measured). Medians are reported; the ratio
is the median over rounds of the two sides' ratio in a round, since a shared machine may change pace between rounds.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import pkgutil
import platform
import statistics
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pictura.cli import ENVIRONMENT

from . import measure

Side = Literal["ours", "peer"]
MIB = measure.MIB
ROOT = Path(__file__).parent.parent
COMMAND = ENVIRONMENT
IDLE_LIMIT = 0.05  # share of one core that a waiting process may use before the run is doubted
SPREAD_LIMIT = 1.3  # best round over worst


class BenchmarkError(Exception):
    """A side failed, or the two sides did not compute the same thing. The message says which case and side."""


@dataclass(frozen=True, kw_only=True)
class Case(ABC):
    """One comparison, by time. Modules of this package list their instances in `CASES`.

    unit: "<things>/s" (larger is better), or "ms" per call (smaller is better); items: things per call.
    tolerance: the first call's result of both sides must agree to this share of its largest value; None: not compared.
    dtype: the type in which the machine's matrix product peak is measured, for `share_of_peak`.
    opt_in: run only when asked for by `--case`.
    """

    name: str
    case: str
    unit: str
    items: int = 1
    peer_name: str = "open_clip_torch"
    peer_setting: str
    opt_in: bool = False
    tolerance: float | None = None
    dtype: str = "bfloat16"

    fresh: ClassVar[bool] = False  # True: a new process for every single measurement
    warm_up: ClassVar[int] = 3  # calls before the first measurement
    rounds: ClassVar[int] = 15  # short ones: machines that others share change pace within seconds

    @abstractmethod
    def ours(self, device: str) -> Callable[[], Any]:
        """Prepare our side; the function returned does one call's work and returns a tensor, a number or nothing."""

    @abstractmethod
    def peer(self, device: str) -> Callable[[], Any]:
        """Prepare the peer's side of the same work, at its best setting."""

    def environment(self, side: Side) -> dict[str, str]:
        """Of a side's process, beside what there is: where ours is what the command does, it has `COMMAND` too."""
        return {}

    def flops(self) -> float:
        """Floating point operations that one call of ours needs; 0 where that says nothing. Asked in our process."""
        return 0.0

    def measure(self, call: Callable[[], Any], device: str, seconds: float) -> float:
        """One turn of about `seconds`: the value in `unit`."""
        each = measure.seconds_per_call(call, device, seconds)
        return 1e3 * each if self.unit == "ms" else self.items / each

    def seconds(self, value: float) -> float:
        """Seconds per call that a value in `unit` stands for."""
        return value / 1e3 if self.unit == "ms" else self.items / value

    def peak_memory(self, device: str) -> float:
        """Largest memory of this side's process since it was warm, in MiB (on a GPU: of tensors on the device)."""
        return measure.peak_memory(device) / MIB

    @property
    def smaller_is_better(self) -> bool:
        return self.unit in ("ms", "MiB")


@dataclass(frozen=True, kw_only=True)
class MemoryCase(Case):
    """A comparison of extra memory: growth of the process's peak over the moment just before ONE call, in MiB.

    Counted: everything that the call allocates while it runs, the gradients of its inputs included. Not counted: the
    inputs themselves, the libraries, and what a small first call (made by `ours` and `peer` themselves) leaves behind.
    Every measurement is made in a process of its own, since an allocator that has grown once hides the next growth.
    """

    unit: str = "MiB"
    fresh: ClassVar[bool] = True
    warm_up: ClassVar[int] = 0
    rounds: ClassVar[int] = 2

    def measure(self, call: Callable[[], Any], device: str, seconds: float) -> float:
        return measure.memory_growth(call, device) / MIB


class Worker:
    """The parent's end of one side's process (`worker.py` is the other end): JSON lines over a pair of pipes."""

    def __init__(self, case: Case, side: Side, device: str) -> None:
        self.label = f"{case.name} {case.case}, {side}"
        arguments = [type(case).__module__, case.name, case.case, side, device]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path} | case.environment(side),
            text=True,
        )

    def ask(self, command: str, **arguments: float) -> dict[str, Any]:
        """Send one command and wait for its answer; a process that fails or dies raises BenchmarkError."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": command} | arguments) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self.process.wait()
            reason = " (killed: out of memory?)" if code == -9 else ""
            raise BenchmarkError(f"{self.label}: its process ended with code {code}{reason} at `{command}`")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(f"{self.label}: {answer['error']}")
        return answer

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # it died with a command unread: nothing more to say to it
                continue
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def find_cases() -> list[Case]:
    """Every case of every module of this package, in the modules' order."""
    found: list[Case] = []
    for module in sorted(info.name for info in pkgutil.iter_modules(importlib.import_module(__package__).__path__)):
        if module not in ("__main__", "worker"):
            found += getattr(importlib.import_module(f"{__package__}.{module}"), "CASES", ())
    return found


def compare(case: Case, *, runs: int | None = None, seconds: float = 1.0, device: str = "cpu") -> dict[str, Any]:
    """Measure both sides in turn, `runs` rounds of about `seconds` each, and return the result as one flat mapping."""
    runs = runs or case.rounds
    values: dict[Side, list[float]] = {"ours": [], "peer": []}
    memory: dict[Side, list[float]] = {"ours": [], "peer": []}
    first: dict[Side, list[float] | None] = {}
    peaks: list[float] = []
    flops = 0.0
    idle = 0.0
    answer: dict[str, Any] = {}
    for side, answer in _turns(case, runs, seconds, device):
        values[side].append(answer["value"])
        memory[side].append(answer["memory"])
        first.setdefault(side, answer["first"])
        idle = max(idle, answer["idle"])
        if "peak" in answer:
            flops, peaks = answer["flops"], [*peaks, answer["peak"]]
    _doubt(case, values, idle)
    error = None if case.tolerance is None else _disagreement(case, first["ours"], first["peer"])
    ours, peer = statistics.median(values["ours"]), statistics.median(values["peer"])
    ratios = [b / a if case.smaller_is_better else a / b for a, b in zip(*values.values(), strict=True)]
    share = flops / case.seconds(ours) / statistics.median(peaks) if peaks else None
    return {
        "name": case.name,
        "case": case.case,
        "ours": _round(ours),
        "peer": _round(peer),
        "peer_name": case.peer_name,
        "peer_setting": case.peer_setting,
        "unit": case.unit,
        "ratio": _round(statistics.median(ratios)),
        "share_of_peak": share and _round(share),
        "peak_rss_mib": {side: round(max(memory[side])) for side in memory},
        "runs": runs,
        "ours_runs": [_round(value) for value in values["ours"]],
        "peer_runs": [_round(value) for value in values["peer"]],
        "disagreement": error and _round(error),
        "idle_cpu_share": round(idle, 3),
        "device": device,
        "machine": machine(answer["device_name"]),
        "threads": answer["threads"],
        "versions": answer["versions"],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _turns(case: Case, runs: int, seconds: float, device: str) -> Iterator[tuple[Side, dict[str, Any]]]:
    """Both sides' answers, alternating; ours also carry the matrix product peak where there are FLOPs to compare."""
    sides: tuple[Side, Side] = ("ours", "peer")
    workers: dict[Side, Worker] = {}
    try:
        for _ in range(runs):
            for side in sides:
                if side not in workers:
                    workers[side] = Worker(case, side, device)
                    workers[side].ask("build")
                answer = workers[side].ask("measure", seconds=seconds)
                if side == "ours" and answer["flops"]:
                    answer |= workers[side].ask("peak")
                yield side, answer
                if case.fresh:
                    workers.pop(side).close()
    finally:
        for worker in workers.values():
            worker.close()


def _doubt(case: Case, values: dict[Side, list[float]], idle: float) -> None:
    """Say on standard error when something else was at work on the machine."""
    where = f"{case.name} {case.case}: the numbers are doubtful,"
    if idle > IDLE_LIMIT:
        sys.stderr.write(f"{where} a waiting process used {idle:.0%} of a core\n")
    for side, runs in values.items():
        if max(runs) > SPREAD_LIMIT * min(runs):
            sys.stderr.write(f"{where} {side} differed by {max(runs) / min(runs):.1f} times between rounds\n")


def _disagreement(case: Case, ours: list[float] | None, peer: list[float] | None) -> float:
    """Largest difference of the first results, as a share of the largest value; too large is an error."""
    where = f"{case.name} {case.case}"
    if ours is None or peer is None or len(ours) != len(peer):
        raise BenchmarkError(f"{where}: the two sides return different shapes, they are not the same work")
    scale = max(map(abs, peer)) or 1.0
    error = max(abs(a - b) for a, b in zip(ours, peer, strict=True)) / scale
    if not error <= (case.tolerance or 0.0):  # not `>`: a NaN must not pass
        raise BenchmarkError(f"{where}: first results differ by {error:.3g} of their size, allowed {case.tolerance}")
    return error


def _round(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}") if math.isfinite(value) else value


@cache
def machine(device_name: str = "") -> str:
    """The machine in words: processor, cores, matrix units, memory, and the accelerator if one was used."""
    cpu, flags = platform.processor() or platform.machine(), ""
    if (info := Path("/proc/cpuinfo")).exists():
        rows = dict(row.split(":", 1) for row in info.read_text().splitlines() if ":" in row)
        fields = {key.strip(): value.strip() for key, value in rows.items()}
        cpu, flags = fields.get("model name", cpu), fields.get("flags", "")
    units = [name for flag, name in (("avx512f", "AVX-512"), ("amx_bf16", "AMX")) if flag in flags.split()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [f"{cpu}, {cores} cores", *units, f"{measure.total_memory() / 2**30:.0f} GiB", device_name]
    return ", ".join(part for part in parts if part)


def describe(case: Case) -> dict[str, Any]:
    """What `--list` says of a case."""
    return {key: value for key, value in asdict(case).items() if key in _LISTED}


_LISTED = ("name", "case", "unit", "peer_name", "peer_setting", "opt_in")
