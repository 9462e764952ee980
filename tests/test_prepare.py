"""A recipe made real: what begins from another model, what does not fit together, and samples that cannot be used."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import pictura
from pictura import run
from pictura.cli import mendable
from pictura.data.scenes import ScenesConfig
from pictura.data.views import CropConfig
from pictura.layers.linear import runs_here
from pictura.layers.positions import resize_positions
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIPConfig
from pictura.prepare import givers, prepare
from pictura.weights.folder import save_folder
from tests.tiny import losses, tiny, with_torn_pictures

# Beginning with a model that is there


def test_a_run_that_began_with_another_goes_on_without_it(trained: Path, tmp_path: Path, one_thread: None) -> None:
    """Its own weights and tokenizer are all that it needs."""
    shutil.copytree(trained / "model", tmp_path / "model")
    recipe = tiny(f"initial={tmp_path / 'model'}", "model=null", "tokenizer=null", "schedule={kind: constant}")
    run.train(recipe, tmp_path / "whole")
    run.train(replace(recipe, training=replace(recipe.training, steps=10)), tmp_path / "part")
    shutil.rmtree(tmp_path / "model")
    run.resume(tmp_path / "part", ["training.steps=20"])
    assert losses(tmp_path / "part") == losses(tmp_path / "whole")


def test_a_clip_can_begin_with_the_tower_of_a_classifier(tmp_path: Path) -> None:
    """Its words are new then."""
    tower = tiny().model.image  # type: ignore[union-attr]
    classifier = ClassifierConfig(image=tower, classes=3).build()
    save_folder(tmp_path / "classifier", classifier, None)
    changes = (f"initial={tmp_path / 'classifier'}", "model.image=null")
    prepared = prepare(tiny(*changes))
    assert prepared.tokenizer is not None
    own = prepared.task.model.image.state_dict()  # type: ignore[union-attr]
    for name, value in classifier.image.state_dict().items():
        assert torch.equal(own[name], value), name
    with pytest.raises(ValueError, match="tokenizer: missing; the words are new"):
        prepare(tiny(*changes, "tokenizer=null"))


def test_a_tokenizer_beside_initial_is_refused(trained: Path) -> None:
    with pytest.raises(ValueError, match="tokenizer: given beside `initial`"):
        prepare(tiny(f"initial={trained / 'model'}", "model=null"))


def test_fine_tuning_at_a_higher_resolution(trained: Path, tmp_path: Path) -> None:
    """Everything but the positions stays; they are resized; the size is in every configuration afterwards."""
    words = (f"initial={trained / 'model'}", "model=null", "tokenizer=null", "view.image_size=32", "data.image_size=32")
    recipe = tiny(*words, "training.steps=4")
    prepared = prepare(recipe)
    stored = load_file(trained / "model" / "model.safetensors")
    stored["image.pos_embed"] = resize_positions(stored["image.pos_embed"], (2, 2), (4, 4))
    for name, tensor in prepared.task.model.state_dict().items():
        assert torch.equal(tensor, stored[name]), name
    run.train(recipe, tmp_path / "large")
    for place in ("config.yaml", "model/config.yaml"):
        assert "image_size: 32" in (tmp_path / "large" / place).read_text()
    assert pictura.load(tmp_path / "large" / "model").embedder.view.image_size == 32
    again = prepare(replace(recipe, model=prepared.recipe.model))  # told by the model's configuration too
    assert again.recipe.model == prepared.recipe.model
    assert torch.equal(again.task.model.state_dict()["image.pos_embed"], stored["image.pos_embed"])


def test_a_size_that_the_patches_do_not_fill(trained: Path) -> None:
    words = (f"initial={trained / 'model'}", "model=null", "tokenizer=null")
    with pytest.raises(ValueError, match=r"view\.image_size: 20 does not suit .*no multiple of patch_size 8"):
        prepare(tiny(*words, "view.image_size=20"))


# What does not fit together


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("view.image_size=24", r"view\.image_size: 24, but model\.image\.image_size is 16; give both the same"),
        ("view={kind: crop, image_size: 16, resize: squash}", r"view\.resize: squash, but model\.resize is shortest"),
        (
            "view={kind: crop, image_size: 16, interpolation: bilinear}",
            r"view\.interpolation: bilinear, but model\.interpolation is bicubic",
        ),
    ],
)
def test_a_view_that_is_not_the_models(words: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        prepare(tiny(words))


def test_a_view_that_is_the_models() -> None:
    prepared = prepare(tiny("view={kind: crop, image_size: 16, resize: squash}", "model.resize=squash"))
    assert isinstance(prepared.recipe.view, CropConfig)


@pytest.mark.parametrize("error", [ValueError, ZeroDivisionError, RuntimeError])
def test_sizes_that_make_no_model_are_one_line(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: CLIPConfig) -> None:
        raise error("not with\nthese")

    monkeypatch.setattr(CLIPConfig, "build", failing)
    with pytest.raises(ValueError, match=r"^model: cannot be built with these sizes: not with these$") as caught:
        prepare(tiny())
    assert mendable(caught.value)


# Precision


def test_precisions_answer_alike(trained: Path) -> None:
    scenes = ScenesConfig(count=8, image_size=16).build()
    images = [image for n in range(8) if isinstance(image := scenes[n]["image"], np.ndarray)]
    texts = ["a red star", "a blue ring", "something"]
    exact = pictura.load(trained / "model", dtype=torch.float32)
    quick = pictura.load(trained / "model", dtype=torch.bfloat16)
    assert {p.dtype for p in quick.model.parameters() if p.dim()} == {torch.bfloat16}
    default = next(p.dtype for p in pictura.load(trained / "model", device="cpu").model.parameters() if p.dim())
    assert default is (torch.bfloat16 if runs_here() else torch.float32)
    for one, two in (
        (exact.embed_images(images), quick.embed_images(images)),
        (exact.embed_texts(texts), quick.embed_texts(texts)),
    ):
        assert two.dtype == np.float32
        assert 0 < np.abs(one - two).max() < 1e-2
        np.testing.assert_allclose(np.linalg.norm(two, axis=1), 1, rtol=1e-5)


# Samples that cannot be used


def test_bad_samples_are_told_and_survive_a_resume(tmp_path: Path) -> None:
    data = with_torn_pictures(tmp_path)
    recipe = tiny(data, "loader.max_bad=0.1", "loader.batch_size=8", "training.steps=10")
    told: list[str] = []
    run.train(recipe, tmp_path / "run", say=told.append)
    rows = [json.loads(line) for line in (tmp_path / "run" / "bad.jsonl").read_text().splitlines()]
    assert sorted(Path(row["sample"]).name[:2] for row in rows) == ["07", "30"]
    assert any(re.search(r"bad samples: 2 could not be used; .*bad\.jsonl and the report", line) for line in told)
    assert any("report: " in line and "report.html" in line for line in told)
    told.clear()
    run.resume(tmp_path / "run", ["training.steps=11"], say=told.append)
    assert any("bad samples: 2 " in line for line in told), "that one step met not all of them"
    assert all(row["sample"] in (tmp_path / "run" / "report.html").read_text() for row in rows)


def test_what_gives_what() -> None:
    assert {"coco", "sidecar", "table", "scenes", "shards", "image_text"} <= set(givers("captions"))
    assert "folder" not in givers("captions")
    assert {"folder", "table"} <= set(givers("label"))
    assert not {"coco", "sidecar"} & set(givers("label"))
