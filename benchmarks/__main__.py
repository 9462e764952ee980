"""The command: `python -m benchmarks --list`, `NAME… [--case CASE] [--json]`, `--write-docs`."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from . import report
from .harness import BenchmarkError, Case, compare, describe, find_cases

EXAMPLE = """examples:
  python -m benchmarks --list
  python -m benchmarks import_time --json
  python -m benchmarks clip_train_step --case demo_batch256 --runs 3
  python -m benchmarks --all --device cuda
  python -m benchmarks --write-docs
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure Pictura against its peers, in turn on this machine. A ratio above 1: ours is better.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; --list shows them")
    result.add_argument("--list", action="store_true", help="show every benchmark and case")
    result.add_argument("--all", action="store_true", help="run every case that is not opt-in")
    result.add_argument("--case", action="append", default=[], help="only this case; may be repeated")
    result.add_argument("--runs", type=int, help="rounds of A B (default: the case's own, 15 for times, 2 for memory)")
    result.add_argument("--seconds", type=float, default=1.0, help="length of one side's turn (default 1)")
    result.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where both sides run (default cpu)")
    result.add_argument("--json", action="store_true", help="one JSON object per case on standard output")
    result.add_argument("--results", type=Path, default=report.RESULTS, help="folder where runs are kept")
    result.add_argument("--no-keep", action="store_true", help="do not keep these runs")
    result.add_argument("--write-docs", action="store_true", help="write docs/performance.md from the runs kept")
    return result


def choose(cases: Sequence[Case], names: Sequence[str], wanted: Sequence[str]) -> list[Case]:
    """The cases asked for; a name that does not exist is a ValueError that says the nearest one."""
    _known("benchmark", names, sorted({case.name for case in cases}))
    chosen = [case for case in cases if not names or case.name in names]
    _known("case", wanted, [case.case for case in chosen])
    return [case for case in chosen if (case.case in wanted if wanted else not case.opt_in)]


def _known(what: str, asked: Sequence[str], known: Sequence[str]) -> None:
    for name in asked:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"{name}: no such {what}; {hint}")


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all measured; 1: a case failed; 2: the command line is wrong."""
    cli = parser()
    options = cli.parse_args(arguments)
    try:
        if options.list:
            _list(find_cases(), options.json)
        elif options.names or options.all:
            cases = choose(find_cases(), options.names, options.case)
            if options.runs is not None and options.runs < 1:
                raise ValueError(f"--runs {options.runs}: give at least 1")
            return _run(cases, options)
        elif not options.write_docs:
            raise ValueError("name a benchmark, or use --list, --all or --write-docs")
        if options.write_docs:
            report.write_docs(folder=options.results)
    except ValueError as error:
        sys.stderr.write(f"{cli.prog}: {error}\n")
        return 2
    return 0


def _list(cases: Sequence[Case], as_json: bool) -> None:
    for case in cases:
        row = describe(case)
        if as_json:
            print(json.dumps(row))
        else:
            print(f"{row['name']:<20} {row['case']:<32} {row['unit']:<11} {row['peer_name']}, {row['peer_setting']}"
                  f"{' (opt-in)' if row['opt_in'] else ''}")  # fmt: skip


def _run(cases: Sequence[Case], options: argparse.Namespace) -> int:
    failed = 0
    for case in cases:
        try:
            result = compare(case, runs=options.runs, seconds=options.seconds, device=options.device)
        except BenchmarkError as error:
            sys.stderr.write(f"{error}\n")
            failed += 1
            continue
        if not options.no_keep:
            report.keep(result, options.results)
        print(json.dumps(result) if options.json else report.summary(result), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
