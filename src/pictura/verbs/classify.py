"""`pictura classify`."""

import argparse
from pathlib import Path

from pictura.verbs.common import Answer, bar, pictures, read_labels, reads_model, show

ABOUT = "Classification of pictures: zero-shot with --labels, else by the model's own head."
EXAMPLES = ('pictura classify runs/demo/model a.png --labels "red star,blue ring"',)


def arguments(p: argparse.ArgumentParser) -> None:
    reads_model(p)
    p.add_argument("images", nargs="+", type=Path, help="picture files, or folders of them")
    p.add_argument("--labels", help="comma-separated, or a text file of one label a line (a classifier needs none)")
    p.add_argument(
        "--templates", default="plain", help="sentences around the labels: a set's name, one with {}, a .yaml"
    )
    p.add_argument("--top", type=int, default=5, help="how many labels to show (default: 5)")


def answer(a: argparse.Namespace) -> Answer:
    from pictura import run

    labels, images = None if a.labels is None else read_labels(a.labels), pictures(a.images)
    if a.top < 1:
        raise ValueError(f"--top: {a.top} shows nothing; give 1 or more")
    model = run.load(a.model)
    with run.watched(model.embedder):
        answers = model.classify(images, labels, templates=a.templates)
    out: dict[str, dict[str, float]] = {}
    rows = []
    for path, answer in zip(images, answers, strict=True):
        best = out[str(path)] = dict(sorted(answer.items(), key=lambda item: -item[1])[: a.top])
        names = [str(path), *[""] * len(best)]
        rows += [(name, label, f"{p:.1%}", bar(p)) for name, (label, p) in zip(names, best.items(), strict=False)]
    show(a, "", rows)
    return out
