"""What can be known before anything is trained: what a run would take, and what there is to choose from."""

import inspect
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pictura.config import kinds, sized
from pictura.data.batches import prefetch
from pictura.data.source import SourceConfig
from pictura.models.base import ModelConfig
from pictura.recipe import Recipe, prepare, recipes
from pictura.training.flops import count_flops
from pictura.training.loop import Trainer
from pictura.training.memory import MemoryPeak
from pictura.training.progress import measured_peak
from pictura.weights.folder import empty

TRIAL = 4  # steps that are timed; the first of them allocates


def plan(recipe: Recipe) -> dict[str, float | int]:
    """What a run would take on this machine, from the recipe and a few measured steps. Nothing is kept."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prepared = prepare(replace(recipe, evaluation={}))
    trial = replace(recipe.training, steps=TRIAL, evaluate_every=None, compile=False)
    schedule = replace(recipe.schedule, warmup=0)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(prepared.task, trial, recipe.optimizer, schedule, Path(scratch), device=device)
    batches = prefetch(prepared.batches.iterate(), device)
    batch = next(batches)
    batches.close()
    flops = count_flops(trainer.task, {key: value[:2] for key, value in batch.items()})
    seconds = []
    with MemoryPeak(device) as memory:
        for _ in range(TRIAL):
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


def in_words(facts: Mapping[str, float]) -> list[tuple[str, str]]:
    """A plan, for people: how much, of what."""
    f = facts
    return [
        (number(f["parameters"]), "parameters"),
        (f"{f['flops_per_sample'] / 1e9:,.3g} GFLOPs", "for each example, forward and backward"),
        (f"{f['examples']:,}", "examples in the data"),
        (f"{f['steps']:,} steps", f"of {f['batch_size']:,} examples: {f['epochs']:.3g} epochs"),
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
    return f"{number(row['parameters'])} parameters", f"{row['gflops']:.3g} GFLOPs", row["source"]


def models() -> dict[str, dict[str, Any]]:
    """Every published size: its parameters, the arithmetic of one picture and one caption of full length, its paper."""
    rows = {}
    for kind, cls in kinds(ModelConfig).items():
        for size in getattr(cls, "sizes", {}):
            config: Any = sized(cls, size)
            model: Any = empty(config)
            rows[f"{kind} {size}"] = {
                "parameters": sum(p.numel() for p in model.parameters()),
                "gflops": forward_flops(model, config) / 1e9,
                "source": source_of(cls),
            }
    return rows


def forward_flops(model: Any, config: Any) -> float:
    """Of one picture and one caption as long as the model reads, without a batch: counted where nothing is computed."""
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.encode_image(torch.empty(1, 3, config.image.image_size, config.image.image_size, device="meta"))
        model.encode_text(torch.zeros(1, config.text.context_length, dtype=torch.long, device="meta"))
    return float(counter.get_total_flops())


def source_of(cls: type) -> str:
    """The paper that the head of its file names: `CLIP (Radford et al., …, 2021): …`."""
    return about(cls).partition("(")[2].partition(")")[0]


def data() -> dict[str, str]:
    """Every kind of data, and what it is, in the words of its file."""
    return {kind: head(cls) for kind, cls in kinds(SourceConfig).items()}


def head(cls: type) -> str:
    """The first sentence on `cls`, without its name."""
    words = about(cls)
    return (words.partition(": ")[2] if words.startswith("`") else words).partition(". ")[0].rstrip(".")


def about(cls: type) -> str:
    """What the head of the file says in which `cls` is."""
    return " ".join((inspect.getdoc(inspect.getmodule(cls)) or "").split())


def catalogue(what: str) -> Mapping[str, Any]:
    """What `pictura list` shows."""
    return models() if what == "models" else recipes() if what == "recipes" else data()
