"""What other projects' layouts of CLIP have in common: tensors under other names, and what their shapes give away."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from pictura.config import load
from pictura.layers.mlp import ACTIVATIONS, Activation
from pictura.layers.stems import PatchStemConfig
from pictura.models.base import ImageTowerConfig
from pictura.models.clip import CLIPConfig
from pictura.models.clip_resnet import STRIDE, CLIPResNetConfig
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
    """One project's layout. Of our names, it can do without the `optional`, has the `transposed` as [in out], and the
    `leading` without so many axes of length 1 that ours begin with."""

    whose: str
    names: Mapping[str, str]  # ours -> theirs; `{}` stands for the number of a block
    optional: frozenset[str] = frozenset()
    transposed: tuple[str, ...] = ()
    leading: Mapping[str, int] = field(default_factory=lambda: {"image.cls_token": 2, "image.pos_embed": 1})
    ours: str = "our CLIP of a ViT and a text Transformer"

    def read(self, state: State) -> dict[str, Tensor]:
        """Their state dict -> ours. ValueError names what is missing, and what our CLIP does not have."""
        require(state, [theirs for ours, theirs in self.names.items() if ours not in self.optional], self.whose)
        names = {theirs: ours for ours, theirs in self.names.items()}
        ours = renamed(state, names, self.ours)
        # a scalar is (1) where FSDP wrote it; what is of no such shape is left to be reported
        ours |= {name: ours[name].reshape(()) for name in SCALARS if name in ours and ours[name].numel() == 1}
        ours |= {name: ours[name].T.contiguous() for name in self.transposed if ours[name].dim() == 2}
        return ours | {name: ours[name][(None,) * axes] for name, axes in self.leading.items()}

    def write(self, state: State) -> dict[str, Tensor]:
        """The inverse of `read`. ValueError names what has no place there, and what is needed there."""
        require(state, self.names.keys() - self.optional, self.whose)
        shaped = dict(state) | {name: state[name].T.contiguous() for name in self.transposed}
        shaped |= {name: state[name][(0,) * axes] for name, axes in self.leading.items()}
        return renamed(shaped, self.names, self.whose)


def renamed(state: State, names: Mapping[str, str], whose: str) -> dict[str, Tensor]:
    """Tensors under their new names; `{}` stands for the number of a block. ValueError names those without a place."""
    out: dict[str, Tensor] = {}
    strange: list[str] = []
    for name, tensor in state.items():
        number = re.search(r"(?<=\.)\d+(?=\.)", name)
        new = names.get(name)
        if new is None and number:
            new = names.get(name[: number.start()] + "{}" + name[number.end() :])
        if new is None or (number is None and "{}" in new):
            strange.append(name)
        else:
            out[new.format(number and number.group())] = tensor
    if strange:
        raise ValueError(f"{whose} has no place for {_some(strange)}")
    return out


def require(state: State, names: Iterable[str], whose: str) -> None:
    """ValueError names those of `names` that are not there; names of numbered blocks are passed over."""
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
    vocab_size, text_width = state["text.token_embedding.weight"].shape
    text = TextTransformerConfig(
        vocab_size=vocab_size,
        context_length=state["text.pos_embed"].shape[0],
        width=text_width,
        depth=depth_of(state, "text.blocks"),
        heads=_heads(text_width, text_heads, "text_heads"),
        mlp_ratio=_mlp_ratio(state, "text"),
        activation=activation,
        eps=1e-5,
    )
    resnet = "image.pool.pos_embed" in state
    return CLIPConfig(
        image=_resnet(state, image_heads) if resnet else _vit(state, activation, image_heads),
        text=text,
        embed_dim=state["text_projection.weight"].shape[0],
        projection_bias="image_projection.bias" in state,
        logit_bias=-10.0 if "logit_bias" in state else None,
    )


def _vit(state: State, activation: Activation, heads: int | None) -> ImageTowerConfig:
    width, _, patch_size, _ = state["image.patch_embed.proj.weight"].shape
    return ViTConfig(
        image_size=grid_of(state, "image.pos_embed") * patch_size,
        patch_size=patch_size,
        width=width,
        depth=depth_of(state, "image.blocks"),
        heads=_heads(width, heads, "image_heads"),
        mlp_ratio=_mlp_ratio(state, "image"),
        activation=activation,
        eps=1e-5,
        pre_norm="image.norm_pre.weight" in state,
        stem=PatchStemConfig(bias=False),
    )


def _resnet(state: State, heads: int | None) -> ImageTowerConfig:
    width = state["image.conv3.weight"].shape[0]
    one, two, three, four = (depth_of(state, f"image.layer{stage}") for stage in (1, 2, 3, 4))
    return CLIPResNetConfig(
        image_size=grid_of(state, "image.pool.pos_embed") * STRIDE,
        layers=(one, two, three, four),
        width=width,
        heads=_heads(width * 32, heads, "image_heads"),
    )


def grid_of(state: State, name: str) -> int:
    """Side of the square of patches that these positions, [1 1+n d], are of. ValueError where it is none."""
    cells = state[name].shape[1] - 1
    if isqrt(cells) ** 2 != cells:
        raise ValueError(f"{name}: {cells} patches make no square, and only square pictures are known")
    return isqrt(cells)


def depth_of(state: State, blocks: str) -> int:
    """How many blocks there are under this name. ValueError where a number is missing."""
    numbers = {int(found.group(1)) for name in state if (found := re.match(rf"{re.escape(blocks)}\.(\d+)\.", name))}
    if sorted(numbers) != list(range(len(numbers))) or not numbers:
        raise ValueError(f"{blocks}: numbered {sorted(numbers)}, not from 0 on without a gap")
    return len(numbers)


def _heads(width: int, told: int | None, name: str) -> int:
    heads = width // 64 if told is None else told
    if heads < 1 or width % heads or (told is None and width % 64):
        raise ValueError(f"{name}: {told or 'not known'} for a width of {width}; give a number that divides it")
    return heads


def _mlp_ratio(state: State, tower: str) -> float:
    name = f"{tower}.blocks.0.mlp.fc1.weight"
    require(state, [name], "a configuration")
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
