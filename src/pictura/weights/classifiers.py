"""What layouts of classifiers have in common: wrappers around names, and what the shapes of tensors give away."""

import re
from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from pictura.config import load, to_dict
from pictura.models.base import ImageTowerConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.resnet import ResNetConfig
from pictura.weights.layout import State, require

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# One head for 64 of the width, but for these (timm and big_vision: the giants have 16, whatever their width).
HEADS = dict.fromkeys((1152, 1280, 1408, 1536, 1664), 16)

WRAPPER = r"(?:_orig_mod\.|module\.|model\.|backbone\.|encoder\.|timm_model\.|visual\.trunk\.)+"
# What trainers keep beside the wrapped model: SimCLR's projections (lightly, solo-learn) and their online probes.
BESIDE = re.compile(
    r"(?:projection_head|projector|prediction_head|predictor|online_classifier)\..+|classifier\.(?:weight|bias)"
)

BATCH_NORM = re.compile(r"(.*(?:bn\d|downsample\.1))\.running_mean")
RESNET = re.compile(
    r"(?:conv1|bn1|layer[1-4]\.\d+\.(?:conv[123]|bn[123]|downsample\.[01])|fc)"
    r"\.(?:weight|bias|running_mean|running_var|num_batches_tracked)"
)


def unwrapped(state: State, mark: str) -> dict[str, Tensor]:
    """The model in which a tensor is called `mark`, without the wrapper around it; {} where there is none.

    Names outside of the wrapper stay as they are, so that they are reported; those of heads that serve training alone
    go. A wrapper is taken off whole, `module.` and never letters of it.
    """
    if mark in state:
        return dict(state)
    found = (re.fullmatch(rf"({WRAPPER}){re.escape(mark)}", name) for name in state)
    prefix = next((match.group(1) for match in found if match), None)
    if prefix is None or (prefix.endswith("visual.trunk.") and not all(name.startswith(prefix) for name in state)):
        return {}  # there is a text tower too
    outer = re.match(r"(?:_orig_mod\.|module\.)*", prefix)
    assert outer is not None
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix) or not BESIDE.fullmatch(name.removeprefix(outer.group()))
    }


def ours(
    state: State, known: re.Pattern[str], whose: str, heads: tuple[str, ...] = ("head", "pre_logits")
) -> dict[str, Tensor]:
    """`image.` before the names of a tower; `heads` stay. ValueError names what `known` does not."""
    refuse([name for name in state if not known.fullmatch(name)], f"our {whose}")
    return {name if name.split(".")[0] in heads else f"image.{name}": tensor for name, tensor in state.items()}


def refuse(names: Sequence[str], whose: str) -> None:
    """A ValueError that says who has no place for these tensors, if there are any."""
    if names:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        raise ValueError(f"{whose} has no place for {', '.join(names[:4])}{more}")


def classifier(
    image: dict[str, Any], state: State, *, class_names: Sequence[Any] = (), **told: Any
) -> ClassifierConfig:
    """The tower `image` with the head that `state` has, under our names. `told`: what no shape gives away.

    Names of classes are taken where there is one for each, no two alike, and not transformers' LABEL_0 and so on.
    """
    found: dict[str, Any] = {"image": image}
    if "head.weight" in state:
        found["classes"] = shape(state, "head.weight", 2)[0]
        words = [str(name) for name in class_names if not re.fullmatch(r"LABEL_\d+", str(name))]
        if len(set(words)) == len(words) == found["classes"]:
            found["class_names"] = words
    if "pre_logits.fc.weight" in state:
        found["pre_logits"] = shape(state, "pre_logits.fc.weight", 2)[0]
    return load(ClassifierConfig, found | told)


def vit(state: State, *, heads: int | None = None, **told: Any) -> dict[str, Any]:
    """The configuration of a ViT from its tensors under our names; heads: None takes the usual number."""
    width, *_, kernel = shape(state, "image.patch_embed.proj.weight", 4)
    hidden = shape(state, "image.blocks.0.mlp.fc1.weight", 2)[0]
    stem, stride = _stem(state)
    grid = square(shape(state, "image.pos_embed", 3)[1] - ("image.cls_token" in state), "image.pos_embed")
    if "image.norm_pre.weight" not in state:  # which takes the place of the bias in CLIP's towers
        require(state, ["image.patch_embed.proj.bias"], "a ViT")
    return {
        "kind": "vit",
        "image_size": grid * kernel * stride,
        "patch_size": kernel * stride,
        "width": width,
        "depth": count(state, r"image\.blocks\.(\d+)\."),
        "heads": _heads(width) if heads is None else heads,
        "mlp_ratio": hidden / width,
        "pool": "class" if "image.cls_token" in state else "average",
        "pre_norm": "image.norm_pre.weight" in state,
        "stem": stem,
    } | told


def mixer(state: State, **told: Any) -> dict[str, Any]:
    """The configuration of a Mixer from its tensors under our names."""
    first = "image.blocks.0.mlp_tokens.fc1.weight"
    width, *_, patch_size = shape(state, "image.stem.proj.weight", 4)
    tokens, patches = shape(state, first, 2)
    return {
        "kind": "mixer",
        "image_size": square(patches, first) * patch_size,
        "patch_size": patch_size,
        "width": width,
        "depth": count(state, r"image\.blocks\.(\d+)\."),
        "tokens": tokens,
        "channels": shape(state, "image.blocks.0.mlp_channels.fc1.weight", 2)[0],
    } | told


def shape(state: State, name: str, axes: int) -> tuple[int, ...]:
    """Of a tensor that is there and has that many axes; else a ValueError."""
    require(state, [name], "a configuration")
    found = tuple(state[name].shape)
    if len(found) != axes or 0 in found:
        raise ValueError(f"{name} is {list(found)}, where {axes} axes were expected, none of them of length 0")
    return found


def is_square(patches: int) -> bool:
    """Whether so many patches make one."""
    return isqrt(max(0, patches)) ** 2 == patches > 0


def square(patches: int, name: str) -> int:
    """Patches on a side. ValueError where they make no square."""
    if not is_square(patches):
        raise ValueError(f"{name}: {patches} patches make no square, and only square pictures are known")
    return isqrt(patches)


def count(state: State, numbered: str) -> int:
    """How many numbers the pattern's group finds in names, from 0 on. ValueError where one is left out."""
    found = sorted({int(match.group(1)) for name in state if (match := re.match(numbered, name))})
    if found != list(range(len(found))):
        where = re.sub(r"\\|\(.*", "", numbered)
        raise ValueError(f"{where}: numbered {found}, not from 0 on without a gap")
    return len(found)


def _stem(state: State) -> tuple[dict[str, Any], int]:
    """The stem below the linear map, and how many pixels it takes together on a side."""
    root = "image.patch_embed.backbone."
    if not any(name.startswith(root) for name in state):
        return {"kind": "patch", "bias": "image.patch_embed.proj.bias" in state}, 1
    stages = count(state, re.escape(root) + r"stages\.(\d+)\.")
    layers = [count(state, re.escape(f"{root}stages.{s}.blocks.") + r"(\d+)\.") for s in range(stages)]
    return {"kind": "resnet", "layers": layers}, 4 * 2 ** max(0, stages - 1)


def _heads(width: int) -> int:
    heads, rest = divmod(width, 64)
    if width not in HEADS and (rest or not heads):
        raise ValueError(
            f"heads: not known for a width of {width}, which 64 does not divide; put the config.json that goes with "
            "these weights beside them"
        )
    return HEADS.get(width, heads)


def resnet(state: State, image_size: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A ResNet under torchvision's names -> its configuration, and its tensors under our names.

    Old files have no counters of batches; they get zeros, as torch itself gives them.
    """
    names = (match.group(1) + ".num_batches_tracked" for name in state if (match := BATCH_NORM.fullmatch(name)))
    state = {name: torch.tensor(0) for name in names} | dict(state)
    state = {re.sub(r"^fc\.", "head.", name): tensor for name, tensor in ours(state, RESNET, "ResNet", ("fc",)).items()}
    require(state, ["image.bn1.running_mean"], "our ResNet")
    outs, ins, *_ = shape(state, "image.layer1.0.conv2.weight", 4)
    width, *_ = shape(state, "image.conv1.weight", 4)
    block = "bottleneck" if "image.layer1.0.conv3.weight" in state else "basic"
    config = {
        "kind": "resnet",
        "image_size": image_size,
        "block": block,
        "layers": [count(state, rf"image\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)],
        "width": width,
        "groups": max(1, outs // ins),
        "width_per_group": ins * 64 // width,
        "stem": "cifar" if shape(state, "image.conv1.weight", 4)[-1] == 3 else "imagenet",
    }
    return config, state


def resnet_names(state: State) -> dict[str, str]:
    """torchvision's names -> ours, of a ResNet's tensors."""
    return {re.sub(r"^head\.", "fc.", name).removeprefix("image."): name for name in state}


def known_classifier(config: PictureModelConfig, whose: str, *towers: type[ImageTowerConfig]) -> ClassifierConfig:
    """A classifier whose tower is one of those; else a ValueError."""
    has = f"{whose} has classifiers alone, of {' or '.join(to_dict(tower())['kind'] for tower in towers)}"
    if not isinstance(config, ClassifierConfig):
        raise ValueError(f"kind: {to_dict(config)['kind']}; {has}")
    if not isinstance(config.tower, towers):
        raise ValueError(f"image.kind: {to_dict(config.tower)['kind']}; {has}")
    if isinstance(config.tower, ResNetConfig) and config.tower.width != 64:
        raise ValueError(f"image.width: {config.tower.width}; {whose}'s ResNets begin with 64 channels")
    return config
