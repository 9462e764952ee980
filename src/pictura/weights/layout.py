"""What other projects' layouts of CLIP have in common: tensors under other names, and what their shapes give away."""

import json
import re
from collections.abc import Iterable, Mapping
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from pictura.layers.mlp import ACTIVATIONS, Activation
from pictura.models.clip import CLIPConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig

State = Mapping[str, Tensor]
Names = Mapping[str, str]
"""Ours -> theirs; `{}` stands for the number of a block."""

OPTIONAL = frozenset({"logit_bias", "image.norm_pre.weight", "image.norm_pre.bias"})
SCALARS = ("logit_scale", "logit_bias")


def modules(pairs: Mapping[str, str]) -> dict[str, str]:
    """Names of modules, ours -> theirs, as the names of their weight and bias."""
    return {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in pairs.items() for part in ("weight", "bias")}


def blocks(ours: str, theirs: str, inside: Mapping[str, str]) -> dict[str, str]:
    """The names `inside` a block, ours -> theirs, of all blocks of a tower."""
    return {f"{ours}.{{}}.{a}": f"{theirs}.{{}}.{b}" for a, b in inside.items()}


def read(state: State, names: Names, whose: str, transposed: Iterable[str] = ()) -> dict[str, Tensor]:
    """Their state dict -> ours. ValueError names what is missing, and what a CLIP of two Transformers does not have."""
    _require(state, {theirs for ours, theirs in names.items() if ours not in OPTIONAL}, whose)
    ours = _renamed(state, {theirs: ours for ours, theirs in names.items()}, "a CLIP of a ViT and a text Transformer")
    ours |= {name: ours[name].reshape(()) for name in SCALARS if name in ours}  # (1) where FSDP wrote it
    ours |= {name: ours[name].T.contiguous() for name in transposed}
    return ours | {"image.cls_token": ours["image.cls_token"][None, None], "image.pos_embed": ours["image.pos_embed"][None]}


def write(state: State, names: Names, whose: str, transposed: Iterable[str] = ()) -> dict[str, Tensor]:
    """Our state dict -> theirs, the inverse of `read`. ValueError names what has no place there, or is needed there."""
    _require(state, set(names) - OPTIONAL, whose)
    shaped = dict(state) | {name: state[name].T.contiguous() for name in transposed}
    shaped |= {"image.cls_token": state["image.cls_token"][0, 0], "image.pos_embed": state["image.pos_embed"][0]}
    return _renamed(shaped, names, whose)


def _renamed(state: State, names: Names, whose: str) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    strange: list[str] = []
    for name, tensor in state.items():
        number = re.search(r"(?<=\.)\d+(?=\.)", name)
        new = names.get(name[: number.start()] + "{}" + name[number.end() :] if number else name)
        if new is None:
            strange.append(name)
        else:
            out[new.format(number and number.group())] = tensor
    if strange:
        raise ValueError(f"{whose} has no place for {_some(strange)}")
    return out


def _require(state: State, names: Iterable[str], whose: str) -> None:
    missing = sorted(name for name in names if "{}" not in name and name not in state)
    if missing:
        raise ValueError(f"{whose} needs {_some(missing)}, which {'is' if len(missing) == 1 else 'are'} not there")


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def inferred(
    state: State, *, activation: Activation, image_heads: int | None = None, text_heads: int | None = None
) -> CLIPConfig:
    """The configuration of a CLIP from the shapes of its tensors, under our names.

    No shape gives away the activation, nor the heads: one for 64 of the width, as OpenAI has them, unless told. The
    bias of a SigLIP begins at -10.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: no {activation!r} among {', '.join(ACTIVATIONS)}")
    width, _, patch_size, _ = state["image.patch_embed.proj.weight"].shape
    cells = state["image.pos_embed"].shape[1] - 1
    if isqrt(cells) ** 2 != cells:
        raise ValueError(f"image.pos_embed: {cells} patches make no square, and only square pictures are known")
    vocab_size, text_width = state["text.token_embedding.weight"].shape
    image = ViTConfig(
        image_size=isqrt(cells) * patch_size,
        patch_size=patch_size,
        width=width,
        depth=_depth(state, "image"),
        heads=_heads(width, image_heads, "image_heads"),
        mlp_ratio=_mlp_ratio(state, "image"),
        activation=activation,
        eps=1e-5,
        pre_norm="image.norm_pre.weight" in state,
        patch_bias=False,
    )
    text = TextTransformerConfig(
        vocab_size=vocab_size,
        context_length=state["text.pos_embed"].shape[0],
        width=text_width,
        depth=_depth(state, "text"),
        heads=_heads(text_width, text_heads, "text_heads"),
        mlp_ratio=_mlp_ratio(state, "text"),
        activation=activation,
        eps=1e-5,
    )
    embed_dim = state["text_projection.weight"].shape[0]
    return CLIPConfig(image=image, text=text, embed_dim=embed_dim, logit_bias=-10.0 if "logit_bias" in state else None)


def _depth(state: State, tower: str) -> int:
    numbers = [int(found.group(1)) for name in state if (found := re.match(rf"{tower}\.blocks\.(\d+)\.", name))]
    if sorted(set(numbers)) != list(range(len(set(numbers)))) or not numbers:
        raise ValueError(f"{tower}.blocks: numbered {sorted(set(numbers))}, not from 0 on without a gap")
    return max(numbers) + 1


def _heads(width: int, told: int | None, name: str) -> int:
    heads = width // 64 if told is None else told
    if heads < 1 or width % heads or (told is None and width % 64):
        raise ValueError(f"{name}: {told or 'not known'} for a width of {width}; give a number that divides it")
    return heads


def _mlp_ratio(state: State, tower: str) -> float:
    name = f"{tower}.blocks.0.mlp.fc1.weight"
    _require(state, [name], "a configuration")
    hidden, width = state[name].shape
    return hidden / width


def described(source: Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON object of a file, or the mapping that is given. ValueError, with the file, where it is none."""
    if isinstance(source, Mapping):
        return source
    try:
        value = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{source}: cannot be read as JSON ({getattr(error, 'strerror', None) or error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{source}: holds a {type(value).__name__}, not a JSON object")
    return value


def section(json: Mapping[str, Any], key: str, **defaults: Any) -> dict[str, Any]:
    """The object under `key`, over `defaults`; absent and null are empty."""
    value = json.get(key) or {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: expected an object, got {value!r:.80}")
    return defaults | dict(value)
