"""`pictura evaluate`."""

import argparse
import os
from pathlib import Path

from pictura.verbs.common import Answer, check_place, read_data, say, show

ABOUT = "Measure a model, or several side by side, by a recipe or by what data allow."
EXAMPLES = (
    "pictura evaluate runs/demo/model --on demo --report report.html",
    "pictura evaluate runs/demo/model --on kinds/test --train kinds/train --report report.html",
    "pictura evaluate runs/demo/model runs/other/model --on kinds/test --csv both.csv",
    "pictura evaluate runs/demo/model --on kinds/train --shifted kinds/test --report report.html",
)


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "given",
        nargs="+",
        metavar="MODEL|key=value",
        help="models: folders or files of weights, ours or others'; hub names; and changes to the recipe",
    )
    p.add_argument("--on", required=True, help="a recipe, whose `evaluation` to run; or data: folder, table, .yaml")
    p.add_argument("--train", help="labelled data of the same classes, for probes and few-shot")
    p.add_argument("--shifted", help="other labelled pictures of the same classes: what is lost on them")
    p.add_argument("--templates", default="simple", help="sentences around the class names (default: simple)")
    p.add_argument("--report", type=Path, help="write a page with pictures here")
    p.add_argument("--csv", type=Path, help="write a table here: model, metric, value, difference from the first")
    p.set_defaults(rest="given")


def answer(a: argparse.Namespace) -> Answer:
    from pictura.evaluation.comparison import as_csv, compare, heads, rows
    from pictura.evaluation.suite import suite
    from pictura.output.files import write_text
    from pictura.recipe import evaluation_of, is_data, read_recipe

    for option, path in (("--report", a.report), ("--csv", a.csv)):
        if path is not None:
            check_place(option, path)
    overrides = [word for word in a.given if "=" in word and not os.path.exists(word)]
    models = [word for word in a.given if word not in overrides]
    if not models:
        raise ValueError(f"give a model; {overrides[0]} is a change to a recipe")
    if len(set(models)) < len(models):
        raise ValueError(f"{next(m for m in models if models.count(m) > 1)} is given twice")
    if is_data(a.on):
        if overrides:
            raise ValueError(f"{overrides[0]}: data have nothing to change; name a recipe by --on, or leave it out")
        data = read_data(a.on)
        train, shifted = (None if given is None else read_data(given) for given in (a.train, a.shifted))
        measured = compare(models, lambda model: suite(model, data, train, a.templates, shifted), a.report)
    else:
        for option, given in (("--train", a.train), ("--shifted", a.shifted)):
            if given is not None:
                raise ValueError(f"{option}: a recipe names its own data; leave it out, or give data by --on")
        recipe = read_recipe(a.on, overrides)
        measured = compare(models, lambda _: evaluation_of(recipe), a.report)
    show(a, models[0] if len(models) == 1 else "", rows(measured), heads(measured) if len(models) > 1 else ())
    if a.csv is not None:
        write_text(a.csv, as_csv(measured))
        say(f"table: {a.csv}")
    if a.report:
        say(f"report: {a.report}")
    if len(measured) == 1:
        return measured[0].metrics
    differences = {one.name: {k: list(v) for k, v in one.less(measured[0]).items()} for one in measured[1:]}
    return {"models": {one.name: dict(one.metrics) for one in measured}, "differences": differences}
