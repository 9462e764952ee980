"""Objectives that combine by recipe alone, on every kind of tower; and what does not fit together."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pictura import run
from pictura.config import load
from pictura.prepare import prepare
from pictura.recipe import Recipe
from pictura.training.metrics import read_metrics

TOWERS: dict[str, dict[str, Any]] = {
    "vit": {"kind": "vit", "image_size": 16, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "drop_path": 0.2},
    "mixer": {
        "kind": "mixer", "image_size": 16, "patch_size": 8, "width": 32, "depth": 2, "tokens": 8, "channels": 32,
        "dropout": 0.1,
    },
    "resnet": {
        "kind": "resnet", "image_size": 16, "block": "basic", "layers": [1, 1, 1, 1], "width": 8, "stem": "cifar",
    },
}  # fmt: skip
CLIP: dict[str, Any] = {
    "model": {"kind": "clip", "embed_dim": 16, "text": {"kind": "transformer", "width": 32, "depth": 1, "heads": 2}},
    "data": {"kind": "scenes", "image_size": 16, "gives": ["image", "captions"], "count": 40},
    "tokenizer": {"kind": "train", "vocab_size": 600},
}
CLASSES: dict[str, Any] = {
    "model": {"kind": "classifier"},
    "data": {"kind": "scenes", "image_size": 16, "gives": ["image", "label"], "objects": [1, 1], "count": 40},
}
SIMCLR = {"kind": "simclr", "weight": 0.5, "schedule": [[0, 0], [0.5, 1]], "view": {"kind": "simclr", "size": "cifar"}}
TOGETHER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "slip": (CLIP, {"clip": {"kind": "clip"}, "simclr": SIMCLR}),
    "clip and rdrop": (CLIP, {"clip": {"kind": "rdrop", "of": {"kind": "clip"}}}),
    "rdrop": (CLASSES, {"class": {"kind": "rdrop", "of": {"kind": "classification"}}}),
    "simclr and classes": (CLASSES, {"class": {"kind": "classification"}, "simclr": SIMCLR}),
    "all": (CLIP, {"clip": {"kind": "rdrop", "of": {"kind": "clip"}}, "simclr": SIMCLR}),
}


def recipe(what: str, tower: str, *words: str) -> Recipe:
    given, objectives = TOGETHER[what]
    whole = given | {
        "model": given["model"] | {"image": TOWERS[tower]},
        "objectives": objectives,
        "view": {"kind": "none", "image_size": 16},
        "loader": {"batch_size": 8},
        "schedule": {"kind": "constant"},
        "training": {"steps": 4, "precision": "float32", "log_every": 1},
    }
    return load(Recipe, whole, overrides=words)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("what", TOGETHER)
def test_they_train_on_every_tower(what: str, tower: str, tmp_path: Path) -> None:
    run.train(recipe(what, tower), tmp_path / "run", say=lambda _: None)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    report = (tmp_path / "run" / "report.html").read_text()
    for name in TOGETHER[what][1]:
        assert f"{name}/<wbr>loss" in report or f"{name}/loss" in report, "every term has its curve"
        assert all(f"{name}/loss" in line for line in lines)
    if "simclr" in TOGETHER[what][1]:
        assert [line["simclr/weight"] for line in lines] == [0.0, 0.25, 0.5, 0.5]
    for name, objective in TOGETHER[what][1].items():
        if objective["kind"] == "rdrop" and tower != "resnet":
            assert lines[-1][f"{name}/kl"] > 0


def test_bf16_trains_them_too(tmp_path: Path) -> None:
    for tower in TOWERS:
        words = ("training.precision=bf16", "training.ema=0.9", "optimizer={kind: lars, scaling: sqrt, lr: 0.01}")
        found = run.train(recipe("all", tower, *words), tmp_path / tower, say=lambda _: None)
        assert all(torch.tensor(value).isfinite() for value in found.values())


@pytest.mark.parametrize(
    ("what", "words", "message"),
    [
        ("slip", ("loader.batch_size=1",), r"loader\.batch_size: 1, but objectives\.clip compares the examples"),
        (
            "slip",
            ("objectives.simclr.view.image_size=32",),
            r"objectives\.simclr\.image_size: views of 32 pixels are cut out of pictures of 16",
        ),
        (
            "slip",
            ("objectives.simclr.view.image_size=8",),
            r"objectives: the model would see pictures of two sizes \(clip of 16, simclr of 8\)",
        ),
        ("simclr and classes", ("data.gives=[image, captions]",), r"objectives\.class: needs label of every"),
        ("slip", ("training.micro_batch=4",), r"micro_batch: .*is batch norm"),
        (
            "simclr and classes",
            ("training.freeze=[image, head]", "objectives.simclr.head=0"),
            r"training\.freeze: nothing is left to train",
        ),
        (
            "slip",
            ("evaluation={e: {kind: accuracy, data: {kind: scenes, objects: [1, 1], gives: [image, label]}}}",),
            r"evaluation\.e: this model \(clip\) has no head",
        ),
        (
            "rdrop",
            ("evaluation={e: {kind: retrieval, data: {kind: scenes, image_size: 16, count: 9}}}",),
            r"evaluation\.e: this model \(classifier\) reads no texts",
        ),
        (
            "slip",
            ("evaluation={e: {kind: alignment, view: {kind: simclr, image_size: 8}, data: {kind: scenes, count: 9}}}",),
            r"evaluation\.e: view\.image_size: 8, but the model sees 16; leave it out",
        ),
        ("rdrop", ("objectives.class.of={kind: simclr}",), r"objectives\.class\.of: SimCLR predicts nothing"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_trained(
    what: str, words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        run.train(recipe(what, "vit", *words), tmp_path / "run", say=lambda _: None)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_views_are_smaller_than_the_pictures_they_are_cut_from(tmp_path: Path) -> None:
    words = (
        "objectives.class=null",
        "view.image_size=24",
        "data.image_size=24",
        "objectives.simclr.view.image_size=16",
    )
    prepared = prepare(recipe("simclr and classes", "vit", *words))
    batch = next(iter(prepared.batches.iterate()))
    assert batch["image"].shape[2:] == (24, 24) and len(batch["seed"]) == 8
    assert prepared.task(batch).loss.isfinite()


def test_seeds_belong_to_examples_and_epochs(tmp_path: Path) -> None:
    one, four = (
        prepare(recipe("slip", "vit", f"loader.workers={workers}", "loader.batch_size=20")) for workers in (0, 2)
    )
    seen = []
    for prepared in (one, four):
        batches = prepared.batches.iterate()
        seen.append(
            [dict(zip(b["index"].tolist(), b["seed"], strict=True)) for b, _ in zip(batches, range(4), strict=False)]
        )
    assert seen[0] == seen[1]
    first, second = seen[0][0] | seen[0][1], seen[0][2] | seen[0][3]
    assert first.keys() == second.keys() and not set(first.values()) & set(second.values())


def test_a_run_that_stopped_goes_on_to_the_same_losses(tmp_path: Path, one_thread: None) -> None:
    words = ("training.save_every=2", "optimizer={kind: lars, scaling: linear}", "objectives.simclr.schedule=[]")
    run.train(recipe("all", "vit", *words), tmp_path / "whole", say=lambda _: None)
    run.train(recipe("all", "vit", *words, "training.steps=2"), tmp_path / "part", say=lambda _: None)
    run.resume(tmp_path / "part", ["training.steps=4"], say=lambda _: None)
    whole, part = (
        [line["simclr/loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("whole", "part")
    )
    assert part[2:] == whole[2:]
