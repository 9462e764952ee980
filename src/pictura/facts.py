"""What can be known before anything is trained: what a run would take, and what there is to choose from."""

import inspect
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pictura.config import kinds, sized
from pictura.data.batches import Batch, prefetch
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.prompts import sets
from pictura.models.base import ImageTowerConfig, ModelConfig
from pictura.models.captioner import CaptionerConfig
from pictura.models.vild import ViLD, ViLDConfig
from pictura.models.vilt import ViLT, ViLTConfig
from pictura.prepare import enough_memory, prepare
from pictura.recipe import Recipe, recipes
from pictura.training.flops import count_flops
from pictura.training.loop import Trainer
from pictura.training.memory import MemoryPeak
from pictura.training.peak import measured_peak
from pictura.weights.folder import empty

TITLES = {
    "models": "Models: `model: {kind: KIND, size: SIZE}` in a recipe; towers, from clip_resnet on: `model.image`",
    "recipes": "Recipes: pictura train NAME",
    "data": "Data: `data: {kind: NAME, …}` in a recipe",
    "prompts": "Sets of prompts: --templates NAME of classify, --sets of prompts, `templates` in a recipe",
}
HEADS = {
    "models": ("kind and size", "parameters", "GFLOPs, once through", "paper"),
    "recipes": (),
    "data": (),
    "prompts": (),
}
COUNTS = resources.files("pictura") / "models" / "counts.json"  # by .venv/bin/python -m tests.test_facts
TIMED = 4  # steps
LONGEST = 30.0  # seconds of timed steps, after which fewer must do


def plan(recipe: Recipe) -> dict[str, float | int | None]:
    """What a run would take on this machine, from the recipe and a few measured steps. Nothing is kept.

    `examples` and `epochs` are None for a stream that was not told how many it holds.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prepared = prepare(replace(recipe, evaluation={}))
    trial = replace(recipe.training, evaluate_every=None)
    with tempfile.TemporaryDirectory() as scratch, enough_memory(recipe, device):
        optimizer = recipe.optimizer.scaled(recipe.loader.batch_size)
        trainer = Trainer(prepared.task, trial, optimizer, recipe.schedule, Path(scratch), device=device)
        with closing(prefetch(prepared.batches.iterate(), device)) as batches:
            flops = count_flops(trainer.task, {key: value[:2] for key, value in next(batches).items()})
            ahead = recipe.loader.workers * recipe.loader.prefetch
            with MemoryPeak(device) as memory:
                step = seconds_per_step(trainer, batches, skip=1 + ahead)
    peak = measured_peak(device, torch.bfloat16 if trial.precision == "bf16" else torch.float32)
    size, steps = recipe.loader.batch_size, recipe.training.steps
    examples = known_length(prepared.source)
    return {
        "parameters": sum(p.numel() for p in prepared.task.parameters()),
        "flops_per_sample": flops,
        "examples": examples,
        "batch_size": size,
        "steps": steps,
        "epochs": None if examples is None else steps / prepared.batches.steps_per_epoch,
        "memory_mib": memory.mib,
        "seconds_per_step": step,
        "samples_per_second": size / step,
        "share_of_peak": flops * size / step / peak,
        "hours": steps * step / 3600,
    }


def seconds_per_step(trainer: Trainer, batches: Iterator[Batch], skip: int) -> float:
    """Of a step, the median; and of waiting for its batch, the mean: batches of several workers come in bursts.

    The first `skip` steps are not counted: the very first allocates and compiles, and more find their batches ready.
    """
    waits, steps, began = list[float](), list[float](), time.perf_counter()
    for number in range(skip + TIMED):
        begin = time.perf_counter()
        batch = next(batches)
        arrived = time.perf_counter()
        trainer._advance(batch)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        waits.append(arrived - begin)
        steps.append(time.perf_counter() - arrived)
        if number == 0:
            began = time.perf_counter()
        elif time.perf_counter() - began > LONGEST:
            break
    return statistics.median(steps[1:]) + statistics.fmean(waits[-TIMED:] if len(waits) > TIMED else waits[1:])


def known_length(source: Source) -> int | None:
    """How many examples there are; None where nobody has said."""
    try:
        return len(source)
    except ValueError:  # a stream
        return None


def in_words(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A plan, for people: how much, of what."""
    f = facts
    examples = "not known" if f["examples"] is None else f"{f['examples']:,}"
    epochs = "" if f["epochs"] is None else f": {f['epochs']:.3g} epochs"
    return [
        (number(f["parameters"]), "parameters"),
        (f"{f['flops_per_sample'] / 1e9:,.3g} GFLOPs", "for each example, forward and backward"),
        (examples, "examples in the data"),
        (f"{f['steps']:,} steps", f"of {f['batch_size']:,} examples{epochs}"),
        (f"{f['memory_mib'] / 1024:.2f} GiB", "of memory at most, all that the process holds"),
        (f"{1000 * f['seconds_per_step']:,.0f} ms", f"for a step: {f['samples_per_second']:,.0f} examples a second"),
        (f"{f['share_of_peak']:.0%}", "of this machine's measured peak in matrix products"),
        (str(timedelta(seconds=round(3600 * f["hours"]))), "for the whole run, without its evaluations"),
    ]


def number(count: float) -> str:
    """A large count, to three figures."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:.3g} {word}"
    return f"{count:,.0f}"


def cells(row: str | Mapping[str, Any]) -> tuple[str, ...]:
    """A row of a catalogue as words: a sentence, or the facts of a model."""
    if isinstance(row, str):
        return (row,)
    return number(row["parameters"]), f"{row['gflops']:.3g}", str(row["source"])


def models() -> dict[str, dict[str, Any]]:
    """Every named size, of whole models and of towers for pictures: its parameters, the arithmetic of one picture (and
    one caption of full length, where it reads any), its paper."""
    known: dict[str, list[float]] = json.loads(COUNTS.read_text(encoding="utf-8"))
    return {
        name: dict(zip(("parameters", "gflops"), known.get(name) or counted(sized(cls, size)), strict=True))
        | {"source": "ours" if size in getattr(cls, "ours", ()) else source_of(cls)}
        for name, (cls, size) in named().items()
    }


def named() -> dict[str, tuple[type[Any], str]]:
    """Every named size: what it is called, its class and its size."""
    return {
        f"{kind} {size}": (cls, size)
        for base in (ModelConfig, ImageTowerConfig)
        for kind, cls in kinds(base).items()
        for size in getattr(cls, "sizes", {})
    }


def counted(config: Any) -> tuple[int, float]:
    """Parameters, and GFLOPs of one picture and one caption: a fifth of a second for a large one."""
    module = empty(config)
    return sum(p.numel() for p in module.parameters()), forward_flops(module, config) / 1e9


def forward_flops(model: Any, config: Any) -> float:
    """Of one picture, and one caption as long as the model reads: counted where nothing is computed."""
    model.eval()
    tower = config if isinstance(config, ImageTowerConfig) else config.tower
    picture = torch.empty(1, 3, tower.image_size, tower.image_size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if tower is config:
            model(picture)
        elif isinstance(config, ViLTConfig):
            return joint_flops(model, config, picture, counter)
        elif isinstance(config, ViLDConfig):
            return detector_flops(model, config, picture, counter)
        elif isinstance(config, CaptionerConfig):
            model(picture, torch.zeros(1, config.text.context_length, dtype=torch.long, device="meta"))
            return float(counter.get_total_flops())
        elif getattr(config, "classes", 0):
            model.classify(picture)
        else:
            model.encode_image(picture)
        if hasattr(config, "text"):
            model.encode_text(torch.zeros(1, config.text.context_length, dtype=torch.long, device="meta"))
    return float(counter.get_total_flops())


def joint_flops(model: ViLT, config: ViLTConfig, picture: Tensor, counter: FlopCounterMode) -> float:
    """A text's tokens are counted as further patches: how many there are in a batch is only known with its data."""
    patches = model.image.patch_embed(picture)
    tokens = torch.cat([patches, patches.new_empty(1, 1 + config.text.context_length, config.vit.width)], 1)
    for block in model.image.blocks:
        tokens = block(tokens)
    model.pooler(tokens[:, 0])
    return float(counter.get_total_flops())


def detector_flops(model: ViLD, config: ViLDConfig, picture: Tensor, counter: FlopCounterMode) -> float:
    """As many regions as it looks at, at most; names are next to nothing, and masks follow what is found."""
    maps = model.pyramid(model.image.maps(picture))
    model.proposer.rpn.head(maps)
    pooled = picture.new_empty(config.proposals, config.width, 7, 7)
    for head in filter(None, (model.regions, model.taught)):
        head.project(head(pooled))
    return float(counter.get_total_flops())


def source_of(cls: type) -> str:
    """The paper that the head of its file names first, by authors and year."""
    found = re.search(r"\(([A-Z]\w+(?: et al\.| and [A-Z]\w+)?)[^()]*?((?:19|20)\d\d)", about(cls))
    return f"{found[1]} {found[2]}" if found else ""


def data() -> dict[str, str]:
    """Every kind of data, and what it is, in the words of its file."""
    return {kind: head(cls) for kind, cls in kinds(SourceConfig).items()}


def prompts() -> dict[str, str]:
    """Every set of prompts that comes with the package: how many templates, for what, and whose."""
    return {name: f"{len(one.templates)}: {one.about}" for name, one in sets().items()}


def head(cls: type) -> str:
    """The first sentence on `cls`, without its name."""
    words = about(cls)
    return (words.partition(": ")[2] if words.startswith("`") else words).partition(". ")[0].rstrip(".")


def about(cls: type) -> str:
    """What the head of the file says in which `cls` is."""
    return " ".join((inspect.getdoc(inspect.getmodule(cls)) or "").split())


def catalogue(what: str) -> Mapping[str, Any]:
    """What `pictura list` shows."""
    every: dict[str, Callable[[], Mapping[str, Any]]] = {
        "models": models, "recipes": recipes, "data": data, "prompts": prompts,
    }  # fmt: skip
    return every[what]()
