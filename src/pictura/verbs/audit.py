"""`pictura audit`."""

import argparse
from pathlib import Path

from pictura.verbs.common import Answer, check_place, read_data, reads_model, say, show

ABOUT = "Where a model that reads texts should not be trusted: on drawn scenes, or on pictures of one's own."
EXAMPLES = (
    "pictura audit runs/demo/model --report audit.html",
    "pictura audit runs/demo/model --on kinds/test --train kinds/train --outside more --report audit.html",
)


def arguments(p: argparse.ArgumentParser) -> None:
    reads_model(p)
    p.add_argument("--on", help="labelled data: a folder of class folders, a table, a .yaml (default: drawn scenes)")
    p.add_argument("--train", help="labelled data of the same classes, for few-shot")
    p.add_argument("--outside", help="pictures of none of the classes of --on, with or without labels")
    p.add_argument("--templates", default="simple", help="sentences around the class names of --on (default: simple)")
    p.add_argument("--pictures", type=int, default=600, help="how many scenes of each kind are drawn (default: 600)")
    p.add_argument("--report", type=Path, help="write a page with pictures here")


def answer(a: argparse.Namespace) -> Answer:
    from pictura.evaluation.audit import findings, panel
    from pictura.evaluation.comparison import compare
    from pictura.evaluation.suite import drawn_limits, limits

    if a.report is not None:
        check_place("--report", a.report)
    if a.on is None and a.train is not None:
        raise ValueError("--train: is of the same classes as --on; give both, or neither")
    if a.on is None and a.outside is not None:
        raise ValueError("--outside: is of none of the classes of --on; give both, or neither")
    if a.pictures < 100:
        raise ValueError(f"--pictures: {a.pictures} are too few to tell a limit from chance; give 100 or more")
    train, outside = (None if given is None else read_data(given) for given in (a.train, a.outside))
    chosen = drawn_limits(a.pictures) if a.on is None else limits(read_data(a.on), train, a.templates, outside)
    (measured,) = compare([a.model], lambda _: chosen, a.report, lambda metrics: panel(findings(metrics)))
    found = findings(measured.metrics)
    show(a, a.model, [(one.what, one.verdict, one.found) for one in found], ("limit", "trust", "found"))
    if a.report is not None:
        say(f"report: {a.report}")
    return {"findings": [vars(one) for one in found], "metrics": dict(measured.metrics)}
