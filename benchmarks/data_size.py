"""How much data does a ViT need to overtake a ResNet? Measured from scratch, at equal parameters and equal arithmetic.

    .venv/bin/python -m benchmarks.data_size              train what is missing (half an hour on two cores)
    .venv/bin/python -m benchmarks.data_size --write      table and plot into docs/

Dosovitskiy et al. 2021, section 4.3, at a size that one machine can repeat: on shares of the CIFAR-10 sample and of
drawn scenes, a ViT, a Mixer and a ResNet of the same number of parameters each get the same number of floating point
operations, whatever the share, three times over. Each run is kept when it ends, so an interrupted script goes on.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .trained import DOCS, kept, train_missing, write_between

NAME = "data_size"

SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
SEEDS = (0, 1, 2)
BATCH = 100
BUDGET = 2.0e12  # floating point operations of one run, forward and backward
SIDE = 64

MODELS: dict[str, dict[str, Any]] = {  # 0.89, 0.90 and 0.89 million parameters; 29, 31 and 27 MFLOPs a picture
    "ViT": {"kind": "vit", "image_size": SIDE, "width": 128, "depth": 4, "heads": 4, "pool": "average"},
    "Mixer": {"kind": "mixer", "image_size": SIDE, "width": 128, "depth": 6, "tokens": 64, "channels": 512},
    "ResNet": {"kind": "resnet", "image_size": SIDE, "width": 18, "block": "basic", "layers": [2, 2, 2, 2]},
}
RATES = {"ViT": 1e-3, "Mixer": 1e-3, "ResNet": 3e-3}
TRAINED = {"cifar10": 10_000, "scenes": 40_000}


def data(name: str, share: float, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What one run is trained on, and tested on."""
    if name == "cifar10":
        part = {"kind": "shards", "label": "cls", "path": "../shared/data/cifar10/train.tar"}
        test = part | {"path": "../shared/data/cifar10/test.tar"}
        return {"kind": "subset", "of": part, "share": share, "seed": seed}, test
    scenes = {"kind": "scenes", "gives": ["image", "label"], "objects": [1, 1], "image_size": SIDE, "label_of": "shape"}
    count = round(share * TRAINED["scenes"])
    return scenes | {"count": count, "seed": seed}, scenes | {"count": 2000, "split": "fresh", "seed": 99}


def runs() -> Iterator[dict[str, Any]]:
    """Every run that there is to make, as the facts that name it."""
    for seed in SEEDS:
        for share in SHARES:
            for name in TRAINED:
                for model in MODELS:
                    yield {"data": name, "model": model, "share": share, "seed": seed, "lr": RATES[model]}


def train(run: dict[str, Any]) -> dict[str, Any]:
    """What one run reached on pictures it has not seen, and what it took."""
    from pictura.config import load
    from pictura.facts import forward_flops
    from pictura.models.base import ImageTowerConfig
    from pictura.recipe import Recipe
    from pictura.run import train
    from pictura.weights.folder import empty

    tower = load(ImageTowerConfig, MODELS[run["model"]])
    module = empty(tower)
    steps = round(BUDGET / (3 * BATCH * forward_flops(module, tower)))
    source, test = data(run["data"], run["share"], run["seed"])
    flip = run["data"] == "cifar10"
    recipe = load(
        Recipe,
        {
            "seed": run["seed"],
            "model": {"kind": "classifier", "image": MODELS[run["model"]]},
            "objectives": {"class": {"kind": "classification", "label_smoothing": 0.1}},
            "data": source,
            "view": {"kind": "random_crop", "image_size": SIDE, "scale": [0.5, 1.0], "flip": flip},
            "loader": {"batch_size": BATCH, "workers": 0},
            "optimizer": {"kind": "adamw", "lr": run["lr"], "weight_decay": 0.1},
            "schedule": {"kind": "cosine", "warmup": max(1, steps // 20)},
            "training": {"steps": steps, "precision": "bf16", "save_every": 10**6},
            "evaluation": {"test": {"kind": "accuracy", "data": test}},
        },
    )
    with tempfile.TemporaryDirectory() as scratch:
        found = train(recipe, Path(scratch) / "run", say=lambda _: None)
    return {
        "top1": found["accuracy/top1"],
        "parameters": sum(p.numel() for p in module.parameters()),
        "gflops": forward_flops(module, tower) / 1e9,
        "steps": steps,
    }


def try_rates() -> None:
    """What `RATES` were chosen by: each tower at both rates, on scenes of a seed that no run has. Nothing is kept."""
    for model in MODELS:
        for rate in (1e-3, 3e-3):
            result = train({"data": "scenes", "model": model, "share": 0.3, "seed": 7, "lr": rate})
            sys.stderr.write(f"{model} at {rate:g}: {result['top1']:.1%}\n")


def points(done: list[dict[str, Any]], name: str, model: str) -> list[tuple[int, float, float, int]]:
    """(pictures, mean, standard deviation over seeds, seeds) for each share."""
    out = []
    for share in SHARES:
        found = [r["top1"] for r in done if (r["data"], r["model"], r["share"]) == (name, model, share)]
        if found:
            spread = statistics.stdev(found) if len(found) > 1 else 0.0
            out.append((round(share * TRAINED[name]), statistics.mean(found), spread, len(found)))
    return out


def table(done: list[dict[str, Any]], name: str) -> str:
    """Markdown: a row for each number of pictures."""
    columns = {model: {n: (mean, spread) for n, mean, spread, _ in points(done, name, model)} for model in MODELS}
    rows = ["| pictures | " + " | ".join(MODELS) + " |", "| ---: |" + " ---: |" * len(MODELS)]
    for n in sorted({n for column in columns.values() for n in column}):
        cells = [f"{100 * c[n][0]:.1f} ± {100 * c[n][1]:.1f}" if n in c else "" for c in columns.values()]
        rows.append(f"| {n:,} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def plot(done: list[dict[str, Any]], path: Path) -> None:
    """Accuracy over the number of pictures, with the standard deviation over seeds as bars."""
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "pictura", "font.size": 9})
    figure, axes = plt.subplots(1, len(TRAINED), figsize=(9, 3.4))
    for axis, name in zip(axes, TRAINED, strict=True):
        for model in MODELS:
            if found := points(done, name, model):
                n, mean, spread, _ = zip(*found, strict=True)
                percent = [[100 * value for value in values] for values in (mean, spread)]
                axis.errorbar(n, percent[0], percent[1], marker="o", markersize=4, capsize=3, label=model)
        axis.set(xscale="log", xlabel="training pictures", ylabel="top-1, %", title=name)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def write(done: list[dict[str, Any]]) -> None:
    """The tables between the markers of docs/data_size.md, and the plot beside it."""
    plot(done, DOCS / "data_size.svg")
    facts = {model: next((r for r in done if r["model"] == model), None) for model in MODELS}
    sizes = [
        f"| {model} | {r['parameters'] / 1e6:.2f} M | {1000 * r['gflops']:.1f} MFLOPs | {r['steps']:,} | {r['lr']:g} |"
        for model, r in facts.items()
        if r is not None
    ]
    parts = [
        "| tower | parameters | one picture | steps of 100 | learning rate |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    parts += [
        *sizes,
        "",
        f"{len(done)} runs, {BUDGET:.1e} operations each; {done[-1]['machine']}, {done[-1]['date'][:10]}.",
    ]
    for name in TRAINED:
        parts += ["", f"Top-1 on {name}, %, mean ± standard deviation over seeds:", "", table(done, name)]
    write_between(DOCS / "data_size.md", "data size", "\n".join(parts))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_size", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--write", action="store_true", help="write docs/data_size.md and its plot from the runs kept")
    parser.add_argument("--rates", action="store_true", help="compare the learning rates that each tower can have")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no run after so many seconds")
    arguments = parser.parse_args()
    if arguments.write:
        write(kept(NAME))
    elif arguments.rates:
        try_rates()
    else:
        train_missing(NAME, runs(), train, "top1", arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
