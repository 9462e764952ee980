import copy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP, convert_weights_to_fp16
from torch import Tensor

from pictura.models.clip import CLIPConfig
from pictura.weights.family import Found, families
from pictura.weights.files import read_tensors
from pictura.weights.open_clip import config_from, to_pictura
from pictura.weights.openai import OpenAI
from tests.weights.peers import alike, identical, loaded, stir

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")

TEXT = {"context_length": 12, "vocab_size": 300, "width": 64, "heads": 1, "layers": 2}
VIT = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2}
RESNET = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 16, "patch_size": None}
IMAGES = {"vit": VIT, "resnet": RESNET}


class Open(torch.nn.Module):
    """What is traced: its attributes are those of OpenAI's model."""

    def __init__(self, clip: Any, size: int) -> None:
        super().__init__()
        for name in ("visual", "transformer", "token_embedding", "ln_final"):
            setattr(self, name, getattr(clip, name))
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            self.register_parameter(name, getattr(clip, name))
        for name, number in {"input_resolution": size, "context_length": 12, "vocab_size": 300}.items():
            self.register_buffer(name, torch.tensor(number))

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        x = self.token_embedding(text) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        x = x[torch.arange(len(x)), text.argmax(-1)] @ self.text_projection
        return self.visual(image) * self.logit_scale.exp(), x + self.input_resolution + self.context_length


def inputs(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    text = torch.zeros(2, 12, dtype=torch.long)
    text[0, :5], text[1, :9] = torch.tensor([298, 5, 9, 7, 299]), torch.tensor([298, *range(1, 8), 299])
    return torch.randn(2, 3, size, size, generator=generator), text


def archive(path: Path, kind: str, halved: str) -> Any:
    """An archive as OpenAI's, and the model that it is of, in float32."""
    vision, size = IMAGES[kind], IMAGES[kind]["image_size"]
    torch.manual_seed(0)
    peer = stir(CLIP(64 if kind == "resnet" else 24, vision, TEXT, quick_gelu=True), 1)
    if halved == "matrices":
        convert_weights_to_fp16(peer)
    elif halved == "all":
        peer.half()
    halves = {name: tensor.dtype for name, tensor in peer.state_dict().items()}
    peer.float()
    traced = torch.jit.trace(Open(copy.deepcopy(peer), size), inputs(size), check_trace=False)
    for name, tensor in [*traced.named_parameters(), *traced.named_buffers()]:
        tensor.data = tensor.data.to(halves.get(name, tensor.dtype))
    torch.jit.save(traced, path)
    return peer


@torch.inference_mode()
def agree(peer: Any, config: Any, state: Any) -> None:
    model = loaded(config, {name: t.float() if t.is_floating_point() else t for name, t in state.items()})
    image, text = inputs(config.image.image_size)
    alike(model.encode_image(image), peer.encode_image(image))
    alike(model.encode_text(text), peer.encode_text(text))


@pytest.mark.parametrize("halved", ["matrices", "all", "none"])
@pytest.mark.parametrize("kind", IMAGES)
def test_an_archive_gives_the_same_numbers(tmp_path: Path, kind: str, halved: str) -> None:
    with torch.inference_mode(False):
        peer = archive(tmp_path / "ViT.pt", kind, halved)
    found = Found(file=tmp_path / "ViT.pt", state=read_tensors(tmp_path / "ViT.pt"))
    stored = {tensor.dtype for tensor in found.state.values() if tensor.is_floating_point()}
    assert len(stored) == (2 if halved == "matrices" else 1)
    assert OpenAI().knows(found)
    config, state = OpenAI().read(found)
    assert isinstance(config, CLIPConfig)
    assert config.text.activation == "quick_gelu"
    assert (config.text.vocab_size, config.text.context_length) == (300, 12)
    assert config.tower.image_size == IMAGES[kind]["image_size"]
    assert (config.mean, config.std) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    floating = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    assert floating == {torch.float16 if halved == "all" else torch.float32}
    assert state.keys() == loaded(config, state).state_dict().keys()
    agree(peer, config, state)


def test_only_archives_of_openai_are_known(tmp_path: Path) -> None:
    archive(tmp_path / "a.pt", "vit", "none")
    whole = read_tensors(tmp_path / "a.pt")
    for gone in ("input_resolution", "context_length", "vocab_size", "visual.conv1.weight", "token_embedding.weight"):
        state = {name: tensor for name, tensor in whole.items() if name != gone}
        assert not OpenAI().knows(Found(file=tmp_path / "a.pt", state=state))
    assert isinstance(families()["openai"], OpenAI)
    identical(OpenAI().read(Found(file=tmp_path / "a.pt", state=whole))[1], to_pictura(whole))


def test_numbers_that_belong_to_another_model(tmp_path: Path) -> None:
    archive(tmp_path / "a.pt", "vit", "none")
    state = read_tensors(tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"its numbers are .*'input_resolution': 64.* those of .*'input_resolution': 32"
    ):
        OpenAI().read(Found(file=tmp_path / "a.pt", state=state | {"input_resolution": torch.tensor(64)}))
    with pytest.raises(ValueError, match=r"vocab_size: one number was expected, not \[2\]"):
        OpenAI().read(Found(file=tmp_path / "a.pt", state=state | {"vocab_size": torch.ones(2)}))


def test_no_archive_is_written(tmp_path: Path) -> None:
    archive(tmp_path / "a.pt", "vit", "none")
    state = read_tensors(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"openai's archives hold code; `--to open_clip` writes the same names"):
        OpenAI().write(config_from(state, activation="quick_gelu"), to_pictura(state))
