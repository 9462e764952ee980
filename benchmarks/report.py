"""Results on disk, `results/<name>.jsonl`, one line per run, and the tables of `docs/performance.md` made from them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN = "<!-- benchmarks: begin (written by `python -m benchmarks --write-docs`) -->"
END = "<!-- benchmarks: end -->"

HEAD = ("benchmark", "case", "ours", "peer", "unit", "ratio", "of peak", "memory, MiB (ours / peer)", "runs", "date")

Result = dict[str, Any]


def keep(result: Result, folder: Path = RESULTS) -> None:
    """Append one run."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{result['name']}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def read(folder: Path = RESULTS) -> list[Result]:
    """Every run kept, by name, oldest first."""
    lines = (line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines())
    return [json.loads(line) for line in lines if line.strip()]


def latest(results: Iterable[Result]) -> list[Result]:
    """The last run of each case on each machine and device."""
    last: dict[tuple[str, ...], Result] = {}
    for result in results:
        last[tuple(result[key] for key in ("machine", "device", "name", "case"))] = result
    return [last[key] for key in sorted(last)]


def tables(results: Iterable[Result]) -> str:
    """Markdown: one table per machine, one row per case."""
    by_machine: dict[str, list[Result]] = {}
    for result in latest(results):
        by_machine.setdefault(result["machine"], []).append(result)
    if not by_machine:
        return "No run has been kept yet.\n"
    return "\n".join(_table(machine, rows) for machine, rows in by_machine.items())


def _table(machine: str, rows: list[Result]) -> str:
    lines = [f"### {machine}", "", _row(HEAD), _row(["---"] * len(HEAD))]
    notes: dict[str, str] = {}
    for row in rows:
        share = row["share_of_peak"]
        memory = row["peak_rss_mib"]
        notes[f"`{row['name']}` {row['case']}"] = f"{_peer(row)}, {row['peer_setting']}"
        cells = (
            f"`{row['name']}`",
            row["case"],
            number(row["ours"]),
            number(row["peer"]),
            row["unit"],
            f"**{number(row['ratio'])} ×**",
            "" if share is None else f"{share:.0%}",
            f"{memory['ours']:,} / {memory['peer']:,}",
            str(row["runs"]),
            row["date"][:10],
        )
        lines.append(_row(cells))
    lines += ["", "Peers and their settings:", ""]
    lines += [f"- {case}: {setting}" for case, setting in notes.items()]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _peer(row: Result) -> str:
    version = row["versions"].get(row["peer_name"], "")
    return f"{row['peer_name']} {version}".strip()


def number(value: float) -> str:
    """Three significant digits, thousands separated: 0.0123, 4.57, 12.3, 8,190."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def summary(result: Result) -> str:
    """One line for a person at a terminal."""
    share = result["share_of_peak"]
    note = "" if share is None else f", {share:.0%} of the matrix product peak"
    return (
        f"{result['name']} {result['case']}: ours {number(result['ours'])} {result['unit']}, "
        f"{result['peer_name']} {number(result['peer'])} {result['unit']}, {number(result['ratio'])} × better{note}"
    )


def write_docs(page: Path = PAGE, folder: Path = RESULTS) -> None:
    """Replace what stands between the markers of the page; a page without them is a ValueError."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{page}: expected the lines `{BEGIN}` and `{END}` once each, in this order")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{tables(read(folder))}\n{END}{after}", encoding="utf-8")
