"""From a recipe to a trained, measured model folder: with `cli.py`, the only file that sees every room."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from pictura.config import Config, load as read_config, to_dict, to_yaml
from pictura.data.batches import Batch, Batches, LoaderConfig, prefetch
from pictura.data.source import Source, SourceConfig
from pictura.data.text import Tokenizer, TokenizerConfig
from pictura.data.views import ViewConfig
from pictura.distributed.ranks import barrier, is_main, start, stop
from pictura.evaluation.base import Evaluator, EvaluatorConfig, measure
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Code, Panel, Table
from pictura.evaluation.report import write_report
from pictura.models.base import ModelConfig
from pictura.models.clip import CLIPConfig
from pictura.objectives.base import ObjectiveConfig, Task
from pictura.training.loop import Trainer, TrainingConfig
from pictura.training.metrics import read_metrics
from pictura.training.optimizers import AdamWConfig, OptimizerConfig
from pictura.training.schedules import CosineConfig, ScheduleConfig
from pictura.weights.folder import load_folder, save_folder

RECIPES = resources.files("pictura") / "recipes"


@dataclass(frozen=True, kw_only=True)
class Recipe(Config):
    """A run, whole. `about` says what it is for and what it reached; `initial` is a model folder to begin from."""

    about: str = ""
    seed: int = 0
    initial: Path | None = None
    model: ModelConfig
    objectives: dict[str, ObjectiveConfig]
    data: SourceConfig
    view: ViewConfig
    tokenizer: TokenizerConfig
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    optimizer: OptimizerConfig = field(default_factory=AdamWConfig)
    schedule: ScheduleConfig = field(default_factory=CosineConfig)
    training: TrainingConfig
    evaluation: dict[str, EvaluatorConfig] = field(default_factory=dict)


def recipes() -> dict[str, str]:
    """The recipes that come with the package: name -> what it is for."""
    files = sorted(p.name for p in RECIPES.iterdir() if p.name.endswith(".yaml"))
    return {name.removesuffix(".yaml"): read_recipe(name.removesuffix(".yaml")).about for name in files}


def read_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by the name it has in the package, or by its path, with `dotted.key=value` overrides."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        inside = RECIPES / f"{name}.yaml"
        if not inside.is_file():
            known = ", ".join(sorted(p.name.removesuffix(".yaml") for p in RECIPES.iterdir() if p.name.endswith("yaml")))
            raise ValueError(f"recipe {name}: there is none of that name; give a path to a .yaml file, or one of {known}")
        with resources.as_file(inside) as file:
            return read_config(Recipe, file, overrides=overrides)
    return read_config(Recipe, path, overrides=overrides)


@dataclass
class Prepared:
    """A recipe made real: everything opened and built, nothing trained yet."""

    recipe: Recipe
    source: Source
    tokenizer: Tokenizer
    task: Task
    batches: Batches
    evaluators: dict[str, Evaluator]


def prepare(recipe: Recipe, tokenizer: Tokenizer | None = None, *, rank: int = 0, world: int = 1) -> Prepared:
    """Open data, build tokenizer, model and objectives; whatever does not fit together is a ValueError here."""
    torch.manual_seed(recipe.seed)
    source = recipe.data.build()
    if tokenizer is None:
        tokenizer = recipe.tokenizer.build(source.all_captions)
    model_config = fitted(recipe.model, tokenizer)
    recipe = replace(recipe, model=model_config)
    if recipe.initial is None:
        model = model_config.build()
    else:
        model, tokenizer = load_folder(recipe.initial)
    objectives = {name: config.build() for name, config in recipe.objectives.items()}
    task = Task(model, objectives, {name: config.weight for name, config in recipe.objectives.items()})
    evaluators = {name: config.build() for name, config in recipe.evaluation.items()}
    batches = Batches(
        source, recipe.view.build(), tokenizer, recipe.loader, seed=recipe.seed, rank=rank, world=world, needs=task.needs
    )
    return Prepared(recipe, source, tokenizer, task, batches, evaluators)


def fitted(model: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The model's configuration with the vocabulary that its tokenizer has."""
    if not isinstance(model, CLIPConfig):
        return model
    text = replace(model.text, vocab_size=tokenizer.vocab_size, end_token=tokenizer.end)
    tokenizer.context_length = text.context_length
    return replace(model, text=text)


def train(recipe: Recipe | None, folder: Path, *, resume: bool = False, overrides: Sequence[str] = ()) -> dict[str, float]:
    """Train into `folder`, or go on with what is there; returns the last metrics.

    Leaves config.yaml, metrics.jsonl, checkpoints/, model/ (a model folder) and report.html. Started by `torchrun`, all
    processes call this. Raises ValueError for what the user can mend.
    """
    began, ranks = time.time(), start()
    try:
        tokenizer = None
        if resume:
            recipe = read_config(Recipe, existing_run(folder) / "config.yaml", overrides=overrides)
            tokenizer = Tokenizer.load(folder / "tokenizer.json")
        assert recipe is not None
        if not resume:
            claim(folder)
        prepared = prepare(recipe, tokenizer, rank=ranks.rank, world=ranks.world)
        recipe = prepared.recipe
        if is_main() and not resume:
            folder.mkdir(parents=True, exist_ok=True)
            prepared.tokenizer.save(folder / "tokenizer.json")
            write_text(folder / "config.yaml", to_yaml(recipe))
        barrier()
        trainer = Trainer(
            prepared.task, recipe.training, recipe.optimizer, recipe.schedule, folder, seed=recipe.seed, device=ranks.device
        )
        if resume and trainer.checkpoints.latest() is not None:
            trainer.resume()
        metrics = trainer.run(_stream(prepared.batches, ranks.device), _validate(prepared, ranks.device))
        finish(prepared, trainer, folder, metrics, time.time() - began)
        return metrics
    finally:
        stop()


def _stream(batches: Batches, device: torch.device) -> Any:
    return lambda step: prefetch(batches.iterate(step), device)


def _validate(prepared: Prepared, device: torch.device) -> Any:
    if not prepared.evaluators:
        return None
    embedder = Embedder(prepared.task.model, prepared.tokenizer, device=device)
    return lambda step: measure(prepared.evaluators, embedder)


def finish(prepared: Prepared, trainer: Trainer, folder: Path, metrics: Mapping[str, float], seconds: float) -> None:
    """Write the model folder and the report of a run."""
    weights = trainer.weights()  # every process takes part: shards are gathered
    if not is_main():
        return
    model = prepared.recipe.model.build()
    model.load_state_dict(weights)
    save_folder(folder / "model", model, prepared.tokenizer)
    panels: list[Panel] = [panel for evaluator in prepared.evaluators.values() for panel in evaluator.panels()]
    if len(prepared.batches.bad):
        panels.append(Table("Bad samples", ("sample", "reason"), prepared.batches.bad.rows()))
    panels.append(Code("Configuration", to_yaml(prepared.recipe)))
    write_report(
        folder / "report.html",
        title=f"{folder.name}: {trainer.step} steps in {seconds / 60:.1f} minutes",
        metrics={k: v for k, v in metrics.items() if k.startswith(("zeroshot/", "retrieval/"))},
        curves=read_metrics(folder / "metrics.jsonl"),
        panels=panels,
    )


def existing_run(folder: Path) -> Path:
    """The folder of a run that can be resumed. Raises ValueError if it is none."""
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder}: there is no run here to resume (no config.yaml); start one without --resume")
    return folder


def claim(folder: Path) -> None:
    """Refuse a folder that holds a run already: nothing of it may be lost."""
    if (folder / "config.yaml").exists():
        raise ValueError(f"{folder}: holds a run already; go on with it by --resume {folder}, or choose another --out")


def write_text(path: Path, text: str) -> None:
    """Write a file whole: aside first, then renamed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
