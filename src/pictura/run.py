"""From a recipe to a trained, measured model folder: with `cli.py`, the files that see every room.

Every verb comes through here, most of them to use a model. What training alone needs, torch's compiler and sharding
among it, takes as long to import as torch itself, so it is imported by the functions that train.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from pictura.config import Config, to_yaml
from pictura.config import load as read_config
from pictura.config.text import read as read_yaml
from pictura.data.batches import prefetch
from pictura.data.decode import decode
from pictura.data.taught import TaughtConfig
from pictura.data.text import Tokenizer
from pictura.distributed.ranks import Ranks, collect, is_main, start, stop, world
from pictura.evaluation.base import Evaluator, EvaluatorConfig
from pictura.evaluation.coco_results import areas_of, to_results
from pictura.evaluation.comparison import Measured
from pictura.evaluation.comparison import panel as side_by_side
from pictura.evaluation.drawing import with_things
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Code, Panel, Table
from pictura.evaluation.ready import load
from pictura.evaluation.report import write_report
from pictura.evaluation.teach import teach as fill
from pictura.training.metrics import json_ready, read_metrics
from pictura.training.progress import PATIENCE, Progress
from pictura.weights.folder import empty, save_folder

if TYPE_CHECKING:
    from pictura.recipe import Prepared, Recipe, prepare, read_recipe, recipes
    from pictura.training.loop import Trainer

__all__ = ["Prepared", "Recipe", "demo", "evaluate", "load", "prepare", "read_recipe", "recipes", "resume", "train"]

logger = logging.getLogger(__name__)
Say = Callable[[str], None]
CONFIG, TOKENIZER, METRICS = "config.yaml", "tokenizer.json", "metrics.jsonl"  # in a run folder, from its first step
BAD = "bad.jsonl"  # from the first sample that could not be used
MODEL, REPORT, RESULTS = "model", "report.html", "results.json"  # and at its end
LEFT = (TOKENIZER, f".{CONFIG}.")  # what a run leaves there that was killed before it began


if not TYPE_CHECKING:  # which would take any name for one that is there

    def __getattr__(name: str) -> Any:
        """Names of `pictura.recipe` that this module passes on, which brings all of training, on first use."""
        if name in __all__:
            from pictura import recipe

            return getattr(recipe, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def train(recipe: Recipe, folder: Path, *, say: Say = logger.info) -> dict[str, float]:
    """Train into `folder`; returns the last metrics.

    Leaves config.yaml, metrics.jsonl, checkpoints/, model/ (a model folder), report.html and results.json. Started by
    `torchrun`, all processes call this. ValueError for what the user can mend; Stopped when asked to stop.
    """
    from pictura.recipe import on_main, prepare

    began = time.time()
    with processes() as ranks:
        on_main(lambda: claim(folder))
        prepared = prepare(recipe, rank=ranks.rank, world=ranks.world)
        trainer = trainer_of(prepared, folder, ranks.device)
        on_main(lambda: begin(folder, prepared))
        keep_bad(prepared, folder)
        metrics = go(prepared, trainer)
        return finish(prepared, trainer, metrics, say, f" in {(time.time() - began) / 60:.1f} minutes")


def resume(folder: Path, overrides: Sequence[str] = (), *, say: Say = logger.info) -> dict[str, float]:
    """Go on with the run in `folder` from its newest checkpoint (or its beginning, where it has none yet), to the same
    losses as if it had never stopped. `overrides` change its recipe from here on: `training.steps=2000` trains longer.
    """
    from pictura.recipe import Recipe, on_main, prepare

    with processes() as ranks:
        if not (folder / CONFIG).is_file():  # the last thing that a run writes before it begins
            raise ValueError(f"{folder}: there is no run here to resume (no {CONFIG}); start one without --resume")
        recipe = read_config(Recipe, folder / CONFIG, overrides=overrides)
        steps, results = recipe.training.steps, read_results(folder)
        if results.get("step") == steps:
            say(f"{folder}: finished, all {steps} steps are done; to train on, add training.steps={2 * steps}")
            return {name: value for name, value in results.items() if name != "step"}
        at_first = recipe.initial is not None and not any((folder / "checkpoints").glob("step-*"))  # its weights again
        tokenizer = None
        if not at_first and (folder / TOKENIZER).is_file():
            tokenizer = Tokenizer.load(folder / TOKENIZER)
        prepared = prepare(recipe, tokenizer, resumed=not at_first, rank=ranks.rank, world=ranks.world)
        trainer = trainer_of(prepared, folder, ranks.device)
        if (latest := trainer.checkpoints.latest() or 0) > steps:
            raise ValueError(f"training.steps: {steps} lies behind {folder}, which is at step {latest} already")
        if latest:
            trainer.resume()
        on_main(lambda: write_text(folder / CONFIG, to_yaml(prepared.recipe)))
        keep_bad(prepared, folder)
        say(f"{folder}: going on after step {latest} of {steps}")
        return finish(prepared, trainer, go(prepared, trainer), say)


def trainer_of(prepared: Prepared, folder: Path, device: torch.device) -> Trainer:
    from pictura.training.loop import Trainer

    r = prepared.recipe
    optimizer = r.optimizer.scaled(r.loader.batch_size)  # the recipe stays as it was given, so it is scaled once
    return Trainer(prepared.task, r.training, optimizer, r.schedule, folder, seed=r.seed, device=device)


def keep_bad(prepared: Prepared, folder: Path) -> None:
    """Bad samples go into a file of the run from here on; those that are in it are known."""
    from pictura.recipe import on_main

    bad = prepared.batches.bad
    on_main(lambda: bad.keep(folder / BAD))
    if not is_main():  # what all have found in opening the data is written already
        bad.keep(folder / BAD)


def bad_samples(prepared: Prepared) -> list[tuple[str, str]]:
    """(sample, reason) of all processes, each sample once."""
    found = {key: reason for rows in collect(prepared.batches.bad.rows()) for key, reason in rows}
    return list(found.items())


def go(prepared: Prepared, trainer: Trainer) -> dict[str, float]:
    """Train to the last step and evaluate; returns the metrics of that step."""
    from pictura.recipe import enough_memory, on_main

    embedder = Embedder(prepared.task.model, prepared.tokenizer, device=trainer.device)
    alone = world() == 1 or trainer.config.parallel == "fsdp"  # of a sharded model, every process holds a part

    def measured() -> dict[str, float]:
        with watched(embedder):
            return prepared.evaluate(embedder)

    def told(step: int) -> dict[str, float]:
        found: dict[str, float] = measured() if alone else on_main(measured)
        return found

    evaluate = told if prepared.evaluators else None
    if trainer.step == trainer.config.steps:  # it was killed between its last checkpoint and its report
        last = [line for line in read_metrics(trainer.folder / METRICS) if line["step"] == trainer.step]
        known = {k: float(v) for line in last for k, v in line.items() if k != "step"}
        return known | (trainer.evaluate(evaluate) if evaluate else {})
    with enough_memory(prepared.recipe, trainer.device):
        return trainer.run(lambda step: prefetch(prepared.batches.iterate(step), trainer.device), evaluate)


def finish(
    prepared: Prepared, trainer: Trainer, metrics: Mapping[str, float], say: Say, took: str = ""
) -> dict[str, float]:
    """Write the model folder, the report and, when all is there, the results of a run."""
    from pictura.recipe import on_main

    weights = trainer.weights()  # every process takes part: shards are gathered
    recipe, folder, bad = prepared.recipe, trainer.folder, bad_samples(prepared)

    def write() -> None:
        assert recipe.model is not None
        model = empty(recipe.model)
        model.load_state_dict(weights, assign=True)
        save_folder(folder / MODEL, model, prepared.tokenizer)
        panels: list[Panel] = [panel for evaluator in prepared.evaluators.values() for panel in evaluator.panels()]
        if bad:
            panels.append(Table("Bad samples", ("sample", "reason"), bad))
        panels.append(Code("Configuration", to_yaml(recipe)))
        write_report(
            folder / REPORT,
            title=f"{folder.name}: {trainer.step} steps{took}",
            metrics=prepared.found,
            curves=read_metrics(folder / METRICS),
            panels=panels,
        )
        write_text(folder / RESULTS, json.dumps({"step": trainer.step} | json_ready(metrics), indent=1))

    on_main(write)
    if bad:
        say(f"bad samples: {len(bad):,} could not be used; {folder / BAD} and the report name them")
    say(f"model: {folder / MODEL}\nreport: {folder / REPORT}")
    return dict(metrics)


def claim(folder: Path) -> None:
    """Refuse a folder that cannot be written, or holds a run or something else: nothing of it may be lost."""
    if (folder / CONFIG).exists():
        raise ValueError(f"{folder}: holds a run already; go on with it by --resume {folder}, or choose another --out")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; choose another --out")
    if others := sorted(path.name for path in folder.glob("*") if not path.name.startswith(LEFT)):
        raise ValueError(f"{folder}: holds other things ({', '.join(others[:3])}); choose another --out")
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: {place} does not let this user write there; choose another --out")


def begin(folder: Path, prepared: Prepared) -> None:
    """What a run needs to be resumed; `config.yaml` comes last, so where it is, the rest is."""
    folder.mkdir(parents=True, exist_ok=True)
    if prepared.tokenizer is not None:
        prepared.tokenizer.save(folder / TOKENIZER)
    write_text(folder / CONFIG, to_yaml(prepared.recipe))


def read_results(folder: Path) -> dict[str, Any]:
    """What a finished run has written last: its `step` and metrics; empty before."""
    path = folder / RESULTS
    if not path.is_file():
        return {}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {name: value if name == "step" else float(value) for name, value in results.items()}


def write_text(path: Path, text: str) -> None:
    """Write a file whole: aside first, then renamed. Names of files that are no UTF-8 come out as they are on disk."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8", errors="surrogateescape")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def processes() -> Iterator[Ranks]:
    """Join the other processes, if `torchrun` started any, and leave them at the end."""
    ranks = start()
    try:
        yield ranks
    finally:
        stop()


def evaluate(model: str | Path, recipe: Recipe, report: Path | None = None) -> dict[str, float]:
    """Run the `evaluation` of a recipe on a model folder; with `report`, write a page with pictures there."""
    (measured,) = compare([model], lambda _: evaluation_of(recipe), report)
    return dict(measured.metrics)


def evaluation_of(recipe: Recipe) -> Mapping[str, EvaluatorConfig]:
    """ValueError for a recipe that measures nothing."""
    if not recipe.evaluation:
        raise ValueError("this recipe has no `evaluation`; add one, for example evaluation.retrieval.kind=retrieval")
    return recipe.evaluation


def is_data(given: str) -> bool:
    """Whether a word names data, and not a recipe: a .yaml file is a recipe unless it says `kind`."""
    from pictura.recipe import recipes

    if given in recipes():
        return False
    if given.endswith((".yaml", ".yml")):
        content = read_yaml(given)
        return isinstance(content, dict) and "kind" in content
    if (Path(given) / CONFIG).is_file():
        return False  # a run, of which `read_recipe` says what it is
    return os.path.exists(given) or "://" in given or given.endswith(".tar")


def compare(
    models: Sequence[str | Path],
    suite: Callable[[Any], Mapping[str, EvaluatorConfig]],
    report: Path | None = None,
    first: Callable[[Mapping[str, float]], Panel] | None = None,
) -> list[Measured]:
    """Measure models, one after the other, by what `suite` chooses for the first of them.

    With `report`, a page: of one model with the evaluators' pictures, of several side by side; `first` makes a panel
    of the first model's metrics that comes before all.
    """
    measured, evaluators = list[Measured](), dict[str, Evaluator]()
    panels: list[Panel] = []
    for model in models:
        embedder = load(model).embedder
        if not evaluators:
            evaluators = {name: config.build() for name, config in suite(embedder.model).items()}
        for evaluator in evaluators.values():
            evaluator.check(embedder.model)
        with watched(embedder):
            measured.append(Measured.by(str(model), evaluators, embedder))
        if model is models[0] and report is not None:
            panels = [panel for evaluator in evaluators.values() for panel in evaluator.panels()]
    if report is not None:
        if len(models) > 1:
            panels = [side_by_side(measured), *panels]
        if first is not None:
            panels = [first(measured[0].metrics), *panels]
        write_report(report, title=" and ".join(map(str, models)), metrics=measured[0].metrics, panels=panels)
    return measured


def teach(recipe: Recipe, teacher: str | Path, proposer: str | Path, regions: int = 64) -> dict[str, float | str]:
    """Fill the store that the recipe's data of kind `taught` reads, with what a CLIP, the teacher, says of a detector's
    proposals; one that was not written to its end is gone on with."""
    configs = [one for one in within(recipe.data) if isinstance(one, TaughtConfig)]
    if not configs:
        raise ValueError("data: none of it is of kind `taught`, which says what to look at and where the store is")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("teach: one process writes a store; start it without torchrun")
    sides = load(teacher).embedder, load(proposer).embedder
    with watched(sides[0]):
        stores = [fill(*sides, config.of.build(), config.store, regions=regions) for config in configs]
    told: dict[str, float | str] = {"store": ", ".join(str(config.store) for config in configs)}
    told |= {"pictures": sum(map(len, stores)), "regions": sum(int(one.arrays["counts"].sum()) for one in stores)}
    return told | {"bad": len(sides[1].bad)}


def within(config: Config) -> Iterator[Config]:
    """A configuration and those inside it."""
    yield config
    for field in fields(config):
        value = getattr(config, field.name)
        for one in value.values() if isinstance(value, dict) else (value,):
            if isinstance(one, Config):
                yield from within(one)


def drawn_at(folder: Path, images: Sequence[Path]) -> list[Path]:
    """A file in `folder` for each picture, by its name; where two have the same, with a number."""
    taken, places = set[str](), list[Path]()
    for path in images:
        name = next(n for n in chain([path.stem], (f"{path.stem}-{k}" for k in count(2))) if n not in taken)
        taken.add(name)
        places.append(folder / f"{name}.png")
    given = {path.resolve() for path in images}
    if over := next((place for place in places if place.resolve() in given), None):
        raise ValueError(f"--out {folder}: {over} is one of the pictures; give another folder")
    return places


def saving(
    folder: Path, images: Sequence[Path], found: Iterable[Mapping[str, Any]], names: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """What was found in each picture, as it comes; on the way it is drawn into a copy of the picture, and at the end
    all of it is written as COCO's JSON, with scores: a data set, whose `annotations` are COCO's results. Categories are
    in the order of `names`. ValueError where that would write over one of the pictures."""
    places = drawn_at(folder, images)
    folder.mkdir(parents=True, exist_ok=True)
    ids = {name: number for number, name in enumerate(names, 1)}
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (path, one) in enumerate(zip(images, found, strict=True), 1):
        picture = decode(path.read_bytes(), key=str(path))
        pictures.append({"id": number, "file_name": str(path), "width": picture.width, "height": picture.height})
        rows = to_results([one], [number])
        areas = areas_of([row["segmentation"] for row in rows]) if "masks" in one else []
        for i, (row, name) in enumerate(zip(rows, one["text_labels"], strict=True)):
            area = areas[i] if areas else row["bbox"][2] * row["bbox"][3]
            more = {"id": len(annotations) + 1, "category_id": ids[name], "area": area, "iscrowd": 0}
            annotations.append(row | more)
        with_things(picture, one).save(places[number - 1])
        yield one
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    coco = {"images": pictures, "categories": categories, "annotations": annotations}
    write_text(folder / "detections.json", json.dumps(coco))


@contextmanager
def watched(embedder: Embedder) -> Iterator[None]:
    """Inside, whatever takes longer than two seconds to embed shows how far it is."""
    began, shown = time.perf_counter(), ExitStack()
    progress: Progress | None = None

    def tell(what: str, done: int, total: int) -> None:
        nonlocal began, progress
        if progress is None and time.perf_counter() - began >= PATIENCE:
            progress = shown.enter_context(Progress(total, unit=what, description=what, enabled=is_main()))
        if progress is not None:
            progress.update(done)
        if done >= total:  # of these; other pictures or texts may follow
            shown.close()
            began, progress = time.perf_counter(), None

    embedder.progress = tell
    try:
        yield
    finally:
        embedder.progress = None
        shown.close()


DEMO = {
    "zeroshot/shape/top1": "which shape it is, of 12",
    "zeroshot/colour/top1": "which colour, of 16",
    "zeroshot/seen/top1": "which shape in which colour, of 192",
    "zeroshot/heldout/top1": "the same, for combinations never seen in training",
    "retrieval/image_to_text/R@1": "the caption of a picture, among 500",
    "retrieval/text_to_image/R@1": "the picture of a caption, among 500",
}


def demo(folder: Path, overrides: Sequence[str] = (), say: Say = logger.info) -> dict[str, float]:
    """Train the demo recipe and return what it can do without ever having had a label, and the seconds it took."""
    from pictura.recipe import read_recipe

    began = time.time()
    metrics = train(read_recipe("demo", overrides), folder, say=say)
    found = {name: value for name, value in metrics.items() if name.startswith(("zeroshot/", "retrieval/"))}
    return found | {"seconds": time.time() - began}


def free(folder: Path) -> Path:
    """`folder`, or the first of folder-2, folder-3, … that is not there."""
    names = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in count(1))
    return next(path for path in names if not path.exists())


def save_array(path: Path, array: npt.NDArray[np.float32]) -> None:
    """Write a .npy file whole: aside first, then renamed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            np.save(file, array)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
