"""Every recipe in the package: read, built as large as it is, and trained for twenty steps as small as it can be."""

import tempfile
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pictura.config import load, to_dict
from pictura.data.fit import FitConfig
from pictura.data.region_store import RegionStore
from pictura.data.scenes import ScenesConfig
from pictura.data.taught import TaughtConfig
from pictura.data.wordpiece import WordPieceTokenizerConfig
from pictura.facts import forward_flops
from pictura.models.classifier import ClassifierConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.vilt import ViLTConfig
from pictura.models.vit import ViTConfig
from pictura.prepare import prepare
from pictura.recipe import Recipe, read_recipe, recipe_names
from pictura.run import go, trainer_of
from pictura.training.metrics import read_metrics
from pictura.weights.folder import empty

# What learns nothing in so few steps from fresh weights, but must not get worse.
LATE = dict.fromkeys(("vilt-retrieval", "vilt-flickr30k", "vilt-nlvr2"), 1.02)
SMALL = {"width": 32, "depth": 2, "heads": 2, "embed_dim": 16, "channels": 4}


def shrunk(config: Any) -> Any:
    """A configuration with everything in it that has a size made small."""
    changes = {f.name: shrunk(getattr(config, f.name)) for f in fields(config) if is_dataclass(getattr(config, f.name))}
    changes |= {f.name: SMALL[f.name] for f in fields(config) if f.name in SMALL}
    return replace(config, **changes)


def whole(recipe: Recipe) -> Any:
    """Its model, with a tower where it leaves that to an `initial` one."""
    assert recipe.model is not None
    if isinstance(recipe.model, PictureModelConfig) and recipe.model.image is None:
        return replace(
            recipe.model,
            image=ViTConfig(image_size=recipe.view.image_size, patch_size=getattr(recipe.view, "patch_size", 16)),
        )
    return recipe.model


def with_regions(data: ScenesConfig) -> TaughtConfig:
    """The data, and what a teacher would have said of two regions in each picture: always the same."""
    folder, source = Path(tempfile.mkdtemp()), data.build()
    store = RegionStore.create(folder / "store", {}, examples=len(source), regions=2, width=SMALL["embed_dim"])
    boxes = np.array([[4, 4, 60, 60], [30, 30, 120, 120]], np.float32)
    for index in range(len(source)):
        store.write(index, source[index]["key"], boxes, np.eye(2, SMALL["embed_dim"]))
    store.flush()
    return TaughtConfig(of=data, store=folder / "store")


def toy(name: str) -> Recipe:
    """The recipe at toy size, on scenes of its pictures' size where its own data is not on every machine."""
    recipe = read_recipe(name)
    if isinstance(recipe.view, FitConfig):
        recipe = replace(recipe, view=replace(recipe.view, image_size=min(96, recipe.view.image_size)))
    size = recipe.view.image_size
    labelled = isinstance(recipe.model, ClassifierConfig)
    data = recipe.data if isinstance(recipe.data, ScenesConfig) else ScenesConfig(image_size=size, objects=(1, 2))
    needs = frozenset().union(*(objective.build().needs for objective in recipe.objectives.values()))
    for need, part in (("question", "question"), ("statement", "statement")):
        if need in needs:
            data = replace(data, gives=("image", part) if need == "question" else (part,))
    if labelled:
        data = replace(data, objects=(1, 1), gives=("image", "label"), label_of="colour")
    if "boxes" in needs:
        data = replace(data, gives=("image", "boxes"), label_of="shape")
    tokenizer = recipe.tokenizer and load(type(recipe.tokenizer), to_dict(recipe.tokenizer) | {"max_captions": 500})
    if tokenizer is None and isinstance(recipe.model, ViLTConfig):  # that of `initial`
        tokenizer = WordPieceTokenizerConfig(vocab_size=240, max_captions=500)
    training = replace(recipe.training, steps=20, save_every=20, log_every=1, compile=False, micro_batch=None)
    return replace(
        recipe,
        initial=None,
        model=shrunk(whole(recipe)),
        data=with_regions(replace(data, count=1000)) if "regions" in needs else replace(data, count=1000),
        tokenizer=tokenizer,
        loader=replace(recipe.loader, batch_size=32, workers=0),
        schedule=replace(recipe.schedule, warmup=5),
        training=training,
        evaluation={},
    )


@pytest.mark.parametrize("name", recipe_names())
def test_it_says_what_it_is_for(name: str) -> None:
    assert 20 < len(read_recipe(name).about) < 400


@pytest.mark.parametrize("name", recipe_names())
def test_it_is_built_and_computes_as_large_as_it_is(name: str) -> None:
    """Without memory: every shape fits every other."""
    model = whole(read_recipe(name))
    assert forward_flops(empty(model), model) > 0


@pytest.mark.parametrize("name", recipe_names())
def test_it_is_written_out_and_read_back(name: str) -> None:
    recipe = read_recipe(name)
    assert load(Recipe, to_dict(recipe)) == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_twenty_steps(name: str, tmp_path: Path) -> None:
    prepared = prepare(toy(name))
    before = {key: value.clone() for key, value in prepared.task.model.state_dict().items()}
    go(prepared, trainer_of(prepared, tmp_path, torch.device("cpu")))
    after = prepared.task.model.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])], "nothing has moved"
    losses = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert len(losses) == 20
    assert sum(losses[-5:]) < LATE.get(name, 1.0) * sum(losses[:5]), losses
