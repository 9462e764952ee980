"""How long a program waits before it can begin: `import pictura`, in a fresh interpreter each time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from . import measure
from .harness import MIB, Case


@dataclass(frozen=True, kw_only=True)
class ImportTime(Case):
    """Wall time of a whole `python -c "import X"`, the interpreter's start included: what a person waits."""

    theirs: str

    warm_up: ClassVar[int] = 2  # bytecode written, files in the page cache

    def ours(self, device: str) -> Callable[[], None]:
        return lambda: run("pictura")

    def peer(self, device: str) -> Callable[[], None]:
        return lambda: run(self.theirs)

    def peak_memory(self, device: str) -> float:
        return measure.children_peak_memory() / MIB


def run(module: str) -> None:
    """Start Python, import the module, leave."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # bytecode as users have it
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, stdin=subprocess.DEVNULL, env=environment)


CASES = (
    ImportTime(
        name="import_time", case="package", unit="ms", theirs="open_clip",
        peer_setting="`import open_clip`, bytecode cached, files in the page cache",
    ),
)  # fmt: skip
