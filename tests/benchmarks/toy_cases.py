"""Tiny cases for the harness's own tests; imported by name in its worker processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.harness import Case, MemoryCase

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Sum(Case):
    """The sum of some numbers, twice; the peer adds `off`."""

    peer_name: str = "nobody"
    peer_setting: str = "the same sum"
    off: float = 0.0

    def ours(self, device: str) -> Callable[[], float]:
        sys.stdout.write("a library says hello\n")  # must not get among the answers
        return lambda: float(sum(range(1000)))

    def peer(self, device: str) -> Callable[[], float]:
        return lambda: float(sum(range(1000))) + self.off


@dataclass(frozen=True, kw_only=True)
class Broken(Sum):
    """A peer that raises, or that leaves without a word."""

    code: int = 0

    def peer(self, device: str) -> Callable[[], float]:
        if self.code:
            os._exit(self.code)
        raise ValueError("no such setting")


@dataclass(frozen=True, kw_only=True)
class Hold(MemoryCase):
    """Holds some MiB for a moment: ours 16, the peer 64; both then return one number."""

    peer_name: str = "nobody"
    peer_setting: str = "four times as much"

    def ours(self, device: str) -> Callable[[], float]:
        return lambda: float(len(b"x" * (16 * MIB)) > 0)

    def peer(self, device: str) -> Callable[[], float]:
        return lambda: float(len(b"x" * (64 * MIB)) > 0)


CASES = (
    Sum(name="toy", case="rate", unit="numbers/s", items=1000, tolerance=0.0),
    Sum(name="toy", case="milliseconds", unit="ms", opt_in=True),
    Sum(name="toy", case="disagrees", unit="numbers/s", off=5e3, tolerance=1e-3),
    Sum(name="toy", case="nan", unit="numbers/s", off=float("nan"), tolerance=1e-3),
    Broken(name="toy", case="raises", unit="ms"),
    Broken(name="toy", case="dies", unit="ms", code=3),
    Hold(name="toy_memory", case="hold", tolerance=0.0),
)
