"""torchvision's classifiers: ViT and ResNet (torchvision 0.29, models/vision_transformer.py, models/resnet.py).

torchvision has no format for what goes with a state dict. So beside it goes `torchvision.json`: the arguments of the
model and of its preset `ImageClassification`, and the categories.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pictura.data.views import CropConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.resnet import ResNetConfig
from pictura.models.vit import ViTConfig
from pictura.weights.classifiers import (
    IMAGENET,
    classifier,
    known_classifier,
    refuse,
    resnet,
    resnet_names,
    unwrapped,
    vit,
)
from pictura.weights.family import Family, Found, Json, State, Written
from pictura.weights.layout import modules, section

BESIDE = "torchvision.json"
PICTURES: Json = IMAGENET | {"interpolation": "bilinear"}

# A ViT's names, theirs -> ours: of the tower, and inside of a block.
TOWER = {"class_token": "image.cls_token", "encoder.pos_embedding": "image.pos_embed"} | modules(
    {
        "conv_proj": "image.patch_embed.proj",
        "encoder.ln": "image.norm",
        "heads.head": "head",
        "heads.pre_logits": "pre_logits.fc",
    }
)
BLOCK = {"self_attention.in_proj_weight": "attn.qkv.weight", "self_attention.in_proj_bias": "attn.qkv.bias"} | modules(
    {
        "ln_1": "norm1",
        "self_attention.out_proj": "attn.proj",
        "ln_2": "norm2",
        "mlp.0": "mlp.fc1",
        "mlp.3": "mlp.fc2",
    }
)
OLD = modules({"mlp.linear_1": "mlp.0", "mlp.linear_2": "mlp.3"})  # before torchvision 0.13
BLOCKS, OUR_BLOCKS = "encoder.layers.encoder_layer_", "image.blocks."


class Torchvision(Family):
    """ViT and ResNet, with or without their head. A ResNet beside timm's config.json is timm's.

    lightly and solo-learn keep their SimCLR in these names, under `backbone.`, and put a 3x3 convolution in the place
    of `conv1`, and nothing in that of `maxpool`, for small pictures: `stem: cifar`.
    """

    name = "torchvision"

    def knows(self, found: Found) -> bool:
        return bool(_vit_state(found) or _resnet_state(found))

    def read(self, found: Found) -> tuple[PictureModelConfig, dict[str, Tensor]]:
        json = found.beside.get(BESIDE, {})
        model, pictures = section(json, "model"), section(json, "transforms")
        if state := _vit_state(found):
            state = _renamed(state, BLOCKS, OUR_BLOCKS, BLOCK, TOWER, "our ViT")
            image = vit(state, heads=model.get("num_heads"))
        else:
            image, state = resnet(_resnet_state(found), pictures.get("crop_size", 224))
        categories = json.get("categories")
        told: dict[str, Any] = {key: pictures.get(key, PICTURES[key]) for key in PICTURES} | _resized(pictures)
        return classifier(image, state, class_names=categories if isinstance(categories, list) else (), **told), state

    def write(self, config: PictureModelConfig, state: State) -> Written:
        config = known_classifier(config, "torchvision", ViTConfig, ResNetConfig)
        tower, out = config.tower, dict(state)
        if isinstance(tower, ViTConfig):
            model = _vit_arguments(config, tower)
            block, names = ({ours: theirs for theirs, ours in table.items()} for table in (BLOCK, TOWER))
            out = _renamed(state, OUR_BLOCKS, BLOCKS, block, names, "torchvision's ViT")
        else:
            assert isinstance(tower, ResNetConfig)
            if config.pre_logits:
                raise ValueError("pre_logits: torchvision has a layer before the head in ViT alone, not in ResNet")
            model = _resnet_arguments(config, tower)
            out = {theirs: state[ours] for theirs, ours in resnet_names(state).items()}
        json: dict[str, Any] = {"model": model, "transforms": _transforms(config)}
        if config.class_names:
            json["categories"] = list(config.class_names)
        return Written(file="model.safetensors", state=out, beside={BESIDE: json})


def _vit_state(found: Found) -> dict[str, Tensor]:
    return unwrapped(found.state, f"{BLOCKS}0.self_attention.in_proj_weight")


def _resnet_state(found: Found) -> dict[str, Tensor]:
    if isinstance(found.beside.get("config.json", {}).get("architecture"), str):
        return {}
    return unwrapped(found.state, "layer1.0.conv1.weight")


def _resized(pictures: Json) -> dict[str, Any]:
    """What the preset's two sizes mean; ValueError for what are no sizes."""
    crop, resized = pictures.get("crop_size", 224), pictures.get("resize_size", 256)
    squash = isinstance(resized, list)
    side = resized[0] if isinstance(resized, list) and resized else resized
    if not all(isinstance(size, int) and size > 0 for size in (crop, side)):
        raise ValueError(f"{BESIDE}: crop_size {crop!r} and resize_size {resized!r} are no numbers above 0")
    return {"resize": "squash" if squash else "shortest", "crop": crop / side}


def _renamed(
    state: State, before: str, after: str, inside: Mapping[str, str], outside: Mapping[str, str], whose: str
) -> dict[str, Tensor]:
    """Names of blocks, numbered after `before`, and the others. ValueError names what has no place."""
    out: dict[str, Tensor] = {}
    strange = []
    for name, tensor in state.items():
        if match := re.fullmatch(rf"{re.escape(before)}(\d+)\.(.+)", name):
            number, rest = match.groups()
            new = inside.get(OLD.get(rest, rest))
            new = new and f"{after}{number}.{new}"
        else:
            new = outside.get(name)
        if new is None:
            strange.append(name)
        else:
            out[new] = tensor
    refuse(strange, whose)
    return out


def _vit_arguments(config: ClassifierConfig, tower: ViTConfig) -> dict[str, Any]:
    """Of torchvision's `VisionTransformer`. ValueError names what it cannot be."""
    plain = ViTConfig()
    for key in ("pool", "activation", "eps", "pre_norm", "stem"):
        if getattr(tower, key) != getattr(plain, key):
            raise ValueError(f"image.{key}: {getattr(tower, key)}; torchvision's ViT has {getattr(plain, key)} alone")
    return {
        "image_size": tower.image_size,
        "patch_size": tower.patch_size,
        "num_layers": tower.depth,
        "num_heads": tower.heads,
        "hidden_dim": tower.width,
        "mlp_dim": round(tower.width * tower.mlp_ratio),
        "num_classes": config.classes,
        "representation_size": config.pre_logits,
    }


def _resnet_arguments(config: ClassifierConfig, tower: ResNetConfig) -> dict[str, Any]:
    """Of torchvision's `ResNet`, its block by name."""
    return {
        "block": "BasicBlock" if tower.block == "basic" else "Bottleneck",
        "layers": list(tower.layers),
        "num_classes": config.classes,
        "groups": tower.groups,
        "width_per_group": tower.width_per_group,
    }


def _transforms(config: ClassifierConfig) -> dict[str, Any]:
    """Of torchvision's `ImageClassification`; two numbers to resize to, where that preset takes one, squash."""
    size = config.tower.image_size
    resized = CropConfig(image_size=size, crop=config.crop).resized_to
    return {
        "crop_size": size,
        "resize_size": [resized, resized] if config.resize == "squash" else resized,
        "mean": list(config.mean),
        "std": list(config.std),
        "interpolation": config.interpolation,
    }
