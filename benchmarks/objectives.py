"""What SimCLR's head, R-Drop and their combination with CLIP are worth on small real pictures, three times over.

    .venv/bin/python -m benchmarks.objectives [STUDY …]     train what is missing
    .venv/bin/python -m benchmarks.objectives --write       tables and plot into docs/objectives.md

`heads`: the recipe `simclr` with no projection head, a linear one and a perceptron (Chen et al. 2020, section 4.2), the
same number of steps each; the head is a thousandth of the arithmetic; and with the fused form of its views. `rdrop`:
the recipe of that name without it, for as many steps and for twice as many (which cost what R-Drop costs), and with
alpha swept. `slip`: CLIP alone, beside SimCLR, and with R-Drop, the same number of floating point operations each.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .trained import DOCS, Run, kept, train_missing, write_between

NAME = "objectives"
SEEDS = (0, 1, 2)
BUDGET = 1.4e13  # floating point operations of a run of `slip`
CLIP = "objectives.simclr=null"
PLAIN = "objectives.class={kind: classification}"
RDROP = "objectives.clip={kind: rdrop, alpha: 1.0, of: {kind: clip}}"

STUDIES: dict[str, dict[str, list[str]]] = {  # arm -> what it changes in the recipe
    "heads": {
        "none": ["objectives.simclr.head=0"],
        "linear": ["objectives.simclr.head=1"],
        "two layers": ["objectives.simclr.head=2"],
        "two layers, fused views": ["objectives.simclr.head=2", "objectives.simclr.view.kind=simclr_fused"],
    },
    "rdrop": {
        "off": [PLAIN],
        "off, twice the steps": [PLAIN, "training.steps=800"],
        "alpha 0.3": ["objectives.class.alpha=0.3"],
        "alpha 0.6": ["objectives.class.alpha=0.6"],
        "alpha 3": ["objectives.class.alpha=3"],
    },
    "slip": {
        "CLIP": [CLIP, "model.image.dropout=0.1"],
        "CLIP + SimCLR": ["model.image.dropout=0.1"],
        "CLIP + R-Drop": [CLIP, RDROP, "model.image.dropout=0.1"],
    },
}
RECIPE = {"heads": "simclr", "rdrop": "rdrop", "slip": "slip"}
SHORTER = {
    "heads": ["training.steps=320", "schedule.warmup=32"],
    "rdrop": ["training.steps=400", "schedule.warmup=40"],
    "slip": [],
}
REFERENCE = {"heads": "two layers", "rdrop": "off", "slip": "CLIP"}  # the arm that the others are compared with
METRIC = {"heads": "probe/top1", "rdrop": "accuracy/top1", "slip": "zeroshot/top1"}
SAYS = {
    "heads": "linear probe on frozen features, CIFAR-10 sample",
    "rdrop": "ViT on the CIFAR-10 sample",
    "slip": "zero-shot, 160 classes of small pictures",
}


def runs(studies: list[str]) -> Iterator[Run]:
    """Every run that there is to make, as the facts that name it."""
    for study in studies:
        for seed in SEEDS:
            for arm in STUDIES[study]:
                yield {"study": study, "arm": arm, "seed": seed}


def train(run: Run) -> Run:
    """What one run reached on pictures it has not seen, and what it took."""
    from pictura.run import read_recipe, train

    words = [*SHORTER[run["study"]], *STUDIES[run["study"]][run["arm"]]]
    words += [f"seed={run['seed']}", "training.save_every=1000000"]
    recipe = read_recipe(RECIPE[run["study"]], words)
    if run["study"] == "slip":
        steps = round(BUDGET / flops_of_a_step(recipe))
        recipe = read_recipe(RECIPE["slip"], [*words, f"training.steps={steps}"])
    with tempfile.TemporaryDirectory() as scratch:
        found = train(recipe, Path(scratch) / "run", say=lambda _: None)
    metrics = {name: value for name, value in found.items() if name.endswith(("/top1", "/kl", "/top5"))}
    return {"top1": found[METRIC[run["study"]]], "steps": recipe.training.steps, "metrics": metrics}


def flops_of_a_step(recipe: Any) -> float:
    """Counted on two examples, forward and backward."""
    from pictura.prepare import prepare
    from pictura.training.flops import count_flops

    prepared = prepare(recipe)
    batch = next(iter(prepared.batches.iterate()))
    return count_flops(prepared.task, {k: v[:2] for k, v in batch.items()}) * recipe.loader.batch_size


def arms(done: list[Run], study: str) -> dict[str, dict[int, float]]:
    """arm -> seed -> top-1, of those that are there."""
    found = {
        arm: {r["seed"]: r["top1"] for r in done if (r["study"], r["arm"]) == (study, arm)} for arm in STUDIES[study]
    }
    return {arm: values for arm, values in found.items() if len(values) > 1}


def table(done: list[Run], study: str) -> str:
    """A row for each arm: mean with its 95 % interval over seeds, and the difference to the reference, seed by seed."""
    from pictura.evaluation.few_shot import half_width

    found = arms(done, study)
    reference = found.get(REFERENCE[study], {})
    steps = {r["arm"]: r["steps"] for r in done if r["study"] == study}
    rows = [
        f"| {SAYS[study]} | steps | top-1, % | more than {REFERENCE[study]} | seeds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for arm, values in found.items():
        cells = [f"{steps[arm]:,}", percent(list(values.values()), half_width)]
        more = [values[seed] - reference[seed] for seed in values if seed in reference]
        cells += [percent(more, half_width, "+") if more and values is not reference else "", str(len(values))]
        rows.append(f"| {arm} | " + " | ".join(cells) + " |")
    last = max((r for r in done if r["study"] == study), key=lambda r: r["date"])
    minutes = sum(r["seconds"] for r in done if r["study"] == study) / 60
    return "\n".join([*rows, "", f"{minutes:.0f} minutes in all; {last['machine']}, {last['date'][:10]}."])


def percent(values: list[float], half_width: Any, sign: str = "") -> str:
    half = f" ± {100 * half_width(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):{sign}.1f}{half}"


def plot(done: list[Run], path: Path) -> None:
    """A dot for each run, the mean and its 95 % interval for each arm."""
    import matplotlib.pyplot as plt

    from pictura.evaluation.few_shot import half_width

    plt.rcParams.update({"svg.hashsalt": "pictura", "font.size": 9})
    there = [study for study in STUDIES if arms(done, study)]
    figure, axes = plt.subplots(1, len(there), figsize=(3.4 * len(there), 3.6), squeeze=False)
    for axis, study in zip(axes[0], there, strict=True):
        for place, (arm, values) in enumerate(arms(done, study).items()):
            points = [100 * value for value in values.values()]
            axis.plot([place] * len(points), points, "o", color="C0", alpha=0.4, markersize=4)
            axis.errorbar(
                place, statistics.fmean(points), half_width(points), fmt="s", color="C1", capsize=4, label=arm
            )
        names = list(arms(done, study))
        axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axis.set(ylabel="top-1, %", title=SAYS[study])
        axis.title.set_fontsize(8)
        axis.grid(alpha=0.3, axis="y")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def write(done: list[Run]) -> None:
    """The tables between the markers of docs/objectives.md, and the plot beside it."""
    plot(done, DOCS / "objectives.svg")
    for study in STUDIES:
        if arms(done, study):
            write_between(DOCS / "objectives.md", f"study {study}", table(done, study))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objectives", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"one of {', '.join(STUDIES)} (default: all)")
    parser.add_argument("--write", action="store_true", help="write docs/objectives.md and its plot from the runs kept")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no run after so many seconds")
    arguments = parser.parse_args()
    if unknown := set(arguments.studies) - set(STUDIES):
        parser.error(f"{', '.join(sorted(unknown))}: no such study; there are {', '.join(STUDIES)}")
    if arguments.write:
        write(kept(NAME))
    else:
        train_missing(NAME, runs(arguments.studies or list(STUDIES)), train, "top1", arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
