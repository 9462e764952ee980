"""`pictura detect`."""

import argparse
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pictura.verbs.common import Answer, pictures, read_labels, say, show

ABOUT = "Things in pictures, found by their names, whichever these are."
EXAMPLES = (
    'pictura detect runs/detector/model a.png "red star" ring --out found',
    "pictura detect runs/detector/model a.png star ring --attributes red,blue",
)


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("model", help="a detector: a folder of weights")
    p.add_argument(
        "given",
        nargs="+",
        metavar="PICTURE|NAME",
        help="picture files and folders of them; anything else is a name to look for (default: those trained on)",
    )
    p.add_argument("--attributes", help="look for each name with each of these: comma-separated, or a text file")
    p.add_argument("--threshold", type=float, default=0.1, help="the least score that is told (default: 0.1)")
    p.add_argument(
        "--top", type=int, help="how many things of a picture, at most (default: as many as the model tells)"
    )
    p.add_argument("--out", type=Path, help="a folder for pictures with boxes drawn in, and COCO's detections.json")
    p.set_defaults(rest="given")


def answer(a: argparse.Namespace) -> Answer:
    from pictura.data.source import PICTURE_SUFFIXES
    from pictura.evaluation.detect import expanded
    from pictura.evaluation.ready import load
    from pictura.evaluation.saved import drawn_at, saving
    from pictura.evaluation.watched import watched

    def is_picture(word: str) -> bool:
        return os.path.exists(word) or Path(word).suffix.lower().removeprefix(".") in PICTURE_SUFFIXES

    images = pictures([Path(word) for word in a.given if is_picture(word)])
    names = [word for word in a.given if not is_picture(word)]
    if not images:
        raise ValueError(f"give a picture file, or a folder of them; {', '.join(a.given)} is none")
    for word in names:
        if not word.strip() or word.endswith(os.sep) or word.startswith((os.sep, ".", "~")):
            raise ValueError(f"{word!r} is no picture or folder that is there, and no name to look for")
    if a.top is not None and a.top < 1:
        raise ValueError(f"--top: {a.top} shows nothing; give 1 or more")
    if a.out is not None and a.out.exists() and not a.out.is_dir():
        raise ValueError(f"--out {a.out}: is a file; give a folder")
    if a.out is not None:
        drawn_at(a.out, images)
    attributes = None if a.attributes is None else read_labels(a.attributes, "--attributes")
    model = load(a.model)
    found: Iterable[Mapping[str, Any]] = model.detections(images, names, a.threshold, a.top, attributes)
    if a.out is not None:
        every = expanded(names or model.embedder.model.config.class_names, attributes)
        found = saving(a.out, images, found, every)
    out: dict[str, list[dict[str, Any]]] = {}
    rows = []
    with watched(model.embedder):
        for path, one in zip(images, found, strict=True):
            told = zip(one["text_labels"], one["scores"].tolist(), one["boxes"].round().int().tolist(), strict=True)
            out[str(path)] = [
                {"score": score, "label": name, "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))}
                for name, score, box in told
            ]
    for key, things in out.items():
        for place, thing in enumerate(things or [{"label": "nothing", "score": 0.0, "box": {}}]):
            where = " ".join(map(str, thing["box"].values()))
            score = f"{thing['score']:.1%}" if thing["box"] else ""
            rows.append((key if not place else "", thing["label"], score, where))
    show(a, "", rows)
    if a.out is not None:
        say(f"{a.out}: the pictures with what was found, and detections.json")
    return out
