"""A CLIP teaches a detector: the smallest runs, whole, as the commands make them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pictura.cli import main
from pictura.config import to_yaml
from pictura.config.loader import load
from pictura.models.vild import ViLD
from pictura.prepare import prepare
from pictura.recipe import Recipe
from pictura.run import resume, teach, train
from pictura.weights.foreign import load_model
from tests.tiny import TINY, losses, tiny

BASE = ["circle", "square", "star", "ring"]
SCENES: dict[str, Any] = {"kind": "scenes", "count": 24, "image_size": 64, "objects": [2, 4], "label_of": "shape"}
SCENES |= {"split": "everything", "gives": ["image", "boxes"]}
DETECTOR: dict[str, Any] = {key: TINY[key] for key in ("about", "optimizer", "schedule")} | {
    "model": {
        "kind": "vild", "width": 16, "proposals": 20, "detections": 10, "anchors": 4, "head": {"width": 32},
        "image": {"kind": "resnet", "block": "basic", "layers": [1, 1, 1, 1], "width": 8, "image_size": 64},
    },
    "objectives": {"detection": {"kind": "detection", "regions": 16, "anchors": 32}},
    "data": {"kind": "partly_labelled", "classes": BASE, "of": SCENES},
    "view": {"kind": "none", "image_size": 64},
    "loader": {"batch_size": 8},
    "training": {"steps": 4, "precision": "bf16", "log_every": 1, "save_every": 2},
}  # fmt: skip


class Made:
    """What the commands have left."""

    def __init__(self, folder: Path) -> None:
        self.teacher, self.base, self.run = folder / "teacher" / "model", folder / "base" / "model", folder / "run"
        train(tiny("training.steps=4"), folder / "teacher")
        train(load(Recipe, DETECTOR), folder / "base")
        taught = {"kind": "taught", "store": str(folder / "regions"), "of": SCENES}
        objectives = DETECTOR["objectives"] | {"distillation": {"kind": "distillation", "regions": 4, "weight": 0.5}}
        self.recipe: dict[str, Any] = DETECTOR | {
            "initial": str(self.teacher),
            "objectives": objectives,
            "data": DETECTOR["data"] | {"of": taught},
            "evaluation": {"found": {"kind": "detection", "data": SCENES | {"seed": 1, "count": 6}}},
        }
        self.path = folder / "vild.yaml"
        self.path.write_text(to_yaml(load(Recipe, self.recipe)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("vild"))
    words = ["teach", str(made.path), "--teacher", str(made.teacher), "--proposer", str(made.base), "--regions", "6"]
    assert main([*words, "--json"]) == 0
    train(load(Recipe, made.recipe), made.run)
    return made


def test_it_learns_from_boxes_and_from_the_teacher(made: Made) -> None:
    model, tokenizer = load_model(made.run / "model")
    assert isinstance(model, ViLD) and tokenizer is not None
    assert model.config.class_names == tuple(BASE)
    results = json.loads((made.run / "results.json").read_text())
    assert {"detection/AP", "detection/AP/base", "detection/AP/novel", "distillation/cosine"} <= set(results)
    clip, _ = load_model(made.teacher)
    assert torch.equal(model.state_dict()["text_projection.weight"], clip.state_dict()["text_projection.weight"])
    assert len(losses(made.run)) == 4


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_run_that_is_stopped_goes_on_to_the_same_losses(made: Made, tmp_path: Path, ensemble: bool) -> None:
    wanted = load(Recipe, made.recipe | {"evaluation": {}}, overrides=(f"model.ensemble={str(ensemble).lower()}",))
    for name in ("whole", "again"):
        train(wanted, tmp_path / name)
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step-000004")
    (tmp_path / "again" / "results.json").unlink()
    resume(tmp_path / "again")
    assert losses(tmp_path / "again") == losses(tmp_path / "whole")


def test_detect_finds_any_name_and_draws(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8)).save(image)
    words = ["detect", str(made.run / "model"), str(image), "house", "red star", "--threshold", "0", "--top", "3"]
    assert main([*words, "--json", "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)[str(image)]
    assert len(found) == 3 and {one["label"] for one in found} <= {"house", "red star"}
    assert all(set(one["box"]) == {"xmin", "ymin", "xmax", "ymax"} for one in found)
    with Image.open(tmp_path / "out" / "a.png") as drawn:
        assert drawn.size == (80, 50)
    coco = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [one["name"] for one in coco["categories"]] == ["house", "red star"]
    assert main([*words, "--json", "--out", str(tmp_path / "more"), "--attributes", "small,blue"]) == 0
    found = json.loads(capsys.readouterr().out)[str(image)]
    every = ["small house", "blue house", "small red star", "blue red star"]
    assert len(found) == 3 and {one["label"] for one in found} <= set(every)
    coco = json.loads((tmp_path / "more" / "detections.json").read_text())
    assert [one["name"] for one in coco["categories"]] == every
    for words, says in (
        ([str(made.run / "model"), "house"], "give a picture file"),
        ([str(made.run / "model"), str(tmp_path / "gone.png")], "gone.png"),
        ([str(made.teacher), str(image)], "finds no things in pictures; train a vild"),
        ([str(made.base), str(image), "house"], "was not trained on 'house'; it finds circle"),
        ([str(made.run / "model"), str(image), "--out", str(tmp_path)], "is one of the pictures"),
        ([str(made.run / "model"), str(image), "--top", "0"], "--top: 0"),
    ):
        assert main(["detect", *words]) == 2
        assert says in capsys.readouterr().err


def test_a_detector_is_built_on_the_tower_of_another_model(made: Made, tmp_path: Path) -> None:
    image = {"kind": "resnet", "block": "basic", "layers": [1, 1, 1, 1], "width": 8, "image_size": 32}
    labelled = SCENES | {"objects": [1, 1], "gives": ["image", "label"], "image_size": 32}
    classifier = {key: DETECTOR[key] for key in ("about", "optimizer", "schedule", "loader", "training")} | {
        "model": {"kind": "classifier", "image": image, "mean": [0.1, 0.2, 0.3]},
        "objectives": {"class": {"kind": "classification"}},
        "data": labelled,
        "view": {"kind": "none", "image_size": 32},
    }
    train(load(Recipe, classifier), tmp_path / "classifier")
    tower, _ = load_model(tmp_path / "classifier" / "model")
    wanted = {key: value for key, value in DETECTOR["model"].items() if key != "image"}
    for recipe in (DETECTOR, made.recipe):  # with learnt classes, and with a CLIP's words
        on_it = load(Recipe, recipe | {"model": wanted, "tower": str(tmp_path / "classifier" / "model")})
        prepared = prepare(on_it)
        config: Any = prepared.recipe.model
        assert config.tower.image_size == 64 and config.mean == (0.1, 0.2, 0.3)
        assert (config.text is not None) == ("initial" in recipe)
        own, theirs = prepared.task.model.state_dict(), tower.state_dict()
        same = [torch.equal(own[name], theirs[name]) for name in theirs if name.startswith("image.")]
        assert len(same) > 30 and all(same)
    train(load(Recipe, DETECTOR | {"model": wanted, "tower": str(tmp_path / "classifier" / "model")}), tmp_path / "run")
    shutil.rmtree(tmp_path / "classifier")
    resume(tmp_path / "run", ["training.steps=6"])
    assert len(losses(tmp_path / "run")) == 6
    with pytest.raises(ValueError, match="given beside `tower`, and is another"):
        prepare(load(Recipe, DETECTOR | {"tower": str(made.teacher)}))
    with pytest.raises(ValueError, match="tower: only a detector is built on another"):
        load(Recipe, classifier | {"tower": "x"})


def test_templates_that_are_no_set_are_refused_before_training(made: Made) -> None:
    prepare(load(Recipe, made.recipe, overrides=("model.templates=scene",)))
    with pytest.raises(ValueError, match="templates: 'sceen' is no set"):
        prepare(load(Recipe, made.recipe, overrides=("model.templates=sceen",)))


def test_a_store_of_another_teacher_is_refused(made: Made, tmp_path: Path) -> None:
    train(tiny("training.steps=3", "seed=9"), tmp_path / "other")
    other = load(Recipe, made.recipe, overrides=(f"initial={tmp_path / 'other' / 'model'}",))
    with pytest.raises(ValueError, match=r"were embedded by another model than .*other"):
        prepare(other)
    with pytest.raises(ValueError, match="another teacher"):
        teach(other, tmp_path / "other" / "model", made.base, 6)
    with pytest.raises(ValueError, match="none of it is of kind `taught`"):
        teach(load(Recipe, DETECTOR), made.teacher, made.base)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"view": {"kind": "fit", "image_size": 64, "patch_size": 16}}, "try jitter or none"),
        ({"view": {"kind": "random_crop", "image_size": 64}}, "try jitter or none"),
        ({"model": {"kind": "vild", "text": {"kind": "transformer"}}, "tokenizer": TINY["tokenizer"]}, "model.text: a"),
        ({"data": {"kind": "scenes", "count": 8}}, "needs boxes"),
        ({"initial": "TEACHER", "model": None}, "no detector; train a vild"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_training(made: Made, changes: dict[str, Any], says: str) -> None:
    if changes.get("initial") == "TEACHER":
        changes = {**changes, "initial": str(made.teacher), "view": {"kind": "none", "image_size": 16}}
    with pytest.raises(ValueError, match=says):
        prepare(load(Recipe, {key: value for key, value in (DETECTOR | changes).items() if value is not None}))
