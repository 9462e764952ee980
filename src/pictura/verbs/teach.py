"""`pictura teach`."""

import argparse

from pictura.verbs.common import Answer, overridable, show

ABOUT = "What a CLIP says of a detector's proposals, written down for a recipe whose data is `taught`."
EXAMPLES = ("pictura teach vild.yaml --teacher runs/demo/model --proposer runs/detector/model",)


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("recipe", help="a recipe's name or a .yaml file")
    p.add_argument(
        "--teacher", required=True, help="a clip: a folder or file of weights, ours or another's; a hub name"
    )
    p.add_argument("--proposer", required=True, help="a detector: a folder of weights")
    p.add_argument("--regions", type=int, default=64, help="how many of a picture, at most (default: 64)")
    overridable(p)


def answer(a: argparse.Namespace) -> Answer:
    from pictura import run
    from pictura.recipe import read_recipe

    told = run.teach(read_recipe(a.recipe, a.overrides), a.teacher, a.proposer, a.regions)
    show(a, "", [(name, str(value)) for name, value in told.items()])
    return told
