"""What other projects' layouts of CLIP have in common: tensors under other names, and what their shapes give away."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from pictura.config import load
from pictura.layers.mlp import ACTIVATIONS, Activation
from pictura.layers.stems import PatchStemConfig
from pictura.models.clip import CLIPConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig

State = Mapping[str, Tensor]
Json = Mapping[str, Any]

SCALARS = ("logit_scale", "logit_bias")


def modules(pairs: Mapping[str, str]) -> dict[str, str]:
    """Names of modules, ours -> theirs, as the names of their weight and bias."""
    return {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in pairs.items() for part in ("weight", "bias")}


def blocks(ours: str, theirs: str, inside: Mapping[str, str]) -> dict[str, str]:
    """The names `inside` a block, ours -> theirs, of all blocks of a tower."""
    return {f"{ours}.{{}}.{a}": f"{theirs}.{{}}.{b}" for a, b in inside.items()}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One project's layout. Of our names, it can do without the `optional` and has the `transposed` as [in out]."""

    whose: str
    names: Mapping[str, str]  # ours -> theirs; `{}` stands for the number of a block
    optional: frozenset[str] = frozenset()
    transposed: tuple[str, ...] = ()

    def read(self, state: State) -> dict[str, Tensor]:
        """Their state dict -> ours. ValueError names what is missing, and what our CLIP does not have."""
        _require(state, [theirs for ours, theirs in self.names.items() if ours not in self.optional], self.whose)
        names = {theirs: ours for ours, theirs in self.names.items()}
        ours = _renamed(state, names, "our CLIP of a ViT and a text Transformer")
        ours |= {name: ours[name].reshape(()) for name in SCALARS if name in ours}  # (1) where FSDP wrote it
        ours |= {name: ours[name].T.contiguous() for name in self.transposed}
        ours["image.cls_token"] = ours["image.cls_token"][None, None]
        ours["image.pos_embed"] = ours["image.pos_embed"][None]
        return ours

    def write(self, state: State) -> dict[str, Tensor]:
        """The inverse of `read`. ValueError names what has no place there, and what is needed there."""
        _require(state, self.names.keys() - self.optional, self.whose)
        shaped = dict(state) | {name: state[name].T.contiguous() for name in self.transposed}
        shaped["image.cls_token"] = state["image.cls_token"][0, 0]
        shaped["image.pos_embed"] = state["image.pos_embed"][0]
        return _renamed(shaped, self.names, self.whose)


def _renamed(state: State, names: Mapping[str, str], whose: str) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    strange: list[str] = []
    for name, tensor in state.items():
        number = re.search(r"(?<=\.)\d+(?=\.)", name)
        new = names.get(name[: number.start()] + "{}" + name[number.end() :] if number else name)
        if new is None or (number is None and "{}" in new):
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
        stem=PatchStemConfig(bias=False),
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


def from_json(source: Path | Json, translate: Callable[[Json], dict[str, Any]]) -> CLIPConfig:
    """The configuration that `translate` makes of a JSON file, or of the object that it holds. Errors name the file."""
    if isinstance(source, Mapping):
        return load(CLIPConfig, translate(source))
    try:
        value = json.loads(source.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"expected a JSON object, got {value!r:.80}")
        return load(CLIPConfig, translate(value))
    except (OSError, ValueError) as error:
        raise ValueError(f"{source}: {getattr(error, 'strerror', None) or error}") from error


def section(json: Json, key: str, **defaults: Any) -> dict[str, Any]:
    """The object under `key`, laid over `defaults`; absent and null are empty."""
    value = json.get(key) or {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: expected a JSON object, got {value!r:.80}")
    return defaults | dict(value)
