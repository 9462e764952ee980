"""That timm loads what we write under its names: config.json, and the tensors with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from pictura.config import sized
from pictura.layers.resnet_stem import ResNetStemConfig
from pictura.layers.stems import ConvStemConfig, PatchStemConfig
from pictura.models.base import ImageTowerConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIPConfig
from pictura.models.mixer import MixerConfig
from pictura.models.resnet import ResNetConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig
from pictura.weights import timm_names
from pictura.weights.folder import empty
from pictura.weights.timm import Timm
from tests.weights.classifier_peers import found, ours, pictures, read_again, shapes, store
from tests.weights.peers import alike, identical, undrawn

FAMILY = Timm()
VIT = ViTConfig(image_size=32, patch_size=8, width=128, depth=2, heads=2)

OURS: list[tuple[str, ImageTowerConfig]] = [
    ("vit_base_patch8_224", VIT),
    ("vit_base_patch8_224", replace(VIT, pool="average", heads=8, mlp_ratio=345 / 128, activation="quick_gelu")),
    ("vit_base_patch8_224", replace(VIT, width=56, mlp_ratio=122 / 56)),  # int(56 * (122 / 56)) is 121
    ("vit_base_patch16_224", sized(ViTConfig, "B/16", depth=1, image_size=32, activation="gelu_tanh")),
    ("vit_base_patch16_clip_224", replace(VIT, eps=1e-5, pre_norm=True, stem=PatchStemConfig(bias=False))),
    ("vit_base_patch16_clip_224", replace(VIT, eps=1e-5, activation="quick_gelu")),
    ("vit_tiny_r_s16_p8_224", replace(VIT, patch_size=32, image_size=64, stem=ResNetStemConfig(layers=()))),
    ("vit_small_r26_s32_224", replace(VIT, patch_size=32, image_size=64, stem=ResNetStemConfig(layers=(2, 2, 2, 2)))),
    ("vit_base_r50_s16_224", replace(VIT, patch_size=32, image_size=64, stem=ResNetStemConfig(layers=(3, 4, 9)))),
    ("mixer_s32_224", sized(MixerConfig, "S/32", image_size=64, tokens=37, channels=201)),
    ("resnet18", ResNetConfig(block="basic", layers=(1, 2, 1, 1), image_size=64)),
    ("resnet50", ResNetConfig(layers=(1, 2, 1, 1), image_size=64)),
    ("resnext50_32x4d", ResNetConfig(layers=(1, 2, 1, 1), groups=32, width_per_group=4, image_size=64)),
]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("architecture", "tower", "classes"),
    [*((name, tower, 3) for name, tower in OURS), ("vit_base_patch8_224", VIT, 0), (*OURS[-3], 0)],
)
def test_timm_loads_what_we_write(architecture: str, tower: ImageTowerConfig, classes: int, tmp_path: Path) -> None:
    names = ("cat", "dog", "owl")[:classes]
    config = ClassifierConfig(image=tower, classes=classes, class_names=names, crop=0.95, interpolation="bilinear")
    model = ours(config)
    written = FAMILY.write(config, model.state_dict())
    assert written.beside["config.json"]["architecture"] == architecture
    peer = timm.create_model(f"local-dir:{store(written, tmp_path / 'model')}", pretrained=True).eval()
    identical(peer.state_dict(), written.state)
    read_again(FAMILY, config, model.state_dict())
    image = pictures(tower.image_size)
    if isinstance(getattr(tower, "stem", None), ResNetStemConfig):  # whose many layers lose digits
        image, peer, model = image.double(), peer.double(), model.double()
    alike(peer(image), model.classify(image) if classes else model.encode_image(image))


LARGE = ("large", "huge", "mixer_l", "101", "152")
NAMED: dict[str, tuple[type[ImageTowerConfig], str, dict[str, Any]]] = {
    **{name: (ViTConfig, size, {}) for name, size in timm_names.VITS.items()},
    **{
        name: (ViTConfig, size, {"eps": 1e-5, "pre_norm": True, "stem": PatchStemConfig(bias=False)})
        for name, size in timm_names.CLIPS.items()
    },
    **{name: (ViTConfig, size, {}) for name, size in timm_names.HYBRIDS.items()},
    **{name: (MixerConfig, size, {}) for name, size in timm_names.MIXERS.items()},
    **{name: (ResNetConfig, size, {}) for name, size in timm_names.RESNETS.items()},
}


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=[pytest.mark.slow] * any(word in name for word in LARGE)) for name in NAMED],
)
def test_a_published_size_is_written_under_its_name(architecture: str) -> None:
    cls, size, changes = NAMED[architecture]
    config = ClassifierConfig(image=replace(sized(cls, size), **changes), classes=1000)  # type: ignore[type-var]
    json = timm_names.described(config)
    assert (json["architecture"], json.get("model_args")) == (architecture, None)
    with torch.device("meta"), undrawn():
        peer = timm.create_model(architecture, num_classes=1000)
    assert json["pretrained_cfg"]["first_conv"] == peer.pretrained_cfg["first_conv"]
    state = {name.removeprefix("image."): t for name, t in empty(config).state_dict().items()}
    if cls is ResNetConfig:
        state = {name.replace("head.", "fc."): tensor for name, tensor in state.items()}
    assert shapes(state) == shapes(peer.state_dict())
    assert shapes(FAMILY.read(found(peer.state_dict(), config=json))[1]) == shapes(empty(config).state_dict())


@pytest.mark.parametrize(
    ("tower", "complaint"),
    [
        (replace(VIT, eps=1e-12), "image.eps: 1e-12; timm's ViTs have 1e-06, or as a CLIP's tower 1e-05"),
        (replace(VIT, pre_norm=True), "image.stem.bias: true, but timm's ViTs have none where pre_norm is true"),
        (
            replace(VIT, stem=PatchStemConfig(bias=False)),
            "image.stem.bias: false, but timm's ViTs have one where pre_norm",
        ),
        (replace(VIT, stem=ConvStemConfig()), "image.stem: timm's ViTs have patch or resnet alone"),
        (
            replace(VIT, stem=ResNetStemConfig(layers=(1,))),
            r"image.stem.layers: \[1\]; timm has hybrids of \[\], \[2, 2",
        ),
        (replace(VIT, stem=ResNetStemConfig(layers=()), eps=1e-5), "image.eps: 1e-05, but timm's hybrids have 1e-06"),
        (MixerConfig(activation="gelu_tanh"), "image.activation: gelu_tanh; timm's Mixers have gelu alone"),
        (
            sized(MixerConfig, "H/14"),
            "timm has no Mixer of width 1280, depth 32 and patch_size 14, but B/16, B/32, S/16",
        ),
        (ResNetConfig(stem="cifar"), "image.stem: cifar; timm's ResNets have imagenet alone"),
    ],
)
def test_models_that_timm_cannot_take(tower: ImageTowerConfig, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        FAMILY.write(ClassifierConfig(image=tower), {})


def test_models_that_are_no_classifiers() -> None:
    with pytest.raises(ValueError, match="kind: clip; timm has classifiers alone, of vit or mixer or resnet"):
        FAMILY.write(CLIPConfig(image=VIT, text=TextTransformerConfig()), {})
