"""Folders that open_clip and transformers have written, opened as they are."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from transformers import CLIPConfig as TheirConfig
from transformers import CLIPImageProcessor, CLIPModel

from pictura.config import load
from pictura.data.text import Tokenizer
from pictura.evaluation.ready import load as load_ready
from pictura.models.clip import CLIP
from pictura.recipe import Recipe, prepare
from pictura.weights.folder import load_folder, save_folder
from pictura.weights.foreign import load_model
from tests.tiny import TINY
from tests.weights.peers import alike, stir

VISION = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 64, "head_width": 32}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A folder as open_clip's `push_to_hf_hub` fills it (CLIP's own tokenizer has no files), and its model."""
    folder = tmp_path_factory.mktemp("open_clip") / "model"
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
    model = stir(open_clip.CLIP(**config), 0)
    pushing = sys.modules["open_clip.push_to_hf_hub"]
    without = type("Without", (), {"save_pretrained": lambda self, folder: None})()
    model.visual.image_mean, model.visual.image_std = (0.5, 0.4, 0.3), (0.3, 0.3, 0.2)
    pushing.save_for_hf(model, without, config, str(folder), safe_serialization="both")
    return folder, model


@pytest.fixture(scope="module")
def hugging(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> tuple[Path, CLIPModel]:
    folder = tmp_path_factory.mktemp("hugging") / "model"
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = shape | {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 12, "eos_token_id": tokenizer.end}
    vision = shape | {"image_size": 32, "patch_size": 8}
    model = stir(CLIPModel(TheirConfig(text_config=text, vision_config=vision, projection_dim=24)), 1)
    assert isinstance(model, CLIPModel)
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32, image_mean=[0.5, 0.4, 0.3]).save_pretrained(folder)
    tokenizer.save(folder)
    return folder, model


def pictures() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("kept", ["safetensors", "bin"])
def test_open_clip(theirs: tuple[Path, torch.nn.Module], kept: str, tmp_path: Path) -> None:
    folder, peer = theirs
    shutil.copytree(folder, tmp_path / "model")
    for file in (tmp_path / "model").glob("open_clip_*model.*"):
        if file.suffix != f".{kept}":
            file.unlink()
    model, words = load_model(tmp_path / "model")
    assert isinstance(model, CLIP)
    text = words(["a red dog", "an old house of stone, by the sea"])
    assert torch.equal(
        text,
        open_clip.get_tokenizer("ViT-B-32")(["a red dog", "an old house of stone, by the sea"], 16)[:, : text.shape[1]],
    )
    padded = torch.nn.functional.pad(text, (0, 16 - text.shape[1]))
    alike(model.eval().encode_image(pictures()), peer.encode_image(pictures()))
    alike(model.encode_text(text), peer.encode_text(padded))
    assert (model.config.mean, model.config.std) == ((0.5, 0.4, 0.3), (0.3, 0.3, 0.2))


@torch.no_grad()
def test_hugging_face(hugging: tuple[Path, CLIPModel], tokenizer: Tokenizer) -> None:
    folder, peer = hugging
    model, words = load_model(folder)
    assert isinstance(model, CLIP)
    text = words(["a red dog", "the old house"])
    assert torch.equal(text, tokenizer(["a red dog", "the old house"]))
    alike(model.eval().encode_image(pictures()), peer.get_image_features(pictures()).pooler_output)
    alike(model.encode_text(text), peer.get_text_features(text).pooler_output)
    assert model.config.mean == (0.5, 0.4, 0.3)


def test_in_another_precision_a_temperature_stays(theirs: tuple[Path, torch.nn.Module]) -> None:
    model, _ = load_model(theirs[0], dtype=torch.bfloat16)
    assert {name for name, p in model.named_parameters() if p.dtype is torch.float32} == {"logit_scale"}


def test_a_run_begins_with_one_and_it_answers(hugging: tuple[Path, CLIPModel]) -> None:
    assert load_ready(hugging[0]).embed_texts(["a red dog"]).shape == (1, 24)
    view = {"kind": "random_crop", "image_size": 48}
    changes = {"initial": str(hugging[0]), "model": None, "tokenizer": None, "view": view}
    prepared = prepare(load(Recipe, TINY | changes))
    stored = load_model(hugging[0])[0].state_dict()
    found = prepared.task.model.state_dict()
    assert found["image.pos_embed"].shape == (1, 37, 64), "of 48 pixels now"
    assert all(torch.equal(found[name], stored[name]) for name in stored if name != "image.pos_embed")


def test_ours_is_opened_as_before(tmp_path: Path, make: Callable[..., CLIP], tokenizer: Tokenizer) -> None:
    save_folder(tmp_path / "model", make(), tokenizer)
    ours, same = load_model(tmp_path / "model")[0], load_folder(tmp_path / "model")[0]
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), same.parameters(), strict=True))


def test_of_two_the_one_whose_weights_are_there(
    hugging: tuple[Path, CLIPModel], theirs: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(hugging[0], folder)
    shutil.copy(theirs[0] / "open_clip_config.json", folder)
    model, _ = load_model(folder)
    assert model.config.text.vocab_size != 49408  # type: ignore[union-attr]


def test_mistakes(theirs: tuple[Path, torch.nn.Module], hugging: tuple[Path, CLIPModel], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"not a model folder: it has no config\.yaml"):
        load_model(folder)
    shutil.copy(theirs[0] / "open_clip_config.json", folder)
    with pytest.raises(ValueError, match=r"no weights beside it; there should be open_clip_model\.safetensors or"):
        load_model(folder)
    torch.save({"logit_scale": torch.zeros(()), "of": sys.exit}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"open_clip_pytorch_model\.bin: not read, because it holds code"):
        load_model(folder)
    torch.save({"logit_scale": torch.zeros(())}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"its tensors \(logit_scale, …\) are of none of google, huggingface, open_clip"
    ):
        load_model(folder)
    state = theirs[1].state_dict()
    lacking = {name: tensor for name, tensor in state.items() if name != "visual.proj"}
    torch.save(lacking, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"open_clip's CLIP with a ViT needs visual\.proj, which is not there"):
        load_model(folder)
    wrong = state | {
        "ln_final.weight": torch.full((3,), torch.nan),
        "visual.ln_post.bias": torch.full((64,), torch.nan),
    }
    torch.save(wrong, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"another shape: text\.norm\.weight is \[3\] .*not finite: image\.norm\.bias"):
        load_model(folder)
    shutil.rmtree(folder)
    shutil.copytree(hugging[0], folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer\.json, and its \d+ tokens are not CLIP's"):
        load_model(folder)
