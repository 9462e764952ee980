"""The command `pictura`: one verb each, `--json` on all that measure, and a `-h` whose example runs.

A user's mistake ends with exit code 2 and one line. Verbs import what they need when they run, so `-h` is immediate.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pictura import __version__

Values = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        answer = arguments.verb(arguments)
    except (ValueError, OSError, ArithmeticError) as error:
        say(f"pictura {arguments.name}: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        say(f"pictura {arguments.name}: interrupted")
        return 130
    if arguments.json:
        sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def say(line: str) -> None:
    """One line for people, on stderr, where it does not mix with `--json`."""
    sys.stderr.write(line + "\n")


def parser() -> argparse.ArgumentParser:
    """All verbs, their arguments and examples."""
    top = argparse.ArgumentParser(
        "pictura",
        description="Train, adapt, measure and serve vision-language models on the hardware you have.",
        epilog="example: pictura demo",
    )
    top.add_argument("--version", action="version", version=f"pictura {__version__}")
    verbs = top.add_subparsers(dest="name", required=True, metavar="verb")

    def verb(function: Any, help: str, example: str) -> argparse.ArgumentParser:
        name = function.__name__.removesuffix("_")
        p = verbs.add_parser(
            name,
            help=help,
            description=help,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        p.add_argument("--json", action="store_true", help="print one JSON object on the last line")
        p.set_defaults(verb=function)
        return p

    p = verb(
        demo, "Train a CLIP on the built-in picture world and show what it can do.", "pictura demo --out runs/demo"
    )
    p.add_argument("--out", type=Path, default=Path("runs/demo"), help="run folder (default: runs/demo)")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe")

    p = verb(train, "Train a recipe, or go on with a run.", "pictura train demo training.steps=20 --out runs/short")
    p.add_argument("recipe", nargs="?", help="a recipe's name (pictura list recipes) or a .yaml file")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as loader.batch_size=512")
    p.add_argument("--out", type=Path, help="run folder (default: runs/NAME)")
    p.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")

    p = verb(evaluate, "Measure a model.", "pictura evaluate runs/demo/model --on demo --report report.html")
    p.add_argument("model", help="a model folder")
    p.add_argument("--on", required=True, help="a recipe whose `evaluation` to run: a name or a .yaml file")
    p.add_argument("--report", type=Path, help="write a page with pictures here")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to that recipe")

    p = verb(
        classify,
        "Zero-shot classification of pictures.",
        'pictura classify runs/demo/model a.png --labels "red star,blue ring"',
    )
    p.add_argument("model", help="a model folder")
    p.add_argument("images", nargs="+", type=Path, help="picture files")
    p.add_argument("--labels", required=True, help="comma-separated, or a text file of one label a line")
    p.add_argument("--templates", default="plain", help="sentences around the labels: a set's name, or one with {}")
    p.add_argument("--top", type=int, default=5, help="how many labels to show (default: 5)")

    p = verb(
        embed,
        "Pictures or texts to unit vectors, saved as .npy.",
        "pictura embed runs/demo/model *.png --out vectors.npy",
    )
    p.add_argument("model", help="a model folder")
    p.add_argument("images", nargs="*", type=Path, help="picture files")
    p.add_argument("--texts", type=Path, help="a text file instead, one text a line")
    p.add_argument("--out", type=Path, required=True, help="where the array [n e] goes, float32")

    p = verb(plan, "Parameters, FLOPs, memory and time of a recipe, before spending them.", "pictura plan demo")
    p.add_argument("recipe", help="a recipe's name or a .yaml file")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe")

    p = verb(list_, "What there is.", "pictura list recipes")
    p.add_argument("what", choices=("models", "recipes", "data"), help="what to list")
    return top


def demo(a: argparse.Namespace) -> Values:
    from pictura.run import demo as run

    return run(a.out, a.overrides, say)


def train(a: argparse.Namespace) -> Values:
    from pictura import run

    overrides = list(a.overrides)
    if a.resume is not None:
        if a.recipe is not None:
            overrides.insert(0, a.recipe)
        if any("=" not in item for item in overrides):
            raise ValueError("--resume goes on with a run's own recipe; give only key=value changes beside it")
        return run.train(None, a.resume, resume=True, overrides=overrides, say=say)
    if a.recipe is None:
        raise ValueError("give a recipe (pictura list recipes), or --resume RUN")
    recipe = run.read_recipe(a.recipe, overrides)
    return run.train(recipe, a.out or Path("runs") / Path(a.recipe).stem, say=say)


def evaluate(a: argparse.Namespace) -> Values:
    from pictura import run

    metrics = run.evaluate(a.model, run.read_recipe(a.on, a.overrides), a.report)
    table("metric", {name: f"{value:.4f}" for name, value in metrics.items()})
    if a.report:
        say(f"report: {a.report}")
    return dict(metrics)


def classify(a: argparse.Namespace) -> Values:
    from pictura import run

    labels = run.read_labels(a.labels)
    answers = run.load(a.model).classify(a.images, labels, templates=a.templates)
    out: Values = {}
    for path, answer in zip(a.images, answers, strict=True):
        best = dict(sorted(answer.items(), key=lambda item: -item[1])[: a.top])
        out[str(path)] = best
        table(str(path), {label: f"{p:.1%}" for label, p in best.items()})
    return out


def embed(a: argparse.Namespace) -> Values:
    from pictura import run

    if bool(a.images) == bool(a.texts):
        raise ValueError("give picture files, or --texts FILE: one of the two")
    model = run.load(a.model)
    vectors = model.embed_texts(run.read_lines(a.texts)) if a.texts else model.embed_images(a.images)
    run.save_array(a.out, vectors)
    say(f"{a.out}: {vectors.shape[0]} vectors of {vectors.shape[1]}")
    return {"path": str(a.out), "shape": list(vectors.shape)}


def plan(a: argparse.Namespace) -> Values:
    from pictura import run

    facts = run.plan(run.read_recipe(a.recipe, a.overrides))
    table(
        "plan", {name: f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" for name, value in facts.items()}
    )
    return facts


def list_(a: argparse.Namespace) -> Values:
    from pictura import run

    rows = run.catalogue(a.what)
    table(a.what, rows)
    return dict(rows)


def table(title: str, rows: dict[str, str]) -> None:
    """Two columns on stderr."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title, title_justify="left", show_header=False, box=None)
    for name, value in rows.items():
        grid.add_row(name, value)
    Console(stderr=True).print(grid)
