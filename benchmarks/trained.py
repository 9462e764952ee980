"""Studies that train: each run is kept when it ends, so an interrupted script goes on; pages are written from there."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import report
from .harness import machine

Run = dict[str, Any]
RESULTS = report.RESULTS / "trained"
DOCS = Path(__file__).parent.parent / "docs"


def kept(name: str) -> list[Run]:
    """The runs of a study that were made so far."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def train_missing(name: str, runs: Iterable[Run], train: Callable[[Run], Run], told: str, seconds: float) -> None:
    """Make the runs that are not kept yet, beginning none after `seconds`; a line for each on standard error.

    A run is known by its facts; `train` adds what came out. `told`: which of these the line shows.
    """
    end, done = time.monotonic() + seconds, kept(name)
    missing = [run for run in runs if not any(run.items() <= other.items() for other in done)]
    for number, run in enumerate(missing, 1):
        if time.monotonic() > end:
            break
        began = time.perf_counter()
        result = run | train(run)
        took = time.perf_counter() - began
        result |= {"seconds": round(took, 1), "machine": machine()}
        result |= {"date": datetime.now(UTC).isoformat(timespec="seconds")}
        with (RESULTS / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
        facts = " ".join(str(value) for value in run.values())
        sys.stderr.write(f"{number} of {len(missing)}: {facts}: {told} {result[told]:.1%} in {took:.0f} s\n")


def write_between(page: Path, mark: str, text: str) -> None:
    """What stands between `<!-- mark -->` and `<!-- /mark -->` on a page becomes `text`."""
    before, rest = page.read_text().split(f"<!-- {mark} -->")
    after = rest.split(f"<!-- /{mark} -->")[1]
    page.write_text(f"{before}<!-- {mark} -->\n{text}\n<!-- /{mark} -->{after}")
