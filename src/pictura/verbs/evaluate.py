"""`pictura evaluate`."""

import argparse
from pathlib import Path

from pictura.verbs.common import Answer, check_place, overridable, reads_model, say, show

ABOUT = "Measure a model."
EXAMPLES = ("pictura evaluate runs/demo/model --on demo --report report.html",)


def arguments(p: argparse.ArgumentParser) -> None:
    reads_model(p)
    p.add_argument("--on", required=True, help="a recipe whose `evaluation` to run: a name or a .yaml file")
    p.add_argument("--report", type=Path, help="write a page with pictures here")
    overridable(p)


def answer(a: argparse.Namespace) -> Answer:
    from pictura import run
    from pictura.evaluation.panels import shown

    if a.report:
        check_place("--report", a.report)
    metrics = run.evaluate(a.model, run.read_recipe(a.on, a.overrides), a.report)
    show(a, str(a.model), [(name, shown(name, value)) for name, value in metrics.items()])
    if a.report:
        say(f"report: {a.report}")
    return metrics
