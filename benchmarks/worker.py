"""One side of one case in a process of its own; started by `harness.Worker`, obeys JSON lines on standard input.

Waiting for a line blocks in the kernel, so a side whose turn it is not uses no processor time. Its answers go to a
private copy of standard output, since libraries may print.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from . import measure
from .harness import Case


class Recorder:
    """Calls the side and keeps what the first call returned, so that the parent can compare the two sides' results."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.first: Any = None
        self.calls = 0

    def __call__(self) -> None:
        result = self.call()
        if self.calls == 0:
            # a copy: the side may reuse its buffers
            self.first = result.detach().float().cpu().clone() if hasattr(result, "detach") else result
        self.calls += 1

    def summary(self) -> list[float] | None:
        """At most 4,096 numbers spread evenly over the first result."""
        if self.first is None or isinstance(self.first, (int, float)):
            return None if self.first is None else [float(self.first)]
        flat = self.first.flatten()
        return [float(x) for x in flat[:: max(1, -(-flat.numel() // 4096))]]


class Clock:
    """Share of one core used between an answer and the next command: an OpenMP team that spins would show here."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def idle(self) -> float:
        wall = time.perf_counter() - self.wall
        return (time.process_time() - self.cpu) / wall if wall > 0.05 else 0.0


def find(module: str, name: str, case: str) -> Case:
    """The case of that name among a module's CASES."""
    cases: list[Case] = importlib.import_module(module).CASES
    return next(found for found in cases if (found.name, found.case) == (name, case))


def device_name(device: str) -> str:
    if device == "cpu":
        return ""
    import torch

    return torch.cuda.get_device_name()


def threads() -> int:
    """Threads that torch computes with, if this side uses torch at all."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else 1


def versions(peer: str) -> dict[str, str]:
    found = {}
    for package in ("torch", peer):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # a peer that is no package of its own, such as a function of torch
    return found


def serve(case: Case, side: str, device: str, answer: Any) -> None:
    """Obey commands until standard input ends: `build`, then any number of `measure` and `peak`."""
    recorder: Recorder | None = None
    clock = Clock()
    for line in sys.stdin:
        idle, command = clock.idle(), json.loads(line)
        reply: dict[str, Any] = {"idle": idle}
        if command["do"] == "build":
            recorder = Recorder(case.ours(device) if side == "ours" else case.peer(device))
            for _ in range(case.warm_up):
                recorder()
            measure.reset_peak(device)
        elif command["do"] == "measure":
            assert recorder is not None, "build comes first"
            reply["value"] = case.measure(recorder, device, command["seconds"])
            reply |= {"memory": case.peak_memory(device), "first": recorder.summary(), "threads": threads()}
            reply["flops"] = case.flops() if side == "ours" else 0.0
            reply |= {"device_name": device_name(device), "versions": versions(case.peer_name)}
        else:
            assert command["do"] == "peak", command
            reply["peak"] = measure.matmul_peak(device, case.dtype)
            measure.reset_peak(device)  # the instrument's matrices are not the side's memory
        answer.write(json.dumps(reply) + "\n")
        answer.flush()
        clock = Clock()


def main() -> None:
    module, name, case, side, device = sys.argv[1:]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    adjust = Path("/proc/self/oom_score_adj")
    if os.access(adjust, os.W_OK):
        adjust.write_text("1000")  # a peer that needs more memory than there is should be the one to fall
    try:
        serve(find(module, name, case), side, device, answer)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever happened is told to the parent
        traceback.print_exc()
        answer.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
        answer.flush()
        sys.exit(1)


if __name__ == "__main__":
    main()
