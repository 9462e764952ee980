"""`pictura blend`."""

import argparse
from pathlib import Path

from pictura.verbs.common import Answer, say, show

ABOUT = "The model between a model and its fine-tuned version: half of each often keeps what both know."
EXAMPLES = ("pictura blend runs/demo/model runs/tuned/model between --share 0.5",)


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("zero", help="the model before it was fine-tuned: a folder or file of weights; a hub name")
    p.add_argument("tuned", help="the same one after")
    p.add_argument("target", type=Path, help="a new folder")
    p.add_argument("--share", type=float, default=0.5, help="of the fine-tuned one, from 0 to 1 (default: 0.5)")


def answer(a: argparse.Namespace) -> Answer:
    from pictura.weights.interpolate import blend

    notes = blend(a.zero, a.tuned, a.target, a.share)
    show(a, "", [(str(a.target), f"{1 - a.share:.0%} of {a.zero}, {a.share:.0%} of {a.tuned}")])
    for note in notes:
        say(note)
    return {"path": str(a.target), "share": a.share, "notes": list(notes)}
