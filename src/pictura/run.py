"""From a recipe to a trained, measured model folder: with `cli.py`, the only file that sees every room."""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pictura.config import Config, kinds, sized, to_yaml
from pictura.config import load as read_config
from pictura.data.batches import Batches, LoaderConfig, prefetch
from pictura.data.source import Source, SourceConfig
from pictura.data.text import Tokenizer, TokenizerConfig
from pictura.data.views import ViewConfig
from pictura.distributed.ranks import barrier, is_main, start, stop
from pictura.evaluation.base import Evaluator, EvaluatorConfig, measure
from pictura.evaluation.embed import Embedder, Picture
from pictura.evaluation.panels import Code, Panel, Table
from pictura.evaluation.prompts import templates_of
from pictura.evaluation.report import write_report
from pictura.evaluation.zeroshot import classifier
from pictura.models.base import ModelConfig
from pictura.models.clip import CLIPConfig
from pictura.objectives.base import ObjectiveConfig, Task
from pictura.training.flops import count_flops
from pictura.training.loop import Trainer, TrainingConfig
from pictura.training.memory import MemoryPeak
from pictura.training.metrics import read_metrics
from pictura.training.optimizers import AdamWConfig, OptimizerConfig
from pictura.training.progress import measured_peak
from pictura.training.schedules import CosineConfig, ScheduleConfig
from pictura.weights.folder import load_folder, save_folder

logger = logging.getLogger(__name__)
Say = Callable[[str], None]
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
            known = ", ".join(
                sorted(p.name.removesuffix(".yaml") for p in RECIPES.iterdir() if p.name.endswith("yaml"))
            )
            raise ValueError(
                f"recipe {name}: there is none of that name; give a path to a .yaml file, or one of {known}"
            )
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
        source,
        recipe.view.build(),
        tokenizer,
        recipe.loader,
        seed=recipe.seed,
        rank=rank,
        world=world,
        needs=task.needs,
    )
    return Prepared(recipe, source, tokenizer, task, batches, evaluators)


def fitted(model: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The model's configuration with the vocabulary that its tokenizer has."""
    if not isinstance(model, CLIPConfig):
        return model
    text = replace(model.text, vocab_size=tokenizer.vocab_size, end_token=tokenizer.end)
    tokenizer.context_length = text.context_length
    return replace(model, text=text)


def train(
    recipe: Recipe | None, folder: Path, *, resume: bool = False, overrides: Sequence[str] = (), say: Say = logger.info
) -> dict[str, float]:
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
            prepared.task,
            recipe.training,
            recipe.optimizer,
            recipe.schedule,
            folder,
            seed=recipe.seed,
            device=ranks.device,
        )
        if resume and trainer.checkpoints.latest() is not None:
            trainer.resume()
        metrics = trainer.run(_stream(prepared.batches, ranks.device), _validate(prepared, ranks.device))
        if trainer.step < recipe.training.steps:
            say(f"stopped at step {trainer.step}, checkpoint saved; go on with: pictura train --resume {folder}")
            return metrics
        finish(prepared, trainer, folder, metrics, time.time() - began)
        say(f"model: {folder / 'model'}\nreport: {folder / 'report.html'}")
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


def demo(folder: Path, overrides: Sequence[str] = (), say: Say = logger.info) -> dict[str, float]:
    """Train the demo recipe and tell what it can do, without ever having had a label; returns what it measured."""
    began = time.time()
    say("a small CLIP learns from drawn scenes and sentences about them; no labels, no downloads")
    metrics = train(read_recipe("demo", overrides), folder, say=say)
    found = {k: v for k, v in metrics.items() if k.startswith(("zeroshot/", "retrieval/"))}
    for line in DEMO:
        say(line.format_map(found))
    return found | {"seconds": time.time() - began}


DEMO = (
    "on fresh scenes:",
    "  which shape is it                         {zeroshot/shape/top1:7.1%}   zero-shot, of 12",
    "  which colour is it                        {zeroshot/colour/top1:7.1%}   zero-shot, of 16",
    "  combinations never seen in training       {zeroshot/heldout/top1:7.1%}   zero-shot, of 192",
    "  the caption of a picture, among 500       {retrieval/image_to_text/R@1:7.1%}   R@1",
    "  the picture of a caption, among 500       {retrieval/text_to_image/R@1:7.1%}   R@1",
)


def evaluate(model: str | Path, recipe: Recipe, report: Path | None = None) -> dict[str, float]:
    """Run the `evaluation` of a recipe on a model folder; with `report`, write a page with pictures there."""
    if not recipe.evaluation:
        raise ValueError("this recipe has no `evaluation`; add one, for example evaluation.retrieval.kind=retrieval")
    evaluators = {name: config.build() for name, config in recipe.evaluation.items()}
    metrics = measure(evaluators, load(model).embedder)
    if report is not None:
        panels: list[Panel] = [panel for evaluator in evaluators.values() for panel in evaluator.panels()]
        write_report(report, title=str(model), metrics=metrics, panels=panels)
    return metrics


class Pictura:
    """A model ready to use: `pictura.load("runs/demo/model")`."""

    def __init__(self, model: torch.nn.Module, tokenizer: Tokenizer, device: torch.device) -> None:
        self.model, self.tokenizer = model.to(device).eval(), tokenizer
        self.embedder = Embedder(self.model, tokenizer, device=device)

    def embed_images(self, images: Sequence[Picture]) -> npt.NDArray[np.float32]:
        """Paths, encoded bytes, PIL images or uint8 arrays [y x c] -> unit vectors [n e]. ValueError for a bad one."""
        vectors: npt.NDArray[np.float32] = self.embedder.images(images).numpy()
        return vectors

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """n texts -> unit vectors [n e]."""
        vectors: npt.NDArray[np.float32] = self.embedder.texts(texts).numpy()
        return vectors

    def classify(
        self, images: Sequence[Picture], labels: Sequence[str], templates: str | tuple[str, ...] = "plain"
    ) -> list[dict[str, float]]:
        """For each picture, the probability of each label, by zero-shot classification (Radford et al. 2021, 3.1)."""
        if len(set(labels)) != len(labels) or len(labels) < 2:
            raise ValueError(f"labels: at least two different ones are needed, got {list(labels)}")
        classes = classifier(self.embedder, labels, templates_of(templates))
        scores = self.embedder.scale * self.embedder.images(images) @ classes
        return [dict(zip(labels, row, strict=True)) for row in scores.softmax(1).tolist()]


def load(path: str | Path, device: str | torch.device | None = None) -> Pictura:
    """Open a model folder. `device` None takes the GPU where there is one, and bf16 there."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model, tokenizer = load_folder(Path(path), device=device)
    return Pictura(model, tokenizer, device)


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a text file."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError(f"{path}: has no lines")
    return lines


def read_labels(given: str) -> list[str]:
    """Labels from a comma-separated string, or from a text file of one a line."""
    path = Path(given)
    if "," not in given and path.is_file():
        return read_lines(path)
    return [label.strip() for label in given.split(",") if label.strip()]


def save_array(path: Path, array: npt.NDArray[np.float32]) -> None:
    """Write a .npy file: aside first, then renamed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.npy")
    try:
        np.save(aside, array)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def plan(recipe: Recipe) -> dict[str, float | int]:
    """What a run would take on this machine, from the recipe and a few measured steps. Nothing is written."""
    with tempfile.TemporaryDirectory() as scratch:
        trial = replace(recipe.training, steps=4, evaluate_every=None, compile=False)
        prepared = prepare(replace(recipe, evaluation={}))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        trainer = Trainer(
            prepared.task, trial, recipe.optimizer, replace(recipe.schedule, warmup=0), Path(scratch), device=device
        )
        batch = next(prefetch(prepared.batches.iterate(), device))
        flops = count_flops(trainer.task, {key: value[:2] for key, value in batch.items()})
        seconds = []
        with MemoryPeak(device) as memory:
            for _ in range(trial.steps):
                begin = time.perf_counter()
                trainer._advance(batch)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - begin)
    step = min(seconds[1:])
    peak = measured_peak(device, torch.bfloat16 if trial.precision == "bf16" else torch.float32)
    size, steps = recipe.loader.batch_size, recipe.training.steps
    return {
        "parameters": sum(p.numel() for p in prepared.task.parameters()),
        "flops_per_sample": flops,
        "examples": len(prepared.source),
        "batch_size": size,
        "steps": steps,
        "epochs": steps / prepared.batches.steps_per_epoch,
        "memory_mib": memory.mib,
        "seconds_per_step": step,
        "samples_per_second": size / step,
        "share_of_peak": flops * size / step / peak,
        "hours": steps * step / 3600,
    }


def catalogue(what: str) -> dict[str, str]:
    """What `pictura list` shows: names and a line on each."""
    if what == "recipes":
        return recipes()
    if what == "data":
        return {kind: first_line(cls) for kind, cls in kinds(SourceConfig).items()}
    rows = {}
    for kind, cls in kinds(ModelConfig).items():
        for size in getattr(cls, "sizes", {}):
            with torch.device("meta"):
                model: torch.nn.Module = sized(cls, size).build()
            rows[f"{kind} {size}"] = f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters"
    return rows


def first_line(cls: type) -> str:
    """Of a class's docstring."""
    return (cls.__doc__ or "").strip().split("\n")[0]
