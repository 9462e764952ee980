"""`pictura describe`."""

import argparse
from pathlib import Path

from pictura.verbs.common import Answer, pictures, reads_model, show

ABOUT = "Pictures in words: written by a captioner, or the nearest of a list of phrases, by any model that reads texts."
EXAMPLES = (
    "pictura describe runs/captions/model a.png",
    "pictura describe runs/demo/model a.png --phrases labels.txt",
)


def arguments(p: argparse.ArgumentParser) -> None:
    reads_model(p)
    p.add_argument("images", nargs="+", type=Path, help="picture files, or folders of them")
    p.add_argument("--phrases", type=Path, help="a text file of one phrase a line, the nearest of which are told")
    p.add_argument("--top", type=int, default=3, help="how many phrases (default: 3)")
    p.add_argument("--beams", type=int, default=5, help="of the search for a caption; 1 is greedy (default: 5)")
    p.set_defaults(rest="images")


def answer(a: argparse.Namespace) -> Answer:
    from pictura import run
    from pictura.evaluation.phrases import phrases_of

    images = pictures(a.images)
    for option, value in (("--top", a.top), ("--beams", a.beams)):
        if value < 1:
            raise ValueError(f"{option}: {value} tells nothing; give 1 or more")
    phrases = None if a.phrases is None else phrases_of(a.phrases)
    model = run.load(a.model)
    with run.watched(model.embedder):
        told = model.describe(images, phrases, most=a.top, beams=a.beams)
    rows, out = [], {}
    for path, some in zip(images, told, strict=True):
        names = [str(path), *[""] * len(some)]
        rows += [(name, text, f"{score:.3f}") for name, (text, score) in zip(names, some, strict=False)]
        out[str(path)] = [{"text": text, "score": score} for text, score in some]
    show(a, "", rows)
    return out
