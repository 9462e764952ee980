"""The config.json of a timm model: the architecture that comes nearest, and the arguments that it does not say itself.

timm builds its models from these (timm 1.0, models/_hub.py, `load_model_config_from_path`).
"""

from typing import Any

from pictura.config import sized, to_dict
from pictura.layers.resnet_stem import ResNetStemConfig
from pictura.layers.stems import PatchStemConfig
from pictura.models.base import ImageTowerConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.mixer import MixerConfig
from pictura.models.resnet import ResNetConfig
from pictura.models.vit import ViTConfig

Args = dict[str, Any]

# Architecture -> our size of it. The first of those that are equally near is taken.
VITS = {
    f"vit_{word}_patch{patch}_224": f"{size}/{patch}"
    for size, word, patches in (
        ("B", "base", (16, 8, 32)),
        ("Ti", "tiny", (16,)),
        ("S", "small", (8, 16, 32)),
        ("L", "large", (14, 16, 32)),
        ("H", "huge", (14,)),
    )
    for patch in patches
}
CLIPS = {
    name.replace("_224", "_clip_224"): VITS[name] for name in VITS if VITS[name] in ("B/16", "B/32", "L/14", "H/14")
}
HYBRIDS = {
    "vit_tiny_r_s16_p8_224": "R+Ti/16",
    "vit_small_r26_s32_224": "R26+S/32",
    "vit_base_r50_s16_224": "R50+B/16",
    "vit_large_r50_s32_224": "R50+L/32",
}
MIXERS = {
    f"mixer_{size.replace('/', '').lower()}_224": size for size in ("B/16", "B/32", "S/16", "S/32", "L/16", "L/32")
}
RESNETS = {f"resnet{size}": size for size in ("50", "18", "34", "101", "152")}
RESNETS |= {"wide_resnet50_2": "50-2", "wide_resnet101_2": "101-2", "resnext50_32x4d": "50-32x4d"}
RESNETS |= {"resnext101_32x8d": "101-32x8d", "resnext101_64x4d": "101-64x4d"}


def described(config: ClassifierConfig) -> Args:
    """config.json for such a classifier. ValueError where timm has no such tower, saying for what of it."""
    tower = config.tower
    architecture, args = _named(tower)
    resnet = isinstance(tower, ResNetConfig)
    return {
        "architecture": architecture,
        "num_classes": config.classes,
        "num_features": tower.features,
        "global_pool": "token" if isinstance(tower, ViTConfig) and tower.pool == "class" else "avg",
        **({"label_names": list(config.class_names)} if config.class_names else {}),
        **({"model_args": args} if args else {}),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, tower.image_size, tower.image_size],
            "fixed_input_size": not resnet,
            "interpolation": config.interpolation,
            "crop_pct": config.crop,
            "crop_mode": "squash" if config.resize == "squash" else "center",
            "mean": list(config.mean),
            "std": list(config.std),
            "num_classes": config.classes,
            "pool_size": None,
            "first_conv": _first(tower),
            "classifier": "fc" if resnet else "head",
        },
    }


def _first(tower: ImageTowerConfig) -> str:
    if isinstance(tower, ResNetConfig):
        return "conv1"
    if isinstance(tower, MixerConfig):
        return "stem.proj"
    assert isinstance(tower, ViTConfig)
    if isinstance(tower.stem, ResNetStemConfig):
        return "patch_embed.backbone.stem.conv" if tower.stem.layers else "patch_embed.backbone.conv"
    return "patch_embed.proj"


def _named(tower: ImageTowerConfig) -> tuple[str, Args]:
    if isinstance(tower, ResNetConfig):
        return _resnet(tower)
    if isinstance(tower, MixerConfig):
        return _mixer(tower)
    assert isinstance(tower, ViTConfig)
    return _hybrid(tower, tower.stem) if isinstance(tower.stem, ResNetStemConfig) else _vit(tower)


def _nearest(wanted: Args, named: dict[str, Args]) -> tuple[str, Args]:
    """The architecture of which the fewest arguments differ, and those."""
    differing = {
        name: {key: value for key, value in wanted.items() if facts[key] != value} for name, facts in named.items()
    }
    return min(differing.items(), key=lambda item: len(item[1]))


def _vit(tower: ViTConfig) -> tuple[str, Args]:
    if tower.eps not in (1e-6, 1e-5):
        raise ValueError(f"image.eps: {tower.eps}; timm's ViTs have 1e-06, or as a CLIP's tower 1e-05")
    if not isinstance(tower.stem, PatchStemConfig):
        raise ValueError("image.stem: timm's ViTs have patch or resnet alone")
    if tower.stem.bias is tower.pre_norm:
        has = "none where pre_norm is true" if tower.pre_norm else "one where pre_norm is false"
        raise ValueError(f"image.stem.bias: {str(tower.stem.bias).lower()}, but timm's ViTs have {has}")
    named = {name: sized(ViTConfig, size) for name, size in VITS.items()}
    if tower.eps == 1e-5:
        named = {name: sized(ViTConfig, size, eps=1e-5, pre_norm=True) for name, size in CLIPS.items()}
    return _nearest(_vit_args(tower, 1), {name: _vit_args(config, 1) for name, config in named.items()})


def _hybrid(tower: ViTConfig, stem: ResNetStemConfig) -> tuple[str, Args]:
    for key, value, has in (("eps", tower.eps, 1e-6), ("pre_norm", tower.pre_norm, False)):
        if value != has:
            raise ValueError(f"image.{key}: {value}, but timm's hybrids have {has}")
    hybrids = {name: sized(ViTConfig, size) for name, size in HYBRIDS.items()}
    named = {name: config for name, config in hybrids.items() if config.stem == stem}
    if not named:
        there = ", ".join(str(to_dict(config.stem)["layers"]) for config in hybrids.values())
        raise ValueError(f"image.stem.layers: {list(stem.layers)}; timm has hybrids of {there}")
    stride = stem.stride
    return _nearest(_vit_args(tower, stride), {name: _vit_args(config, stride) for name, config in named.items()})


def _vit_args(tower: ViTConfig, stride: int) -> Args:
    """The arguments of timm's `VisionTransformer`; `stride` is of the stem before its patches."""
    average = tower.pool == "average"
    return {
        "patch_size": tower.patch_size // stride,
        "embed_dim": tower.width,
        "depth": tower.depth,
        "num_heads": tower.heads,
        "mlp_ratio": _ratio(round(tower.width * tower.mlp_ratio), tower.width),
        "act_layer": tower.activation,
        "pre_norm": tower.pre_norm,
        "class_token": not average,
        "global_pool": "avg" if average else "token",
        "fc_norm": False if average else None,  # None, timm's default, norms after the average
    }


def _ratio(hidden: int, width: int) -> float:
    """From which timm, that rounds down, comes to `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _mixer(tower: MixerConfig) -> tuple[str, Args]:
    plain = MixerConfig()
    for key in ("activation", "eps", "stem"):
        if getattr(tower, key) != getattr(plain, key):
            raise ValueError(f"image.{key}: {getattr(tower, key)}; timm's Mixers have {getattr(plain, key)} alone")
    named = {name: sized(MixerConfig, size) for name, size in MIXERS.items()}
    shape = (tower.width, tower.depth, tower.patch_size)
    for name, config in named.items():
        if shape == (config.width, config.depth, config.patch_size):
            return _nearest(_mixer_args(tower), {name: _mixer_args(config)})
    raise ValueError(
        f"image: timm has no Mixer of width {tower.width}, depth {tower.depth} and patch_size {tower.patch_size}, but "
        f"{', '.join(MIXERS.values())}, and takes no other"
    )


def _mixer_args(tower: MixerConfig) -> Args:
    return {"mlp_ratio": [_ratio(tower.tokens, tower.width), _ratio(tower.channels, tower.width)]}


def _resnet(tower: ResNetConfig) -> tuple[str, Args]:
    if tower.stem != "imagenet":
        raise ValueError(f"image.stem: {tower.stem}; timm's ResNets have imagenet alone")
    named = {name: sized(ResNetConfig, size) for name, size in RESNETS.items()}
    facts = {name: _resnet_args(config) for name, config in named.items() if config.block == tower.block}
    return _nearest(_resnet_args(tower), facts)


def _resnet_args(tower: ResNetConfig) -> Args:
    return {"layers": list(tower.layers), "cardinality": tower.groups, "base_width": tower.width_per_group}
