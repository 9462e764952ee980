"""`pictura describe`."""

import argparse
from pathlib import Path
from typing import Any

from pictura.verbs.common import Answer, pictures, read_data, reads_model, show

ABOUT = "Pictures in words: written by a captioner, or the nearest of a list of phrases, by any model that reads texts."
EXAMPLES = (
    "pictura describe runs/captions/model a.png",
    "pictura describe runs/demo/model a.png --phrases labels.txt",
    "pictura describe runs/demo/model a.png --phrases photos.csv --top 5",
)
DATA = (  # what data end with; anything else is a text file
    *(".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".pq"),
    *(".json", ".yaml", ".yml", ".tar", ".tar.gz", ".tgz"),
)


def arguments(p: argparse.ArgumentParser) -> None:
    reads_model(p)
    p.add_argument("images", nargs="+", type=Path, help="picture files, or folders of them")
    p.add_argument(
        "--phrases",
        metavar="FILE|DATA",
        help="phrases, the nearest of which are told: a text file of one a line, or data with captions",
    )
    p.add_argument("--top", type=int, default=3, help="how many phrases (default: 3)")
    p.add_argument("--beams", type=int, default=5, help="of the search for a caption; 1 is greedy (default: 5)")
    p.set_defaults(rest="images")


def answer(a: argparse.Namespace) -> Answer:
    from pictura.evaluation.phrases import phrases_of
    from pictura.evaluation.ready import load
    from pictura.evaluation.watched import watched

    images = pictures(a.images)
    for option, value in (("--top", a.top), ("--beams", a.beams)):
        if value < 1:
            raise ValueError(f"{option}: {value} tells nothing; give 1 or more")
    phrases = None if a.phrases is None else phrases_of(bank(a.phrases))
    model = load(a.model)
    with watched(model.embedder):
        told = model.describe(images, phrases, most=a.top, beams=a.beams)
    rows, out = [], {}
    for path, some in zip(images, told, strict=True):
        names = [str(path), *[""] * len(some)]
        rows += [(name, text, f"{score:.3f}") for name, (text, score) in zip(names, some, strict=False)]
        out[str(path)] = [{"text": text, "score": score} for text, score in some]
    show(a, "", rows)
    return out


def bank(given: str) -> Any:
    """The source of captions that it names, else what it says, a text file."""
    data = given.lower().endswith(DATA) or "://" in given or Path(given).is_dir()
    if not data:
        return given
    source = read_data(given).build()
    if "captions" not in source.provides:
        raise ValueError(f"--phrases {given}: has no captions; try a text file of one phrase a line")
    return source
