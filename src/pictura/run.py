"""A run: a recipe trained, gone on with, measured, taught."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import Any

import torch

from pictura.config import Config, to_yaml
from pictura.config import load as read_config
from pictura.data.batches import prefetch
from pictura.data.taught import TaughtConfig
from pictura.data.text import Tokenizer
from pictura.distributed.ranks import Ranks, collect, is_main, start, stop, world
from pictura.evaluation.comparison import compare
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Code, Panel, Table
from pictura.evaluation.ready import load
from pictura.evaluation.report import write_report
from pictura.evaluation.teach import teach as fill
from pictura.evaluation.watched import watched
from pictura.output.files import write_text
from pictura.prepare import Prepared, enough_memory, on_main, prepare
from pictura.recipe import Recipe, evaluation_of, read_recipe
from pictura.training.loop import Trainer
from pictura.training.metrics import json_ready, read_metrics
from pictura.weights.folder import empty, save_folder

__all__ = ["demo", "evaluate", "read_recipe", "resume", "teach", "train"]

logger = logging.getLogger(__name__)
Say = Callable[[str], None]
CONFIG, TOKENIZER, METRICS = "config.yaml", "tokenizer.json", "metrics.jsonl"  # in a run folder, from its first step
BAD = "bad.jsonl"  # from the first sample that could not be used
MODEL, REPORT, RESULTS = "model", "report.html", "results.json"  # and at its end
LEFT = (TOKENIZER, f".{CONFIG}.")  # what a run leaves there that was killed before it began


def train(recipe: Recipe, folder: Path, *, say: Say = logger.info) -> dict[str, float]:
    """Train into `folder`; returns the last metrics.

    Leaves config.yaml, metrics.jsonl, checkpoints/, model/ (a model folder), report.html and results.json. Started by
    `torchrun`, all processes call this. ValueError for what the user can mend; Stopped when asked to stop.
    """
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
    """What trains the model of a recipe into `folder`, at step 0."""
    r = prepared.recipe
    optimizer = r.optimizer.scaled(r.loader.batch_size)  # the recipe stays as it was given, so it is scaled once
    return Trainer(prepared.task, r.training, optimizer, r.schedule, folder, seed=r.seed, device=device)


def keep_bad(prepared: Prepared, folder: Path) -> None:
    """Bad samples go into a file of the run from here on; those that are in it are known."""
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
    began = time.time()
    metrics = train(read_recipe("demo", overrides), folder, say=say)
    found = {name: value for name, value in metrics.items() if name.startswith(("zeroshot/", "retrieval/"))}
    return found | {"seconds": time.time() - began}


def free(folder: Path) -> Path:
    """`folder`, or the first of folder-2, folder-3, … that is not there."""
    names = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in count(1))
    return next(path for path in names if not path.exists())
