"""How many labelled boxes a class ViLD's teacher is worth, on drawn scenes in which novel shapes stand unlabelled.

    .venv/bin/python -m benchmarks.novel [ARM …]     train what is missing
    .venv/bin/python -m benchmarks.novel --write     the table in docs/detection.md

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
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .trained import DOCS, Run, kept, train_missing, write_between

NAME = "novel"
SEEDS = (0, 1, 2)
NOVEL = ("hexagon", "drop", "house")
FEW = (1, 2, 5, 10)

ARMS: dict[str, tuple[str, list[str], dict[str, str]]] = {  # arm -> recipe, changes, what else is measured, and how
    "boxes of base alone": ("vild-base", [], {}),
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
    "ViLD-image": ("vild", ["objectives.detection.names=0"], {}),
    "ViLD": ("vild", [], {}),
    "ViLD-ensemble": ("vild", ["model.ensemble=true"], {"its words": "by: words", "its pictures": "by: picture"}),
}  # fmt: skip


def runs(seeds: list[int], arms: list[str]) -> Iterator[Run]:
    """Every run that there is to make, as the facts that name it."""
    for seed in seeds:
        for arm in ARMS:
            if not arms or arm in arms:
                yield {"arm": arm, "seed": seed}


def changes_of(arm: str, seed: int, folder: Path) -> list[str]:
    """What an arm changes in its recipe, and what is measured."""
    from pictura.data.scene_world import SHAPES

    recipe, changes, more = ARMS[arm]
    scenes = "{kind: scenes, split: everything, image_size: 128, objects: [2, 6], gives: [image, boxes], "
    scenes += f"label_of: shape, count: 200, seed: {1000 + seed}}}"
    closed = arm == "boxes of base alone"
    data = f"{{kind: partly_labelled, classes: [{', '.join(SHAPES)}], of: {scenes}}}" if closed else scenes
    novel = "" if closed else f", novel: [{', '.join(NOVEL)}], recall: 100"
    asked = {"detection": f"{{kind: detection, data: {data}{novel}}}"}
    for name, keys in more.items():
        keys = keys.replace("TEACHER", f'"{folder / f"teacher {seed}" / "model"}"')
        rest = novel.partition(", recall")[0]
        asked[slug(name)] = f"{{kind: detection, name: {slug(name)}, data: {data}{rest}, {keys}}}"
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
    return out + (
        [f"initial={folder / f'teacher {seed}' / 'model'}", f"data.of.store={folder / f'regions {seed}'}"]
        if recipe == "vild"
        else []
    )


def slug(name: str) -> str:
    """As a key and as part of a metric's name."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def repeats(k: int, scenes: int = 4000) -> int:
    """How often the pictures with the few boxes come, so that they are about a tenth of all."""
    return max(1, round(scenes / 9 / (k * len(NOVEL))))


def train(run: Run, folder: Path) -> Run:
    """What one run reached on new scenes; teacher, proposer and store of its seed are made when they are not there."""
    from pictura.run import read_recipe, teach
    from pictura.run import train as run_recipe

    arm, seed = run["arm"], run["seed"]

    def trained(recipe: str, name: str, *changes: str) -> Path:
        into = folder / f"{name} {seed}"
        if not (into / "results.json").exists():
            shutil.rmtree(into, ignore_errors=True)
            run_recipe(read_recipe(recipe, [f"seed={seed}", *changes]), into, say=lambda _: None)
        return into / "model"

    recipe = ARMS[arm][0]
    changes = changes_of(arm, seed, folder)
    if recipe == "vild":
        teacher = trained("vild-teacher", "teacher")
        proposer = trained("vild-base", "base")
        teach(read_recipe("vild", changes), teacher, proposer, regions=40)
    into = folder / f"{arm} {seed}"
    shutil.rmtree(into, ignore_errors=True)
    began = time.perf_counter()
    results = run_recipe(read_recipe(recipe, changes), into, say=lambda _: None)
    metrics = {name: value for name, value in results.items() if name.startswith("detection/")}
    return {"AP": metrics["detection/AP"], "metrics": metrics, "minutes": round((time.perf_counter() - began) / 60, 2)}


def interval(values: list[float]) -> str:
    """Mean and half of a 95 % interval by Student's t, in per cent, never rounded up; nothing of none."""
    if not values:
        return ""
    mean = math.floor(1e3 * statistics.fmean(values) + 1e-9) / 10
    if len(values) < 2:
        return f"{mean:.1f}"
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(len(values), 2.0)
    half = math.ceil(1e3 * t * statistics.stdev(values) / math.sqrt(len(values))) / 10
    return f"{mean:.1f} ± {half:.1f}"


def table(done: list[Run]) -> str:
    """One row for each way of finding things, means over seeds, in per cent."""
    lines = ["| | AP base | AP novel | AP | AP50 novel | seeds |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for arm, (_, _, more) in ARMS.items():
        found = [run["metrics"] for run in done if run["arm"] == arm]
        for name in ("", *more) if found else ():
            prefix = f"detection/{slug(name)}" if name else "detection"
            keys = ["AP/base", "AP/novel", "AP", "AP50/novel"]
            cells = [[one[f"{prefix}/{key}"] for one in found if f"{prefix}/{key}" in one] for key in keys]
            if arm == "boxes of base alone":  # it is asked for those alone
                cells = [cells[2], [], [], []]
            says = name or arm
            lines.append(f"| {says} | " + " | ".join(map(interval, cells)) + f" | {len(found)} |")
    held = [run["metrics"] for run in done if run["arm"] == "ViLD-text"]
    if held:
        base, novel = (
            interval([one[f"detection/proposals/R@100/{group}"] for one in held]) for group in ("base", "novel")
        )
        lines += ["", f"Of things, the first 100 proposals hold {base} % of base and {novel} % of novel ones."]
    last = max(done, key=lambda run: run["date"])
    return "\n".join([*lines, "", f"{last['machine']}, {last['date'][:10]}."])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.novel", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("arms", nargs="*", metavar="ARM", help="names of arms (default: all)")
    parser.add_argument("--folder", type=Path, default=Path("runs/novel"), help="for the models (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--write", action="store_true", help="write the table of docs/detection.md from the runs kept")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no run after so many seconds")
    arguments = parser.parse_args()
    if arguments.write:
        write_between(DOCS / "detection.md", "novel", table(kept(NAME)))
        return 0
    make = partial(train, folder=arguments.folder.resolve())
    train_missing(NAME, runs(arguments.seeds, arguments.arms), make, "AP", arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
