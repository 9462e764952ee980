"""`pictura train`."""

import argparse
from pathlib import Path

from pictura.verbs.common import Answer, overridable, say

ABOUT = "Train a recipe, or go on with a run. SIGTERM and Ctrl-C save a checkpoint first."
EXAMPLES = (
    "pictura train demo training.steps=20 schedule.warmup=5 --out runs/short",
    "pictura train --resume runs/short training.steps=40",
    "torchrun --nproc-per-node 2 -m pictura train demo training.parallel=fsdp --out runs/two",
)


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("recipe", nargs="?", help="a recipe's name (pictura list recipes) or a .yaml file")
    p.add_argument("--out", type=Path, help="run folder (default: runs/NAME)")
    p.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    overridable(p)


def answer(a: argparse.Namespace) -> Answer:
    from pictura import run
    from pictura.recipe import read_recipe
    from pictura.training.metrics import json_ready

    if a.resume is not None:
        overrides = [a.recipe, *a.overrides] if a.recipe else a.overrides
        if odd := [word for word in overrides if "=" not in word]:
            raise ValueError(
                f"--resume goes on with a run's own recipe: {odd[0]} is too much, only key=value may follow"
            )
        if a.out is not None:
            raise ValueError("--resume goes on in the run's own folder; leave --out out")
        return json_ready(run.resume(a.resume, overrides, say=say))
    if a.recipe is None:
        raise ValueError("give a recipe (pictura list recipes), or --resume RUN")
    recipe = read_recipe(a.recipe, a.overrides)
    return json_ready(run.train(recipe, a.out or Path("runs") / Path(a.recipe).stem, say=say))
