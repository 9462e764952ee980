"""What a model trained by the recipe `photos` is worth for other labelled pictures, against the same from scratch.

    pictura train photos --out runs/photos
    .venv/bin/python -m benchmarks.transfer runs/photos/model     six runs, about fifteen minutes on two cores
    .venv/bin/python -m benchmarks.transfer --write               the table in docs/recipes.md

On the CIFAR-10 sample: its frozen features, asked by ridge regression and by SGD; its tower fine-tuned; and the same
tower from fresh weights, frozen, by the recipe of fine-tuning, and by AdamW.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import report
from .harness import machine

RESULTS = report.RESULTS / "trained" / "transfer.jsonl"
PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
BEGIN, END = "<!-- transfer -->", "<!-- /transfer -->"
ADAMW = ["optimizer.kind=adamw", "optimizer.lr=1e-3", "optimizer.weight_decay=0.1"]


def measured(model: Path, scratch: Path) -> dict[str, float]:
    """What was done -> top-1 on CIFAR-10's test pictures."""
    from pictura.config import to_dict
    from pictura.data.text import Tokenizer
    from pictura.models.classifier import ClassifierConfig
    from pictura.run import evaluate, read_recipe, train
    from pictura.weights.folder import save_folder
    from pictura.weights.foreign import load_model

    known, _ = load_model(model)
    tower: Any = known.config
    fresh = ClassifierConfig(image=tower.image, mean=tower.mean, std=tower.std)
    nothing: Tokenizer | None = None
    save_folder(scratch / "fresh", fresh.build(), nothing)
    blank = ["initial=null", f"model={json.dumps(to_dict(fresh))}"]

    def trained(name: str, recipe: str, *changes: str) -> Path:
        train(read_recipe(recipe, [f"initial={model}", *changes]), scratch / name, say=lambda _: None)
        return scratch / name / "model"

    def probe(path: Path) -> float:
        return evaluate(path, read_recipe("linear-probe"))["probe/top1"]

    def accuracy(path: Path) -> float:
        return evaluate(path, read_recipe("finetune"))["accuracy/top1"]

    return {
        "frozen features, ridge regression": probe(model),
        "frozen features, a linear layer by SGD (`linear-probe`)": accuracy(trained("sgd", "linear-probe")),
        "fine-tuned (`finetune`)": accuracy(trained("tuned", "finetune")),
        "fresh weights, frozen, ridge regression": probe(scratch / "fresh"),
        "fresh weights, trained as `finetune` does": accuracy(trained("scratch", "finetune", *blank)),
        "fresh weights, trained with AdamW, rate 1e-3": accuracy(trained("adamw", "finetune", *blank, *ADAMW)),
    }


def write(run: dict[str, Any]) -> None:
    """The table between the markers of docs/recipes.md."""
    lines = ["| the tower of `photos` on CIFAR-10 | top-1 of 2,000 |", "| --- | ---: |"]
    lines += [f"| {what} | {100 * value:.1f} % |" for what, value in run["top1"].items()]
    lines += ["", f"One run each, {run['minutes']:.0f} minutes in all; {run['machine']}, {run['date'][:10]}."]
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END)[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("model", nargs="?", type=Path, help="the model folder that `pictura train photos` left")
    parser.add_argument("--write", action="store_true", help="write the table of docs/recipes.md from the run kept")
    arguments = parser.parse_args()
    if arguments.model is not None:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            found = measured(arguments.model, Path(scratch))
        run = {"top1": found, "minutes": (time.perf_counter() - began) / 60, "machine": machine()}
        with RESULTS.open("a") as file:
            file.write(json.dumps(run | {"date": datetime.now(UTC).isoformat(timespec="seconds")}) + "\n")
    if arguments.write:
        write(json.loads(RESULTS.read_text().splitlines()[-1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
