"""Studies that train: each run is kept when it ends, so an interrupted script goes on; pages are written from there."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from datetime import UTC, datetime
from multiprocessing import get_context
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


def keep(name: str, run: Run) -> None:
    """Add a run to those that were made."""
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(run) + "\n")


def train_missing(
    name: str, runs: Iterable[Run], train: Callable[[Run], Run], told: str, seconds: float, jobs: int = 1
) -> None:
    """Make the runs that are not kept yet, beginning none after `seconds`; a line for each on standard error.

    A run is known by its facts; `train` adds what came out. `told`: which of these the line shows. jobs: so many at a
    time, in processes that share the cores.
    """
    done = kept(name)
    missing = [run for run in runs if not any(run.items() <= other.items() for other in done)]
    for number, (run, result) in enumerate(made(missing, train, time.monotonic() + seconds, jobs), 1):
        keep(name, result)
        facts = " ".join(str(value) for value in run.values())
        sys.stderr.write(
            f"{number} of {len(missing)}: {facts}: {told} {result[told]:.1%} in {result['seconds']:.0f} s\n"
        )


def made(runs: list[Run], train: Callable[[Run], Run], end: float, jobs: int) -> Iterator[tuple[Run, Run]]:
    """Each run with all that is known of it, as it ends."""
    if jobs == 1:
        yield from ((run, timed(train, run)) for run in runs if time.monotonic() < end)
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))  # read as a process begins
    waiting, going = iter(runs), {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1) as pool:
        while True:
            while len(going) < jobs and time.monotonic() < end and (run := next(waiting, None)) is not None:
                going[pool.submit(timed, train, run)] = run
            if not going:
                return
            for future in wait(going, return_when=FIRST_COMPLETED).done:
                yield going.pop(future), future.result()


def timed(train: Callable[[Run], Run], run: Run) -> Run:
    """A run's facts, what came out, and where and when."""
    began = time.perf_counter()
    result = run | train(run)
    result |= {"seconds": round(time.perf_counter() - began, 1), "machine": machine()}
    return result | {"date": datetime.now(UTC).isoformat(timespec="seconds")}


def of_models(
    name: str, about: str, subjects: Mapping[str, str], measured: Callable[[Run, Path], Run], write: Callable[..., None]
) -> int:
    """The command of a study that asks trained models: {subject: the run whose model it asks}. Each subject is measured
    when that model is there, and kept; with `--write`, `write({subject: run})` makes the page."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the folder of the runs (default: runs)")
    parser.add_argument("--write", action="store_true", help="write the page from what is kept, measure nothing")
    arguments = parser.parse_args()
    done = {run["subject"]: run for run in kept(name)}
    if arguments.write:
        if not done:
            parser.error("nothing has been measured yet; leave out --write")
        write(done)
        return 0
    for subject, trained in subjects.items():
        if subject in done:
            continue
        if not (arguments.runs / trained / "model").is_dir():
            sys.stderr.write(f"{subject}: not measured, there is no {arguments.runs / trained / 'model'}\n")
            continue
        keep(name, timed(lambda one: measured(one, arguments.runs), {"subject": subject}))
        sys.stderr.write(f"{subject}: measured\n")
    return 0


def write_between(page: Path, mark: str, text: str) -> None:
    """What stands between `<!-- mark -->` and `<!-- /mark -->` on a page becomes `text`."""
    before, rest = page.read_text().split(f"<!-- {mark} -->")
    after = rest.split(f"<!-- /{mark} -->")[1]
    page.write_text(f"{before}<!-- {mark} -->\n{text}\n<!-- /{mark} -->{after}")
