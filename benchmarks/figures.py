"""The figures in README.md: what the demo reached, from the JSON object that its run printed.

    make demo ARGS=--json > benchmarks/results/demo.json
    .venv/bin/python -m benchmarks.figures

The first command keeps the run as it was printed; the second adds the date and the machine (so run it where the demo
ran) and how many answers there were to choose from, and writes the table between the markers of the README.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import report
from .harness import machine

RUN = report.RESULTS / "demo.json"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- demo -->", "<!-- /demo -->"
NONE = "No run has been kept yet.\n"

ROWS = {  # metric: what a person asks; a metric that the run did not measure has no row
    "zeroshot/shape/top1": "which shape is it",
    "zeroshot/colour/top1": "which colour is it",
    "zeroshot/seen/top1": "which colour and shape is it",
    "zeroshot/heldout/top1": "the same, of pairs that training never showed together",
    "retrieval/image_to_text/R@1": "the caption of a picture",
    "retrieval/text_to_image/R@1": "the picture of a caption",
}
NEEDED = {*ROWS} - {"zeroshot/seen/top1"} | {"seconds"}

Run = dict[str, Any]


def read(path: Path = RUN) -> Run:
    """The object on the last line of `path`: what `pictura demo --json` printed. ValueError where it is none."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    try:
        run = json.loads(lines[-1])
    except (IndexError, ValueError):
        run = None
    if not isinstance(run, dict) or (missing := NEEDED - run.keys()):
        lack = f", it has no {min(missing)}" if isinstance(run, dict) else ""
        raise ValueError(f"{path}: its last line is not what `pictura demo --json` prints{lack}")
    return run


def stamp(path: Path = RUN) -> Run:
    """The run with its date, its machine and the number of choices behind each figure, kept from now on."""
    run = read(path)
    if "date" not in run:
        import torch  # here: a table needs none of it

        from pictura.recipe import read_recipe

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        ended = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        choices = {name: of for name, of in _choices(read_recipe("demo").evaluation).items() if name in run}
        run |= {"choices": choices, "machine": machine(gpu), "date": ended.isoformat(timespec="seconds")}
        path.write_text(json.dumps(run) + "\n", encoding="utf-8")
    return run


def _choices(evaluation: dict[str, Any]) -> dict[str, int]:
    """Metric -> how many answers there are to choose from."""
    from pictura.evaluation.retrieval import Retrieval
    from pictura.evaluation.zeroshot import ZeroShot

    found: dict[str, int] = {}
    for evaluator in (config.build() for config in evaluation.values()):
        if isinstance(evaluator, ZeroShot):
            found[f"{evaluator.title}/top1"] = len(evaluator.names)
        if isinstance(evaluator, Retrieval):
            both = ("image_to_text", "text_to_image")
            found |= {f"{evaluator.title}/{way}/R@1": len(evaluator.source) for way in both}
    return found


def table(run: Run) -> str:
    """Markdown: a row for each figure, then where and when."""
    lines = ["| asked about fresh scenes | right at first answer | of how many |", "| --- | ---: | ---: |"]
    lines += [
        f"| {asked} | {run[name]:.1%} | {run['choices'].get(name, ''):,} |"
        for name, asked in ROWS.items()
        if name in run
    ]
    day = datetime.fromisoformat(run["date"])
    made = f"`make demo`, {run['seconds'] / 60:.1f} minutes after installation"
    return "\n".join(lines) + f"\n\n{made}, on {run['machine']}; {day.day} {day:%B %Y}.\n"


def between(text: str, path: Path = README) -> tuple[str, str, str]:
    """What stands before, between and after the markers, the markers left out. ValueError where they are not there."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{path}: expected the lines `{BEGIN}` and `{END}` once each, in this order")
    before, rest = text.split(BEGIN)
    inside, after = rest.split(END)
    return before, inside.strip("\n") + "\n", after


def write(readme: Path = README, run: Path = RUN) -> None:
    """Replace what stands between the markers of the README."""
    before, _, after = between(readme.read_text(encoding="utf-8"), readme)
    inside = table(stamp(run)) if run.exists() else NONE
    readme.write_text(f"{before}{BEGIN}\n{inside}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    try:
        write()
    except (ValueError, OSError) as error:
        sys.exit(f"python -m benchmarks.figures: {error}")
