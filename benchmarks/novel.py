"""How many labelled boxes a class ViLD's teacher is worth, on drawn scenes in which novel shapes stand unlabelled.

    .venv/bin/python -m benchmarks.novel --jobs 2    make what is missing, two runs at a time
    .venv/bin/python -m benchmarks.novel --write     the table and the pictures in docs/detection.md

The recipes `vild-teacher`, `vild-base` and `vild`, and what changes one thing in them. Detectors of learnt classes get
the boxes of twelve shapes and K boxes of each of three others, from pictures that come so often that they are a tenth
of all; ViLD gets none of those, and a CLIP's vectors of proposals. All are measured on the same new scenes.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

from .trained import DOCS, Run, kept, train_missing, write_between

NAME = "novel"
SEEDS = (0, 1, 2)
NOVEL = ("hexagon", "drop", "house")
FEW = (1, 2, 5, 10)
SCENES = 200  # that all are measured on
REGIONS = 16  # of a picture, that the teacher is asked about

TEACHER, BASE, STORE = "the teacher", "boxes of base alone", "what the teacher says"  # which the others are made with
Arm = tuple[str, list[str], dict[str, str]]  # a recipe, what changes in it, what else is measured, and how
ARMS: dict[str, Arm] = {
    BASE: ("vild-base", [], {}),
    **{f"{k} boxes of each": ("vild-base", [f"K={k}"], {}) for k in FEW},
    "all boxes": ("vild-base", ["ALL"], {}),
    "ViLD-text": (
        "vild", ["objectives.distillation=null"],
        {
            "CLIP on crops": "by: picture, teacher: TEACHER",
            "CLIP on crops, with objectness": "by: picture, teacher: TEACHER, objectness: true",
            "ViLD-text + CLIP": "by: ensemble, teacher: TEACHER",
        },
    ),
    "ViLD-image": ("vild", ["objectives.detection.names=0", "training.freeze=[background]"], {}),
    "ViLD": ("vild", [], {}),
    "ViLD-ensemble": ("vild", ["model.ensemble=true"], {"its words": "by: words", "its pictures": "by: picture"}),
}  # fmt: skip
SHOWN = ("ViLD-text", "ViLD", "10 boxes of each")
STAGES = ((TEACHER, BASE), (STORE,), tuple(arm for arm in ARMS if arm != BASE))  # each needs those before it


def runs(seeds: list[int], arms: tuple[str, ...]) -> Iterator[Run]:
    """Every run that there is to make, as the facts that name it."""
    for arm in arms:
        for seed in seeds:
            yield {"arm": arm, "seed": seed}


def scenes(seed: int) -> str:
    """New ones of the kind that the recipes have, as configuration."""
    return (
        "{kind: scenes, split: everything, image_size: 128, objects: [2, 6], zoom: [0.5, 1.1], overlap: 0.6, "
        f"clutter: 12, gives: [image, boxes], label_of: shape, count: {SCENES}, seed: {1000 + seed}}}"
    )


def changes_of(arm: str, seed: int, folder: Path) -> list[str]:
    """What an arm changes in its recipe, and what is measured."""
    from pictura.data.scene_world import SHAPES

    recipe, changes, more = ARMS[arm]
    data, novel = scenes(seed), f", novel: [{', '.join(NOVEL)}]"
    if arm == BASE:
        data, novel = f"{{kind: partly_labelled, classes: [{', '.join(SHAPES)}], of: {data}}}", ""
    recall = ", recall: 100" if arm == "ViLD-text" else ""
    asked = {"detection": f"{{kind: detection, data: {data}{novel}{recall}}}"}
    for name, keys in more.items():
        keys = keys.replace("TEACHER", f'"{folder / f"{TEACHER} {seed}" / "model"}"')
        asked[slug(name)] = f"{{kind: detection, name: {slug(name)}, data: {data}{novel}, {keys}}}"
    out = [f"seed={seed}", "training.save_every=1000000"]
    out.append(f"evaluation={{{', '.join(f'{name}: {one}' for name, one in asked.items())}}}")
    for change in changes:
        if change == "ALL":
            out.append(f"data.classes=[{', '.join((*SHAPES, *NOVEL))}]")
        elif change.startswith("K="):
            k = int(change[2:])
            out += [f"data.few={{{', '.join(f'{name}: {k}' for name in NOVEL)}}}", f"data.repeat={repeats(k)}"]
        else:
            out.append(change)
    if recipe == "vild":
        out += [f"initial={folder / f'{TEACHER} {seed}' / 'model'}", f"data.of.store={folder / f'{STORE} {seed}'}"]
    return out


def slug(name: str) -> str:
    """As a key and as part of a metric's name."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def repeats(k: int, scenes: int = 3000) -> int:
    """How often the pictures with the few boxes come, so that they are about a tenth of all."""
    return max(1, round(scenes / 9 / (k * len(NOVEL))))


def train(run: Run, folder: Path) -> Run:
    """What one run reached on new scenes, `AP` in all or, of the teacher, the share of things that it names right."""
    from pictura.run import read_recipe
    from pictura.run import train as run_recipe

    arm, seed = run["arm"], run["seed"]
    if arm == STORE:
        return {"AP": teach(seed, folder)}
    into = folder / f"{arm} {seed}"
    shutil.rmtree(into, ignore_errors=True)
    if arm == TEACHER:
        run_recipe(read_recipe("vild-teacher", [f"seed={seed}"]), into, say=lambda _: None)
        metrics = named_right(seed, folder)
        return {"AP": metrics["all"], "metrics": metrics}
    results = run_recipe(read_recipe(ARMS[arm][0], changes_of(arm, seed, folder)), into, say=lambda _: None)
    metrics = {name: value for name, value in results.items() if name.startswith("detection/")}
    return {"AP": metrics["detection/AP"], "metrics": metrics}


def teach(seed: int, folder: Path) -> float:
    """Write the store of a seed; 1 when all is there."""
    from pictura.run import read_recipe
    from pictura.run import teach as fill

    recipe = read_recipe("vild", changes_of("ViLD", seed, folder))
    models = (folder / f"{arm} {seed}" / "model" for arm in (TEACHER, BASE))
    told = fill(recipe, *models, regions=REGIONS)
    return 1.0 - float(told["bad"]) / float(told["pictures"])


def named_right(seed: int, folder: Path) -> dict[str, float]:
    """Shares of the true boxes of new scenes, cut out, that the teacher names right: of base, of novel ones, of all."""
    import numpy as np
    import torch

    import pictura
    from pictura.evaluation.crops import embedded
    from pictura.evaluation.zeroshot import classifier
    from pictura.run import read_recipe

    recipe: Any = read_recipe("vild", changes_of("ViLD", seed, folder))
    source = recipe.evaluation["detection"].data.build()
    teacher = pictura.load(folder / f"{TEACHER} {seed}" / "model").embedder
    examples: list[Any] = [source[index] for index in range(len(source))]
    pictures = ((torch.from_numpy(one["image"]).movedim(2, 0), torch.from_numpy(one["boxes"])) for one in examples)
    classes = classifier(teacher, source.class_names, recipe.model.templates)
    said = (torch.cat([*embedded(teacher, pictures)]) @ classes).argmax(1).numpy()
    labels = np.concatenate([one["labels"] for one in examples])
    novel, right = np.isin(labels, [source.class_names.index(name) for name in NOVEL]), said == labels
    return {"base": float(right[~novel].mean()), "novel": float(right[novel].mean()), "all": float(right.mean())}


def interval(values: list[float]) -> str:
    """Mean and half of a 95 % interval by Student's t, in per cent, never rounded up; nothing of none."""
    if not values:
        return ""
    mean = math.floor(1e3 * statistics.fmean(values) + 1e-9) / 10
    if len(values) < 2:
        return f"{mean:.1f}"
    t = {2: 12.71, 3: 4.31, 4: 3.19, 5: 2.78}.get(len(values), 2.6)
    half = math.ceil(1e3 * t * statistics.stdev(values) / math.sqrt(len(values))) / 10
    return f"{mean:.1f} ± {half:.1f}"


def table(done: list[Run]) -> str:
    """One row for each way of finding things, means over seeds, in per cent; then what the teacher and the proposals
    are worth, differences of pairs, and how many boxes it takes to overtake ViLD."""
    lines = ["| | AP base | AP novel | AP | AP50 base | AP50 novel |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    reached: dict[str, dict[str, list[float]]] = {}
    seeds: dict[str, list[int]] = {}
    for arm, (_, _, more) in ARMS.items():
        found = sorted((run for run in done if run["arm"] == arm), key=lambda run: run["seed"])
        for name in ("", *more) if found else ():
            prefix = f"detection/{slug(name)}" if name else "detection"
            keys = ["AP/base", "AP/novel", "AP", "AP50/base", "AP50/novel"]
            metrics = [run["metrics"] for run in found]
            cells = {key: [one[f"{prefix}/{key}"] for one in metrics if f"{prefix}/{key}" in one] for key in keys}
            if arm == BASE:  # it is asked for those alone
                cells |= {"AP/base": cells["AP"], "AP": [], "AP50/base": [one[f"{prefix}/AP50"] for one in metrics]}
            says = f"{arm}: {name}" if name.startswith("its") else name or arm
            reached[says], seeds[says] = cells, [run["seed"] for run in found]
    lines += [f"| {name} | {' | '.join(map(interval, cells.values()))} |" for name, cells in reached.items()]
    teachers = [run["metrics"] for run in done if run["arm"] == TEACHER]
    named = [interval([one[group] for one in teachers]) for group in ("base", "novel")]
    held = [run["metrics"] for run in done if run["arm"] == "ViLD-text"]
    proposals = [interval([one[f"detection/proposals/R@100/{group}"] for one in held]) for group in ("base", "novel")]
    lines += [
        "",
        f"The teacher names {named[0]} % of base and {named[1]} % of novel things right, cut out by their true",
    ]
    lines += [f"boxes. The first 100 proposals hold {proposals[0]} % of base and {proposals[1]} % of novel things.", ""]
    for one, other, key in (
        ("ViLD", "ViLD-text", "AP/novel"),
        ("ViLD", "ViLD-text", "AP/base"),
        ("ViLD-ensemble", "ViLD-ensemble: its words", "AP/novel"),
        ("ViLD-ensemble", "ViLD-ensemble: its words", "AP/base"),
        ("ViLD", "ViLD-ensemble", "AP/novel"),
    ):
        if one in reached and other in reached:
            ours, theirs = (dict(zip(seeds[name], reached[name][key], strict=True)) for name in (one, other))
            apart = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
            lines.append(f"- {one} less {other}, {key}: {interval(apart)}")
    if "ViLD" in reached:
        lines += ["", overtaken({name: cells["AP/novel"] for name, cells in reached.items()})]
    different = len({run["seed"] for run in done})
    minutes = sum(run["seconds"] for run in done) / 60
    last = max(done, key=lambda run: run["date"])
    lines += ["", f"{different} seeds, {minutes:.0f} minutes of one core, {last['machine']}, {last['date'][:10]}."]
    return "\n".join(lines)


def drawn(folder: Path, seed: int = 0, across: int = 4) -> Image.Image:
    """The first new scenes that have a novel thing; a row for what each arm of `SHOWN` finds there, dashed what is."""
    import torch
    from PIL import Image

    import pictura
    from pictura.evaluation.drawing import SIDE, beside_truth
    from pictura.run import read_recipe

    recipe: Any = read_recipe("vild", changes_of("ViLD", seed, folder))
    source = recipe.evaluation["detection"].data.build()
    novel = {source.class_names.index(name) for name in NOVEL}
    examples: list[Any] = [source[index] for index in range(len(source))]
    examples = [one for one in examples if novel & set(one["labels"].tolist())][:across]
    sheet = Image.new("RGB", (across * SIDE, len(SHOWN) * SIDE))
    for row, arm in enumerate(SHOWN):
        model = pictura.load(folder / f"{arm} {seed}" / "model")
        found = model.detect([one["image"] for one in examples], source.class_names, threshold=0.3)
        for column, (one, things) in enumerate(zip(examples, found, strict=True)):
            pixels, true = torch.from_numpy(one["image"]).movedim(2, 0), torch.from_numpy(one["boxes"])
            sheet.paste(beside_truth(pixels, things, true, one["image"].shape[:2]), (column * SIDE, row * SIDE))
    return sheet


def overtaken(novel: dict[str, list[float]]) -> str:
    """From how many boxes a class on supervision finds more of the novel things, by the means."""
    by = {k: statistics.fmean(novel[f"{k} boxes of each"]) for k in FEW if novel.get(f"{k} boxes of each")}
    more = [k for k in by if by[k] > statistics.fmean(novel["ViLD"])]
    if not more:
        return f"No supervision with up to {max(by)} boxes a class overtakes ViLD on novel things." if by else ""
    return f"Supervision overtakes ViLD on novel things at {more[0]} boxes a class."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.novel", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("arms", nargs="*", metavar="ARM", help="names of arms (default: all)")
    parser.add_argument("--folder", type=Path, default=Path("runs/novel"), help="for the models (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--write", action="store_true", help="write the table and the pictures of docs/detection.md")
    parser.add_argument("--jobs", type=int, default=1, help="so many runs at a time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no run after so many seconds")
    arguments = parser.parse_args()
    if arguments.write:
        write_between(DOCS / "detection.md", "novel", table(kept(NAME)))
        drawn(arguments.folder.resolve()).save(DOCS / "novel.jpg", quality=80)
        return 0
    make = partial(train, folder=arguments.folder.resolve())
    for stage in STAGES:
        asked = tuple(arm for arm in stage if arm in arguments.arms or not arguments.arms)
        train_missing(NAME, runs(arguments.seeds, asked), make, "AP", arguments.seconds, arguments.jobs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
