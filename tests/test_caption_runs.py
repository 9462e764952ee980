"""A captioner on the tower of a trained CLIP: the smallest run, whole."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pictura.config import load
from pictura.data.scenes import ScenesConfig
from pictura.evaluation.captions import told
from pictura.evaluation.embed import Embedder, Pictures
from pictura.models.captioner import Captioner
from pictura.prepare import prepare
from pictura.recipe import Recipe
from pictura.run import resume, train
from pictura.weights.foreign import load_model
from tests.tiny import TINY, losses

SCENES = {"kind": "scenes", "count": 20, "image_size": 16, "objects": [1, 1], "captions": 3, "split": "fresh"}
CAPTIONS: dict[str, Any] = TINY | {
    "model": {"kind": "captioner", "prefix": 3, "text": {"width": 32, "depth": 2, "heads": 2, "context_length": 24}},
    "objectives": {"captioning": {"kind": "captioning"}},
    "training": TINY["training"] | {"freeze": ["image", "image_projection"]},
    "evaluation": {"fresh": {"kind": "captions", "beams": 2, "data": SCENES}},
}


def captions_on(model: Path, *overrides: str) -> Recipe:
    return load(Recipe, CAPTIONS | {"initial": str(model)}, overrides=overrides)


def test_from_a_clip_to_captions(trained: Path, tmp_path: Path, one_thread: None) -> None:
    """Its tower stays as it was; what is trained is measured, kept in a folder, and tells the same from there."""
    metrics = train(captions_on(trained / "model"), tmp_path / "run")
    found = list(map(float, losses(tmp_path / "run").values()))
    assert sum(found[-5:]) < sum(found[:5])
    assert {"captions/CIDEr", "captions/BLEU-4", "captions/ROUGE-L"} < metrics.keys()
    assert "captions: told and true" in (tmp_path / "run" / "report.html").read_text()
    clip, _ = load_model(trained / "model")
    model, tokenizer = load_model(tmp_path / "run" / "model")
    assert isinstance(model, Captioner)
    for name, value in clip.state_dict().items():
        if name.startswith("image."):
            assert torch.equal(model.state_dict()[name], value), name
    embedder = Embedder(model, tokenizer)
    ((said, _),) = told(embedder, Pictures([ScenesConfig(image_size=16).build()[0]["image"]]))  # type: ignore[list-item]
    assert len(said) == 1 and isinstance(said[0][0], str) and said[0][1] < 0
    more = resume(tmp_path / "run", ["training.steps=22"])
    assert more["captions/CIDEr"] >= 0


def test_the_words_are_its_own(trained: Path) -> None:
    with pytest.raises(ValueError, match="tokenizer: missing; the words are new to the model of `initial`"):
        prepare(captions_on(trained / "model", "tokenizer=null"))
    with pytest.raises(ValueError, match=r"objectives\.captioning: needs a model that tells captions, not clip"):
        prepare(captions_on(trained / "model", "model=null", "tokenizer=null"))
