"""CLIP as Hugging Face's `CLIPModel` lays it out (transformers, models/clip/modeling_clip.py)."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pictura.config import to_dict
from pictura.layers.mlp import Activation
from pictura.models.clip import CLIPConfig
from pictura.weights.layout import Json, Layout, State, blocks, from_json, inferred, modules, section

BLOCK = modules(
    {
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "attn.qkv": "self_attn.qkv_proj",  # three in their layout: see `_fused` and `_split`
        "attn.proj": "self_attn.out_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
)
NAMES = (
    {
        "logit_scale": "logit_scale",
        "image.cls_token": "vision_model.embeddings.class_embedding",
        "image.pos_embed": "vision_model.embeddings.position_embedding.weight",
        "image.patch_embed.proj.weight": "vision_model.embeddings.patch_embedding.weight",
        "image_projection.weight": "visual_projection.weight",
        "text.token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "text.pos_embed": "text_model.embeddings.position_embedding.weight",
        "text_projection.weight": "text_projection.weight",
    }
    | modules(
        {
            "image.norm_pre": "vision_model.pre_layrnorm",  # so it is spelt there
            "image.norm": "vision_model.post_layernorm",
            "text.norm": "text_model.final_layer_norm",
        }
    )
    | blocks("image.blocks", "vision_model.encoder.layers", BLOCK)
    | blocks("text.blocks", "text_model.encoder.layers", BLOCK)
)
LAYOUT = Layout(whose="Hugging Face's CLIPModel", names=NAMES)

# What transformers takes where a config.json says nothing.
COMMON = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
VISION = COMMON | {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
VISION |= {"image_size": 224, "patch_size": 32}
TEXT = COMMON | {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
TEXT |= {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407}
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


def to_pictura(state: State) -> dict[str, Tensor]:
    """A state dict of a `CLIPModel` -> ours, same dtype. ValueError names what is missing and what has no place."""
    state = {name: tensor for name, tensor in state.items() if not name.endswith(".position_ids")}
    return LAYOUT.read(_fused(state))


def from_pictura(state: State) -> dict[str, Tensor]:
    """Our state dict -> that of a `CLIPModel`, which loads it strictly: the inverse of `to_pictura`.

    ValueError names what has no place there, such as a SigLIP's bias.
    """
    return _split(LAYOUT.write(state))


def _fused(state: State) -> dict[str, Tensor]:
    """Queries, keys and values, [d d] each -> one tensor, [3*d d], in the place of the queries."""
    out = {name: tensor for name, tensor in state.items() if not re.search(r"\.[kv]_proj\.", name)}
    for name in [name for name in out if ".q_proj." in name]:
        three = [name.replace(".q_proj.", f".{one}_proj.") for one in "qkv"]
        if missing := [one for one in three if one not in state]:
            raise ValueError(f"{LAYOUT.whose} needs {', '.join(missing)}, beside {name}")
        out[three[0].replace(".q_proj.", ".qkv_proj.")] = torch.cat([state[one] for one in three])
        del out[name]
    return out


def _split(state: State) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".qkv_proj." in name:
            out |= {
                name.replace(".qkv_proj.", f".{one}_proj."): part
                for one, part in zip("qkv", tensor.chunk(3), strict=True)
            }
        else:
            out[name] = tensor
    return out


def config_from(
    state: State, *, activation: Activation, image_heads: int | None = None, text_heads: int | None = None
) -> CLIPConfig:
    """The configuration that the shapes of a `CLIPModel`'s state dict give away; the rest must be told."""
    return inferred(to_pictura(state), activation=activation, image_heads=image_heads, text_heads=text_heads)


def config_from_json(source: Path | Json, preprocessor: Path | Json | None = None) -> CLIPConfig:
    """config.json of a `CLIPModel`, and its preprocessor_config.json (None: CLIP's own rule) -> our configuration."""
    config = from_json(source, _configuration)
    if preprocessor is None:
        return config
    return from_json(preprocessor, lambda json: to_dict(config) | _pictures(json))


def _configuration(json: Json) -> dict[str, Any]:
    if json.get("model_type") != "clip":
        raise ValueError(f"model_type: expected 'clip', got {json.get('model_type')!r}")
    # old files have the same again under ..._dict, which transformers lets win
    vision = section(json, "vision_config", **VISION) | section(json, "vision_config_dict")
    text = section(json, "text_config", **TEXT) | section(json, "text_config_dict")
    end = text.get("eos_token_id")
    return {
        "embed_dim": json.get("projection_dim", 512),
        "logit_scale": json.get("logit_scale_init_value", math.log(1 / 0.07)),
        "image": _tower(vision)
        | {"kind": "vit", "image_size": vision["image_size"], "patch_size": vision["patch_size"]}
        | {"pre_norm": True, "stem": {"kind": "patch", "bias": False}},
        "text": _tower(text)
        | {"kind": "transformer", "vocab_size": text["vocab_size"], "context_length": text["max_position_embeddings"]}
        | {"end_token": None if end == 2 else end},  # 2, a slip of old files, means the highest id
    }


def _tower(given: Json) -> dict[str, Any]:
    width, hidden = given["hidden_size"], given["intermediate_size"]
    if not (isinstance(width, int) and isinstance(hidden, int) and width > 0):
        raise ValueError(f"hidden_size and intermediate_size: expected numbers above 0, got {width!r} and {hidden!r}")
    found = {"width": width, "mlp_ratio": hidden / width, "activation": given["hidden_act"]}
    names = {"num_hidden_layers": "depth", "num_attention_heads": "heads", "layer_norm_eps": "eps"}
    return found | {ours: given[theirs] for theirs, ours in names.items()}


def _pictures(json: Json) -> dict[str, Any]:
    """What `CLIPImageProcessor` does, as configuration."""
    size = json.get("size", 224)
    square = isinstance(size, Mapping) and size.get("height") is not None and size.get("height") == size.get("width")
    shortest = isinstance(size, int) or (isinstance(size, Mapping) and "shortest_edge" in size)
    if not (square or (shortest and json.get("do_center_crop", True))):
        raise ValueError(f"size: {size!r} gives pictures that are not square")
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if not json.get(key, True):
            raise ValueError(f"{key}: false; our CLIP always does")
    resample = json.get("resample", 3)
    if resample not in RESAMPLE:
        raise ValueError(f"resample: {resample!r} is neither 2 (bilinear) nor 3 (bicubic)")
    found = {"resize": "squash" if square else "shortest", "interpolation": RESAMPLE[resample]}
    return found | {ours: json[f"image_{ours}"] for ours in ("mean", "std") if f"image_{ours}" in json}
