"""What zero-shot classification gives and where it ends: prompts, few examples, limits, films, captions, in figures.

    pictura train demo --out runs/demo
    pictura train captions --out runs/captions
    pictura train photos --out runs/photos
    pictura train captions --out runs/photo-captions initial=runs/photos/model \\
        data='{kind: table, path: ../shared/data/photos/train.csv}' \\
        view='{kind: random_crop, image_size: 64, scale: [0.6, 1.0]}' \\
        evaluation='{test: {kind: captions, data: {kind: table, path: ../shared/data/photos/test.csv}}}'
    .venv/bin/python -m benchmarks.limits             measure what is missing; pages with pictures into runs/limits
    .venv/bin/python -m benchmarks.limits --write     the tables and the picture of docs/limits.md

Each subject is measured when the model that it asks is there, and kept, so an interrupted script goes on. Nothing here
is trained on what it is asked about: `photos` has seen the names of tiny-imagenet's classes with other pictures.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import limits_page
from .trained import Run, of_models

if TYPE_CHECKING:
    from pictura.evaluation.base import EvaluatorConfig
    from pictura.evaluation.comparison import Measured

NAME = "limits"
DATA = Path("../shared/data")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SCENES = {"kind": "scenes", "seed": 1}
SINGLE = SCENES | {"objects": [1, 1], "gives": ["image", "label"]}
SHAPES = SINGLE | {"split": "fresh", "label_of": "shape", "count": 1000}
TINY = {
    "kind": "shards", "path": str(DATA / "tiny-imagenet/val-*.tar"), "label": "json.class",
    "class_names": str(DATA / "tiny-imagenet/classes.json"),
}  # fmt: skip
SETS = {
    "scenes": ("a {}", "a picture of a {}", "we see a {}", "a scene with a {}"),  # the set `drawn`
    "photographs": ("a photo of a {}", "a {}", "a picture of a {}", "a close photo of a {}", "this is a {}", "{}"),
}
METHODS = ["zeroshot", "ridge", "logistic", "prompt_ridge", "prompt_logistic", "cache"]
COLOURS = ("black", "blue", "brown", "gray", "green", "grey", "orange", "pink", "purple", "red", "white", "yellow")
NUMBERS = ("one", "two", "three", "four", "five")
OPPOSITES = {
    "on": "under", "under": "on", "above": "below", "below": "above", "inside": "outside", "outside": "inside",
    "behind": "in front of", "over": "under",
}  # fmt: skip
MOTIONS = ("moving left", "moving right", "zooming in", "zooming out")  # of a camera over a photograph
FRAMES, SIDE = 8, 96
ALONE = re.compile(r"_\d$")  # in the name of one template by itself


def single(**changes: Any) -> dict[str, Any]:
    """Scenes of one thing."""
    return SHAPES | changes


def alone(name: str, data: dict[str, Any], templates: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Zero-shot by all templates together, and by each."""
    asked = {f"{name}_{i}": [template] for i, template in enumerate(templates)} | {name: list(templates)}
    return {key: {"kind": "zeroshot", "name": key, "data": data, "templates": some} for key, some in asked.items()}


def of_scenes(_: Path) -> dict[str, dict[str, Any]]:
    """What is asked of the model of `demo`."""
    zeroshot = {"kind": "zeroshot", "data": SHAPES, "templates": "drawn"}
    clips = SCENES | {"gives": ["clip"], "objects": [1, 1]}
    found = alone("shape", SHAPES, SETS["scenes"])
    found |= alone("heldout", single(split="heldout", label_of="combination"), SETS["scenes"])
    for name in ("fresh", "style", "shapes"):
        found[name] = zeroshot | {"name": name, "data": single(split=name, label_of="shape")}
    found["few_shot"] = {
        "kind": "few_shot", "train": single(split="train", count=2000), "test": SHAPES, "methods": METHODS,
        "templates": "drawn",
    }  # fmt: skip
    found["choices"] = {
        "kind": "choices",
        "data": SCENES | {"split": "fresh", "gives": ["image", "choices"], "count": 2800},
    }
    found["robustness"] = {"kind": "robustness", "of": zeroshot | {"data": single(count=300)}}
    found["typographic"] = zeroshot | {"kind": "typographic"}
    found["calibration"] = zeroshot | {"kind": "calibration", "outside": single(split="shapes")}
    found["actions"] = {
        "kind": "actions", "pool": "order", "data": clips | {"split": "fresh", "count": 500},
        "train": clips | {"split": "train", "count": 1000}, "templates": ["a {}", "something {}"],
    }  # fmt: skip
    return found


def of_photographs(folder: Path) -> dict[str, dict[str, Any]]:
    """What is asked of the model of `photos`."""
    cifar10 = {"kind": "shards", "label": "cls", "path": str(DATA / "cifar10/test.tar")}
    fewer = {"kind": "subset", "of": TINY, "share": 0.1}
    zeroshot = {"kind": "zeroshot", "data": TINY, "templates": list(SETS["photographs"])}
    found = alone("objects", TINY, SETS["photographs"])
    found["imagenet"] = zeroshot | {"name": "imagenet", "templates": "imagenet"}
    found["cifar10"] = zeroshot | {"name": "cifar10", "data": cifar10, "class_names": list(CIFAR10)}
    for name, data, names in (("objects", TINY, ()), ("cifar10", cifar10, CIFAR10)):
        train = str(data["path"]).replace("val-", "train-").replace("test.tar", "train.tar")
        found[f"few_shot {name}"] = {
            "kind": "few_shot", "name": name, "train": data | {"path": train}, "test": data, "methods": METHODS,
            "templates": list(SETS["photographs"]), "class_names": list(names),
        }  # fmt: skip
    found["choices"] = {"kind": "choices", "data": {"kind": "choices", "path": str(edited(folder))}}
    found["robustness"] = {"kind": "robustness", "of": zeroshot | {"data": fewer}}
    found["typographic"] = zeroshot | {"kind": "typographic", "data": fewer}
    found["calibration"] = zeroshot | {"kind": "calibration"}
    films = {"kind": "videos", "frames": FRAMES, "longest": SIDE}
    found["actions"] = {
        "kind": "actions", "pool": "order", "data": films | {"path": str(filmed(folder / "films", "test"))},
        "train": films | {"path": str(filmed(folder / "films", "train"))}, "templates": ["a photo {}", "{}"],
    }  # fmt: skip
    return found


def captions_of(data: dict[str, Any]) -> Callable[[Path], dict[str, dict[str, Any]]]:
    return lambda _: {"captions": {"kind": "captions", "data": data}}


TOLD = SCENES | {"objects": [1, 2], "mentions": {"list": 1}, "captions": 5, "count": 500}
SUBJECTS: dict[str, tuple[str, Callable[[Path], dict[str, dict[str, Any]]]]] = {  # the run, and what is asked of it
    "scenes": ("demo", of_scenes),
    "photographs": ("photos", of_photographs),
    "captions of scenes": ("captions", captions_of(TOLD | {"split": "fresh"})),
    "captions of new combinations": ("captions", captions_of(TOLD | {"split": "heldout"})),
    "captions of photographs": (
        "photo-captions",
        captions_of({"kind": "table", "path": str(DATA / "photos/test.csv")}),
    ),
}


def edited(folder: Path) -> Path:
    """True captions of photographs, each beside what a change of its words makes of it, as a table of `choices`.

    binding: two colours exchanged; count: a number by other ones; relation: a preposition by its opposite; order: the
    same words in another order. By rule, as in the first tests of this kind: a few of the false ones may be true.
    """
    from pictura.data.randomness import random_generator

    place = folder / "choices.csv"
    with open(DATA / "photos/test.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    with place.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "true", "false", "kind"))
        for number, row in enumerate(rows):
            words = row["caption"].lower().removesuffix(".").split()
            random = random_generator(0, 0, number, "limits")
            for kind, false in changed(words, random):
                image = (DATA / "photos" / row["image"]).resolve()
                writer.writerow((image, " ".join(words), " ".join(false), kind))
    return place


def changed(words: list[str], random: Any) -> Iterator[tuple[str, list[str]]]:
    """(kind, the words changed), where they can be."""
    colours = [i for i, word in enumerate(words) if word in COLOURS]
    if len({words[i] for i in colours}) > 1:
        one, two = colours[0], next(i for i in colours if words[i] != words[colours[0]])
        if words[one + 1 : two] != ["and"]:  # black and white is white and black
            yield "binding", [words[{one: two, two: one}.get(i, i)] for i in range(len(words))]
    for kind, known in (("count", set(NUMBERS)), ("relation", set(OPPOSITES))):
        if at := [i for i, word in enumerate(words) if word in known]:
            others = [other for other in NUMBERS if other != words[at[0]]]
            new = others[random.integers(len(others))] if kind == "count" else OPPOSITES[words[at[0]]]
            yield kind, [*words[: at[0]], new, *words[at[0] + 1 :]]
    order = random.permutation(len(words)).tolist()
    if [words[i] for i in order] != words:
        yield "order", [words[i] for i in order]


def filmed(folder: Path, part: str) -> Path:
    """`folder`/part/motion/….gif: a camera that moves over each photograph of `part`, one of four ways."""
    from PIL import Image

    with open(DATA / f"photos/{part}.csv", newline="") as file:
        names = list(dict.fromkeys(row["image"] for row in csv.DictReader(file)))
    for number, name in enumerate(names):
        motion = MOTIONS[number % len(MOTIONS)]
        place = folder / part / motion / f"{Path(name).stem}.gif"
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(DATA / "photos" / name) as opened:
            image = opened.convert("RGB")
        frames = [image.resize((SIDE, SIDE), box=seen(motion, t / (FRAMES - 1), *image.size)) for t in range(FRAMES)]
        aside = place.with_name(f".{place.name}")
        frames[0].save(aside, "GIF", save_all=True, append_images=frames[1:], duration=100)
        aside.rename(place)
    return folder / part


def seen(motion: str, t: float, width: int, height: int) -> tuple[float, float, float, float]:
    """The part of a picture that the camera sees at time t, from 0 to 1: x0 y0 x1 y1 px."""
    side = 0.6 * min(width, height)
    if motion.startswith("zooming"):
        side = min(width, height) * (0.5 + 0.5 * (t if motion.endswith("out") else 1 - t))
        x = (width - side) / 2
    else:
        x = (width - side) * (t if motion.endswith("right") else 1 - t)
    y = (height - side) / 2
    return x, y, x + side, y + side


def measured(run: Run, runs: Path) -> Run:
    """All metrics of a subject, corruptions by severity, and by how much its sets of prompts gain; a page beside."""
    from pictura.evaluation.comparison import Measured
    from pictura.evaluation.ready import load
    from pictura.evaluation.report import write_report
    from pictura.evaluation.watched import watched

    folder = runs / NAME
    folder.mkdir(parents=True, exist_ok=True)
    trained, asked = SUBJECTS[run["subject"]]
    evaluators = {name: config_of(given).build() for name, given in asked(folder).items()}
    embedder = load(runs / trained / "model").embedder
    with watched(embedder):
        found = Measured.by(trained, evaluators, embedder)
    page = folder / f"{run['subject'].replace(' ', '-')}.html"
    panels = [panel for name, one in evaluators.items() if not ALONE.search(name) for panel in one.panels()]
    write_report(page, title=run["subject"], metrics=found.metrics, panels=panels)
    curves = getattr(evaluators.get("robustness"), "found", {})
    return {"metrics": dict(found.metrics), "gains": gains(found), "curves": curves}


def config_of(given: dict[str, Any]) -> EvaluatorConfig:
    from pictura.config import load
    from pictura.evaluation.base import EvaluatorConfig

    built: EvaluatorConfig = load(EvaluatorConfig, given)
    return built


def gains(found: Measured) -> dict[str, list[float]]:
    """Of each set that was asked together and one by one: what its templates reach at least, in the mean and at most,
    what it reaches, and the mean difference with its 95 % interval."""
    import torch

    from pictura.evaluation.intervals import paired

    gained = {}
    for name in {match[1] for metric in found.each if (match := re.fullmatch(r"zeroshot/(\w+)_0/top1", metric))}:
        each = [
            rows.double() for metric, rows in found.each.items() if re.fullmatch(rf"zeroshot/{name}_\d+/top1", metric)
        ]
        one, together = torch.stack(each), found.each[f"zeroshot/{name}/top1"].double()
        shares = one.mean(1)
        ends = [float(shares.min()), float(shares.mean()), float(shares.max()), float(together.mean())]
        gained[name] = [*ends, *paired(together, one.mean(0))]
    return gained


def main() -> int:
    asked = {subject: trained for subject, (trained, _) in SUBJECTS.items()}
    return of_models(NAME, (__doc__ or "").partition("\n")[0], asked, measured, limits_page.write)


if __name__ == "__main__":
    sys.exit(main())
