"""timm's classifiers: ViT with its hybrids, MLP-Mixer and ResNet, as `timm.models.save_for_hf` writes them.

timm 1.0, models/vision_transformer.py, vision_transformer_hybrid.py, mlp_mixer.py, resnet.py, _hub.py.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pictura.models.mixer import MixerConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.resnet import ResNetConfig
from pictura.models.vit import ViTConfig
from pictura.weights.classifiers import (
    IMAGENET,
    classifier,
    is_square,
    known_classifier,
    mixer,
    ours,
    resnet,
    resnet_names,
    unwrapped,
    vit,
)
from pictura.weights.family import Family, Found, Json, State, Written
from pictura.weights.layout import section
from pictura.weights.timm_names import described

LINEAR = r"\.(?:weight|bias)"
NAMES = {
    "vit": re.compile(
        r"cls_token|pos_embed"
        r"|patch_embed\.backbone\.(?:stem\.)?(?:conv|norm)\.(?:weight|bias)"
        r"|patch_embed\.backbone\.stages\.\d+\.blocks\.\d+\.(?:conv[123]|norm[123]|downsample\.(?:conv|norm))"
        rf"{LINEAR}|(?:patch_embed\.proj|norm_pre|norm|head|pre_logits\.fc){LINEAR}"
        rf"|blocks\.\d+\.(?:norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2){LINEAR}"
    ),
    "mixer": re.compile(
        rf"(?:stem\.proj|norm|head|blocks\.\d+\.(?:norm[12]|mlp_(?:tokens|channels)\.fc[12])){LINEAR}",
    ),
}
MARKS = {  # one tensor of each, and what else such a model has
    "vit": ("blocks.0.attn.qkv.weight", {"patch_embed.proj.weight"}),
    "mixer": ("blocks.0.mlp_tokens.fc1.weight", {"stem.proj.weight"}),
    "resnet": ("layer1.0.conv1.weight", set[str]()),
}

# How pictures are prepared where nothing says it: by a model of timm's own, and by timm's `PretrainedCfg`.
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
ALONE = {"vit": HALF | {"crop_pct": 0.9}, "mixer": HALF | {"crop_pct": 0.875}}
DEFAULT: dict[str, Any] = IMAGENET | {"crop_pct": 0.875, "interpolation": "bicubic", "crop_mode": "center"}

RESIZE = {"center": "shortest", "squash": "squash"}

# What only the name of an architecture tells, of those whose tensors look like ours.
TANH = re.compile(r"vit_(?:giantopt|so400m_patch16|large_patch16_siglip_gap_512|base_patch32_siglip)")
ODD_HEADS = {"vit_base_patch16_gap_224": 16, "test_vit": 2}
SOFTENED = re.compile(r"resnet(?:aa|blur)\d")
# Arguments that shapes tell too, or that change training alone; and those that say what our towers do anyway.
SILENT = re.compile(
    r".*drop.*_rate|weight_init|fix_init|zero_init_last|nlhb|dynamic_img_.*|strict_img_size|img_size|in_chans"
    r"|num_classes|embed_dim|depth|num_blocks|num_heads|mlp_ratio|patch_size|class_token|pre_norm|no_embed_class"
    r"|layers|base_width|cardinality|act_layer|global_pool"
)
SAME: Json = {"fc_norm": False, "final_norm": True, "qkv_bias": True, "proj_bias": True, "output_stride": 32} | {
    "pos_embed": "learn",
    "norm_layer": "layernorm",
    "stem_width": 64,
    "block_reduce_first": 1,
}


class Timm(Family):
    """ViT, Mixer and ResNet, with or without their head; a ResNet without timm's config.json is torchvision's."""

    name = "timm"

    def knows(self, found: Found) -> bool:
        return _recognised(found) is not None

    def read(self, found: Found) -> tuple[PictureModelConfig, dict[str, Tensor]]:
        recognised = _recognised(found)
        assert recognised is not None
        kind, state = recognised
        json = _json(found)
        if "fc_norm.weight" in state:
            raise ValueError("fc_norm.weight: a norm after the patches are averaged; our ViT has its norm before that")
        if kind == "resnet":
            image, state = resnet(state, _size(json) or 224)
        elif kind == "mixer":
            state = ours(state, NAMES[kind], "Mixer")
            image = mixer(state)
        else:
            state = _with_class_row(ours(state, NAMES[kind], "ViT"))
            image = _vit(state, json)
        _check(image, json)
        return classifier(image, state, **_pictures(kind, json)), state

    def write(self, config: PictureModelConfig, state: State) -> Written:
        config = known_classifier(config, "timm", ViTConfig, MixerConfig, ResNetConfig)
        if config.pre_logits:
            raise ValueError(
                "pre_logits: timm has left out the layer before the head since 2022, and would leave out its weights; "
                "torchvision has it"
            )
        out, json = dict(state), described(config)
        if isinstance(config.tower, ViTConfig) and config.tower.pool == "class":
            positions = out["image.pos_embed"]
            if not positions[:, 0].any():
                json["model_args"] = dict(json.get("model_args", {})) | {"no_embed_class": True}
                out["image.pos_embed"] = positions[:, 1:]
        is_resnet = isinstance(config.tower, ResNetConfig)
        names = resnet_names(out) if is_resnet else {name.removeprefix("image."): name for name in out}
        tensors = {theirs: out[name] for theirs, name in names.items()}
        return Written(file="model.safetensors", state=tensors, beside={"config.json": json})


def _recognised(found: Found) -> tuple[str, dict[str, Tensor]] | None:
    for kind, (mark, others) in MARKS.items():
        state = unwrapped(found.state, mark)
        positions = kind != "vit" or "cls_token" in state or "pos_embed" in state
        if state and others <= state.keys() and positions and (kind != "resnet" or _json(found)):
            return kind, state
    return None


def _json(found: Found) -> Json:
    """timm's config.json; {} where there is none, or another project's."""
    json = found.beside.get("config.json", {})
    if not isinstance(json.get("architecture"), str):
        return {}
    return {"pretrained_cfg": json, **json}  # as timm wrote it at first, all in one


def _check(image: Mapping[str, Any], json: Json) -> None:
    """ValueError for what the configuration says that no tensor shows, and that our towers do not do."""
    architecture, args = json.get("architecture", ""), section(json, "model_args")
    if SOFTENED.search(architecture):
        raise ValueError(f"architecture: {architecture!r} blurs its maps before it halves them; our ResNet does not")
    for key, value in args.items():
        if value and not SILENT.fullmatch(key) and not (key in SAME and value == SAME[key]):
            raise ValueError(f"model_args.{key}: {value!r} changes what the weights mean; our {image['kind']} lacks it")
    pool = args.get("global_pool", json.get("global_pool"))
    has = "token" if image.get("pool") == "class" else "avg"
    if pool not in (None, has):
        raise ValueError(
            f"global_pool: {pool!r}, but with such tensors our {image['kind']} does what timm calls {has!r}"
        )


def _vit(state: State, json: Json) -> dict[str, Any]:
    """The configuration of a ViT: of what shapes do not show, timm's arguments come first, then its name for it."""
    architecture, args = json.get("architecture", ""), section(json, "model_args")
    image = vit(state, heads=args.get("num_heads") or ODD_HEADS.get(architecture))
    if not architecture and image["pre_norm"]:
        raise ValueError(
            "norm_pre.weight: is of CLIP's towers, and only their config.json says which activation they expect; put "
            "it beside the weights"
        )
    activation = "quick_gelu" if "quickgelu" in architecture else "gelu"
    image["activation"] = args.get("act_layer") or ("gelu_tanh" if TANH.match(architecture) else activation)
    image["eps"] = 1e-5 if "_clip_" in architecture and "norm_layer" not in args else 1e-6
    size, patch_size = _size(json), image["patch_size"]
    if size is not None and size % patch_size and size // patch_size * patch_size == image["image_size"]:
        raise ValueError(f"input_size: {size} is no multiple of the patches' {patch_size}, as our ViT needs it")
    return image


def _size(json: Json) -> int | None:
    """Pixels on a side, where the configuration says so. ValueError where they make no square."""
    size = section(json, "model_args").get("img_size") or section(json, "pretrained_cfg").get("input_size")
    sides = size[-2:] if isinstance(size, list | tuple) else [size]
    if not all(side is None or isinstance(side, int) for side in sides) or len(set(sides)) > 1:
        raise ValueError(f"input_size: {size!r} is no square of whole pixels")
    return sides[0] if sides else None


def _with_class_row(state: State) -> dict[str, Tensor]:
    """Where positions leave out the class token (DeiT III, big_vision), a row of zeros for it goes before them."""
    positions = state.get("image.pos_embed")
    if positions is None or "image.cls_token" not in state or positions.dim() != 3 or not is_square(positions.shape[1]):
        return dict(state)
    return dict(state) | {"image.pos_embed": torch.cat([torch.zeros_like(positions[:, :1]), positions], 1)}


def _pictures(kind: str, json: Json) -> dict[str, Any]:
    """How pictures are prepared, and the names of classes."""
    given = {key: value for key, value in section(json, "pretrained_cfg").items() if value is not None}
    given = DEFAULT | ({} if json else ALONE.get(kind, {})) | given
    if given["crop_mode"] not in list(RESIZE):  # a list, as it may be something that cannot be a key
        raise ValueError(f"crop_mode: {given['crop_mode']!r} is none of {', '.join(RESIZE)}")
    found = {key: given[key] for key in ("mean", "std", "interpolation")}
    found |= {"crop": given["crop_pct"], "resize": RESIZE[given["crop_mode"]]}
    words = section(json, "label_descriptions") or section(given, "label_descriptions")
    if isinstance(names := json.get("label_names") or given.get("label_names"), list):
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"label_names: {names!r:.80} are not all words")
        found["class_names"] = [words.get(name, name) for name in names]
    return found
