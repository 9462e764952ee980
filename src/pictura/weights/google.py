"""ViT and MLP-Mixer as their authors published them: arrays of JAX in an .npz (google-research/vision_transformer,
vit_jax/checkpoint.py; google-research/big_vision, models/vit.py and models/mlp_mixer.py, `load`).

An array's name is its path through the modules. Three generations number the modules inside a block differently, and
all come down to one, in which each class counts for itself. What no array tells is what this code always does: GELU in
its tanh form, an epsilon of 1e-6, pixels from -1 to 1, both sides of a picture squashed to the model's size.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from pictura.layers.resnet_stem import ResNetStemConfig
from pictura.layers.stems import PatchStemConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.mixer import MixerConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.vit import ViTConfig
from pictura.weights.classifiers import classifier, is_square, known_classifier, mixer, shape, vit
from pictura.weights.family import Family, Found, State, Written
from pictura.weights.layout import require

ATTENTION = "MultiHeadDotProductAttention_0"
BLOCK = "Transformer/encoderblock_{}"
VIT = {  # modules, ours -> theirs; `{}` is a number
    "image.patch_embed.proj": "embedding",
    "image.norm": "Transformer/encoder_norm",
    "pre_logits.fc": "pre_logits",
    "head": "head",
    "image.blocks.{}.norm1": f"{BLOCK}/LayerNorm_0",
    "image.blocks.{}.norm2": f"{BLOCK}/LayerNorm_1",
    "image.blocks.{}.attn.proj": f"{BLOCK}/{ATTENTION}/out",
    "image.blocks.{}.mlp.fc1": f"{BLOCK}/MlpBlock_0/Dense_0",
    "image.blocks.{}.mlp.fc2": f"{BLOCK}/MlpBlock_0/Dense_1",
}
STAGE, UNIT = "image.patch_embed.backbone.stages.{}.blocks.{}", "block{}/unit{}"  # which count from 0, and from 1
UNITS = {f"{STAGE}.downsample.{ours}": f"{UNIT}/{theirs}_proj" for ours, theirs in (("conv", "conv"), ("norm", "gn"))}
UNITS |= {f"{STAGE}.{a}{i}": f"{UNIT}/{b}{i}" for i in (1, 2, 3) for a, b in (("conv", "conv"), ("norm", "gn"))}
MIXER = {
    "image.stem.proj": "stem",
    "image.norm": "pre_head_layer_norm",
    "head": "head",
    "image.blocks.{}.norm1": "MixerBlock_{}/LayerNorm_0",
    "image.blocks.{}.norm2": "MixerBlock_{}/LayerNorm_1",
} | {
    f"image.blocks.{{}}.mlp_{kind}s.fc{i + 1}": f"MixerBlock_{{}}/{kind}_mixing/Dense_{i}"
    for kind in ("token", "channel")
    for i in (0, 1)
}
POSITIONS = "Transformer/posembed_input/pos_embedding"
PLACES = (POSITIONS, "Transformer/pos_embedding", "pos_embedding")  # of positions, from old to new
QKV = re.compile(rf"Transformer/encoderblock_(\d+)/{ATTENTION}/(query|key|value)/(kernel|bias)")
NUMBERED = re.compile(r"(LayerNorm|MultiHeadDotProductAttention|MlpBlock|Dense)_(\d+)")
# How vit_jax, and timm after it, number the modules of a block: all classes together.
TOGETHER = {"LayerNorm_1": "LayerNorm_2", ATTENTION: "MultiHeadDotProductAttention_1", "MlpBlock_0": "MlpBlock_3"}
ROOTS = {"": (), "opt/target/": ("opt/state/",), "params/img/": ("opt/", "chrono/"), "params/": ("opt/", "chrono/")}
"""Where the model's arrays may lie, and what lies beside them in training."""
ALWAYS = {"activation": "gelu_tanh", "eps": 1e-6}


class Google(Family):
    """vit_jax's and big_vision's ViT, with its hybrids, and Mixer. Words for classes have no place there."""

    name: ClassVar[str] = "google"

    def knows(self, found: Found) -> bool:
        return _root(found.state) is not None

    def read(self, found: Found) -> tuple[PictureModelConfig, dict[str, Tensor]]:
        root = _root(found.state)
        assert root is not None
        beside = {name for name in found.state if name.startswith(ROOTS[root])} if ROOTS[root] else set[str]()
        theirs = {n.removeprefix(root): tensor for n, tensor in found.state.items() if n not in beside}
        theirs = _unstacked(_linen(theirs))
        big_vision = any("/MlpBlock_0/" in name for name in theirs)
        theirs = _each_class_for_itself(theirs)
        if "stem/kernel" in theirs:
            state = _named(theirs, MIXER, "Mixer")
            image = mixer(state, **ALWAYS)
        else:
            heads = shape(theirs, f"{BLOCK.format(0)}/{ATTENTION}/query/kernel", 3)[1]
            state = _vit(theirs, big_vision)
            image = vit(state, heads=heads, **ALWAYS)
        return classifier(image, state, resize="squash", interpolation="bilinear"), state

    def write(self, config: PictureModelConfig, state: State) -> Written:
        """In float32; ViT as vit_jax has it, Mixer as big_vision has it."""
        config = known_classifier(config, "google", ViTConfig, MixerConfig)
        _check(config)
        state = {name: tensor.float() for name, tensor in state.items()}
        if isinstance(config.tower, MixerConfig):
            return Written(file="model.npz", state=_arrays(state, MIXER))
        assert isinstance(config.tower, ViTConfig)
        rest = {name: tensor for name, tensor in state.items() if ".attn.qkv." not in name}
        out = {POSITIONS: rest.pop("image.pos_embed")}
        if (token := rest.pop("image.cls_token", None)) is not None:
            out["cls"] = token
        staged = isinstance(config.tower.stem, ResNetStemConfig) and bool(config.tower.stem.layers)
        out |= _arrays(rest, VIT | UNITS | _root_of_hybrid(staged), config.tower.heads)
        out |= _split(state, config.tower.heads)
        return Written(file="model.npz", state={_together(name): tensor for name, tensor in out.items()})


def _root(state: State) -> str | None:
    marks = ("embedding/kernel", "stem/kernel")
    return next((root for root in ROOTS if any(root + mark in state for mark in marks)), None)


def _linen(state: State) -> dict[str, Tensor]:
    """The Mixers that were published are older than flax.linen, and keep both layers of a perceptron in one module."""
    if not any(name.startswith("Mixer/") for name in state):
        return dict(state)
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = re.sub(r"^embedding/", "stem/", name).replace("Mixer/encoder_norm/", "pre_head_layer_norm/")
        new = new.replace("Mixer/encoderblock_", "MixerBlock_")
        if match := re.fullmatch(r"(MixerBlock_\d+/\w+_mixing)_phase_0/(kernel|bias)([12])", new):
            new = f"{match[1]}/Dense_{int(match[3]) - 1}/{match[2]}"
            tensor = tensor.squeeze()  # it has further axes, of length 1
        out[new] = tensor
    return out


def _unstacked(state: State) -> dict[str, Tensor]:
    """A model that was scanned over has each array once, [depth …] for all blocks."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        rest = name.removeprefix("Transformer/encoderblock/")
        if rest == name:
            out[name] = tensor
        elif not tensor.dim():
            raise ValueError(f"{name} is one number, where one for each block was expected")
        else:
            out |= {f"{BLOCK.format(i)}/{rest}": one for i, one in enumerate(tensor.unbind())}
    return out


def _each_class_for_itself(state: State) -> dict[str, Tensor]:
    """MlpBlock_3 and LayerNorm_2 -> MlpBlock_0 and LayerNorm_1, the first and the second of their class in a block."""
    numbers: dict[str, set[int]] = {}
    for name in state:
        for match in NUMBERED.finditer(name):
            numbers.setdefault(name[: match.start()] + match[1], set()).add(int(match[2]))

    def renumbered(match: re.Match[str]) -> str:
        known = sorted(numbers[match.string[: match.start()] + match[1]])
        return f"{match[1]}_{known.index(int(match[2]))}"

    return {NUMBERED.sub(renumbered, name): tensor for name, tensor in state.items()}


def _together(name: str) -> str:
    return "/".join(TOGETHER.get(part, part) for part in name.split("/"))


def _vit(theirs: Mapping[str, Tensor], big_vision: bool) -> dict[str, Tensor]:
    rest = {name: tensor for name, tensor in theirs.items() if not QKV.fullmatch(name)}
    patch_size, _, _, width = shape(theirs, "embedding/kernel", 4)
    places = [place for place in PLACES if place in rest]
    if len(places) > 1:
        raise ValueError(f"has positions twice, as {' and '.join(places)}")
    if not places and (not big_vision or width % 4):
        raise ValueError(f"google's ViT needs {POSITIONS}, which is not there")
    positions = rest.pop(places[0]) if places else waves(224 // patch_size, width)
    out = {name: rest.pop("cls") for name in ("image.cls_token",) if "cls" in rest}
    if out and positions.dim() == 3 and is_square(positions.shape[1]):  # they are the patches' alone
        positions = torch.cat([torch.zeros_like(positions[:, :1]), positions], 1)
    out["image.pos_embed"] = positions
    staged = any(name.startswith("block1/") for name in rest)
    root = _root_of_hybrid(staged) if "conv_root/kernel" in rest else {}
    return out | _fused(theirs) | _named(rest, VIT | UNITS | root, "ViT")


def waves(grid: int, width: int) -> Tensor:
    """[1 n d]: sines and cosines of a patch's place, which big_vision computes and does not store (`posemb="sincos2d"`,
    Chen et al., MoCo v3, 2021). Models that have them were published for pictures of 224 pixels alone."""
    rates = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4 - 1))
    y, x = torch.meshgrid(*(torch.arange(grid, dtype=torch.float64) for _ in range(2)), indexing="ij")
    y, x = y.reshape(-1, 1) * rates, x.reshape(-1, 1) * rates
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], 1)[None].float()


def _root_of_hybrid(staged: bool) -> dict[str, str]:
    within = "image.patch_embed.backbone" + (".stem" if staged else "")
    return {f"{within}.conv": "conv_root", f"{within}.norm": "gn_root"}


def _fused(theirs: State) -> dict[str, Tensor]:
    """Queries, keys and values, [d h d/h] each -> one tensor for each block, [3*d d]; biases, [h d/h] -> [3*d]."""
    blocks = sorted({(match[1], match[3]) for name in theirs if (match := QKV.fullmatch(name))})
    out = {}
    for block, part in blocks:
        names = [f"{BLOCK.format(block)}/{ATTENTION}/{one}/{part}" for one in ("query", "key", "value")]
        require(theirs, names, "google's ViT")
        three = [theirs[name] for name in names]
        if len({tensor.shape for tensor in three}) > 1 or (part == "kernel" and three[0].dim() != 3):
            shapes = ", ".join(str(list(tensor.shape)) for tensor in three)
            raise ValueError(f"{', '.join(names)} are {shapes}, where three of one shape were expected")
        if part == "bias":
            out[f"image.blocks.{block}.attn.qkv.bias"] = torch.cat([tensor.flatten() for tensor in three])
        else:
            out[f"image.blocks.{block}.attn.qkv.weight"] = torch.cat([tensor.flatten(1).T for tensor in three])
    return out


def _split(state: State, heads: int) -> dict[str, Tensor]:
    """The inverse of `_fused`."""
    out = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"image\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)", name):
            for one, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                place = f"{BLOCK.format(match[1])}/{ATTENTION}/{one}"
                if match[2] == "bias":
                    out[f"{place}/bias"] = part.reshape(heads, -1)
                else:
                    out[f"{place}/kernel"] = part.T.reshape(part.shape[1], heads, -1)
    return out


def _named(theirs: State, names: Mapping[str, str], whose: str) -> dict[str, Tensor]:
    """Their arrays under our names, as PyTorch has them. ValueError names those that have no place."""
    back = {new: old for old, new in names.items()}
    out: dict[str, Tensor] = {}
    strange: list[str] = []
    for name, tensor in theirs.items():
        module, _, part = name.rpartition("/")
        new = _translated(module, back, -1)
        if new is None or part not in ("kernel", "scale", "bias"):
            strange.append(name)
        elif part == "kernel":
            out[f"{new}.weight"] = _weight(name, tensor)
        else:
            out[f"{new}.{'bias' if part == 'bias' else 'weight'}"] = tensor.flatten()  # old norms have [1 1 1 c]
    if strange:
        more = f" and {len(strange) - 4} more" if len(strange) > 4 else ""
        raise ValueError(f"our {whose} has no place for {', '.join(strange[:4])}{more}")
    return out


def _weight(name: str, kernel: Tensor) -> Tensor:
    """[… in out] -> [out in …]."""
    if kernel.dim() == 4:
        return kernel.permute(3, 2, 0, 1).contiguous()
    if kernel.dim() == 3 and name.endswith("/out/kernel"):
        kernel = kernel.flatten(0, 1)
    if kernel.dim() != 2:
        raise ValueError(f"{name} is {list(kernel.shape)}, where 2 axes, in and out, were expected")
    return kernel.T.contiguous()


def _arrays(state: State, names: Mapping[str, str], heads: int = 1) -> dict[str, Tensor]:
    """The inverse of `_named`."""
    out = {}
    for name, tensor in state.items():
        module, _, part = name.rpartition(".")
        new = _translated(module, names, 1)
        if new is None:
            raise ValueError(f"google has no place for {name}")
        if part == "bias":
            out[f"{new}/bias"] = tensor
        elif tensor.dim() == 1:
            out[f"{new}/scale"] = tensor
        elif tensor.dim() == 4:
            out[f"{new}/kernel"] = tensor.permute(2, 3, 1, 0)
        else:
            out[f"{new}/kernel"] = tensor.T.unflatten(0, (heads, -1)) if new.endswith("/out") else tensor.T
    return out


def _translated(module: str, names: Mapping[str, str], shift: int) -> str | None:
    """A module's new name; of its numbers, those of units are shifted: they count from 1 there."""
    for old, new in names.items():
        if match := re.fullmatch(re.escape(old).replace(r"\{\}", r"(\d+)"), module):
            shift = shift if UNIT in (old + new) else 0
            return new.format(*(int(number) + shift for number in match.groups()))
    return None


def _check(config: ClassifierConfig) -> None:
    """ValueError for what google's code does not compute, so that it would answer otherwise with these weights."""
    tower = config.tower
    assert isinstance(tower, ViTConfig | MixerConfig)
    same: dict[str, Any] = {f"image.{key}": (getattr(tower, key), value) for key, value in ALWAYS.items()}
    same |= {"mean": (config.mean, (0.5, 0.5, 0.5)), "std": (config.std, (0.5, 0.5, 0.5))}
    if isinstance(tower, ViTConfig):
        same["image.pre_norm"] = (tower.pre_norm, False)
    else:
        same["pre_logits"] = (config.pre_logits, None)
    if lost := [f"{key}: {given}, where it has {always}" for key, (given, always) in same.items() if given != always]:
        raise ValueError(f"google has no place for {'; '.join(lost)}")
    hybrid = isinstance(tower, ViTConfig) and isinstance(tower.stem, ResNetStemConfig)
    if not hybrid and tower.stem != PatchStemConfig():
        raise ValueError(f"google has no place for image.stem: {tower.stem}")
