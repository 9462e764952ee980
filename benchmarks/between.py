"""Between a model and what fine-tuning made of it: what it keeps of what it knew, and of what it learnt.

    pictura train demo --out runs/demo
    pictura train photos --out runs/photos
    .venv/bin/python -m benchmarks.between             fine-tune both, measure eleven models between; six minutes
    .venv/bin/python -m benchmarks.between --write     the table and the picture of docs/limits.md

The model of scenes learns another style of drawing, that of photographs CIFAR-10's training pictures; what each knew is
asked of other pictures, and so is what it learnt. As Wortsman et al. (2022, figure 1), the weights between the two are
measured, from share 0, the model before, to 1, the tuned one.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from .limits import CIFAR10, DATA, SCENES, SETS, TINY, config_of, single
from .limits_page import points, table
from .trained import DOCS, Run, of_models, write_between

NAME = "between"
SHARES = tuple(tenth / 10 for tenth in range(11))
STEPS = 100
DRAWN = list(SETS["scenes"])
WRITTEN = list(SETS["photographs"])
MENTIONS = {"one": 1, "shape": 1, "list": 0, "colour": 0, "relation": 0}  # they are merged with the recipe's
CIFAR = {"kind": "shards", "label": "cls"}
SUBJECTS: dict[str, dict[str, Any]] = {  # the run that it begins with, what it learns, what it knew, what it learnt
    "scenes": {
        "run": "demo",
        "data": SCENES | {"split": "style", "objects": [1, 1], "mentions": MENTIONS, "seed": 0},
        "known": {"data": single(label_of="shape"), "templates": DRAWN},
        "new": {"data": single(split="style", label_of="shape"), "templates": DRAWN},
    },
    "photographs": {
        "run": "photos",
        "data": {
            "kind": "captioned", "templates": WRITTEN,
            "of": CIFAR | {"path": str(DATA / "cifar10/train.tar")},
        },
        "known": {"data": TINY, "templates": WRITTEN},
        "new": {
            "data": CIFAR | {"path": str(DATA / "cifar10/test.tar")}, "templates": WRITTEN,
            "class_names": list(CIFAR10),
        },
    },
}  # fmt: skip
HEADS = {
    "scenes": ("shapes as it knew them", "in the new style"),
    "photographs": ("160 classes as it knew them", "CIFAR-10"),
}


def tuned(subject: str, runs: Path) -> Path:
    """The model folder of a short training on the new data, trained where it is not there."""
    from pictura.run import read_recipe, train

    about, folder = SUBJECTS[subject], runs / NAME / subject
    if not (folder / "model").is_dir():
        begun = [f"initial={runs / about['run'] / 'model'}", "model=null", "tokenizer=null"]
        slow = ["optimizer.lr=1e-3", "schedule.warmup=10", f"training.steps={STEPS}"]
        recipe = read_recipe(about["run"], [*begun, *slow, f"data={json.dumps(about['data'])}"])
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
        train(replace(recipe, evaluation={}), folder)
    return folder / "model"


def measured(run: Run, runs: Path) -> Run:
    """Top-1 of what it knew and of what it learnt at each share, and by how much half of each differs from both ends:
    the mean, and its 95 % interval by a paired bootstrap over pictures."""
    from pictura.evaluation.comparison import Measured
    from pictura.evaluation.ready import load
    from pictura.weights.interpolate import blend

    about = SUBJECTS[run["subject"]]
    zero, other = runs / about["run"] / "model", tuned(run["subject"], runs)
    asked = {name: {"kind": "zeroshot", "name": name} | about[name] for name in ("known", "new")}
    evaluators = {name: config_of(given).build() for name, given in asked.items()}
    models = []
    with tempfile.TemporaryDirectory() as scratch:
        for share in SHARES:
            place = Path(scratch) / str(share)
            blend(zero, other, place, share)
            models.append(Measured.by(str(share), evaluators, load(place).embedder))
            sys.stderr.write(f"{run['subject']}, share {share}: {dict(models[-1].metrics)}\n")
    metrics = {name: f"zeroshot/{name}/top1" for name in asked}
    half = models[len(SHARES) // 2]
    ends = {"before": half.less(models[0]), "tuned": half.less(models[-1])}
    return {
        "top1": {name: [one.metrics[metric] for one in models] for name, metric in metrics.items()},
        "half": {end: {name: found[metric] for name, metric in metrics.items()} for end, found in ends.items()},
    }


def page(done: dict[str, Run]) -> str:
    """The table of docs/limits.md."""
    heads = ["share of the tuned model", *(head for subject in done for head in HEADS[subject])]
    rows = [
        [share, *(points(run["top1"][name][i]) for run in done.values() for name in ("known", "new"))]
        for i, share in enumerate(SHARES)
    ]
    for end, found in (("less the model before", "before"), ("less the tuned model", "tuned")):
        values = [run["half"][found][name] for run in done.values() for name in ("known", "new")]
        rows.append([f"half, {end}", *(f"{100 * m:+.1f} ({100 * a:+.1f} to {100 * b:+.1f})" for m, a, b in values)])
    minutes = sum(run["seconds"] for run in done.values()) / 60
    machines = ", ".join({run["machine"] for run in done.values()})
    ended = max(run["date"][:10] for run in done.values())
    told = f"One run each of {STEPS} steps; {minutes:.0f} minutes in all; {machines}, {ended}."
    return f"{table(heads, rows)}\n\n{told}"


def plot(done: dict[str, Run], path: Path) -> None:
    """What it knew, by what it learnt, a point for each share."""
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "pictura", "font.size": 9})
    figure, axes = plt.subplots(1, len(done), figsize=(4 * len(done), 3), squeeze=False)
    for (subject, run), axis in zip(done.items(), axes[0], strict=True):
        known, new = ([100 * value for value in run["top1"][name]] for name in ("known", "new"))
        axis.plot(new, known, marker=".", color="black")
        for i, text, aside in ((0, "before", (4, 4)), (len(SHARES) // 2, "half", (4, 4)), (-1, "tuned", (-34, -3))):
            axis.annotate(text, (new[i], known[i]), xytext=aside, textcoords="offset points")
        axis.set(xlabel=f"{HEADS[subject][1]}, %", ylabel=f"{HEADS[subject][0]}, %", title=subject)
        axis.margins(0.15)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def write(done: dict[str, Run]) -> None:
    """The table between the page's marks, and the picture beside it."""
    write_between(DOCS / "limits.md", NAME, page(done))
    plot(done, DOCS / "between.svg")


def main() -> int:
    asked = {subject: told["run"] for subject, told in SUBJECTS.items()}
    return of_models(NAME, (__doc__ or "").partition("\n")[0], asked, measured, write)


if __name__ == "__main__":
    sys.exit(main())
