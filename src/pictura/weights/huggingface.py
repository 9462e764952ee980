"""CLIP as Hugging Face's `CLIPModel` lays it out (transformers, models/clip/modeling_clip.py)."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pictura.config import to_dict
from pictura.layers.mlp import Activation
from pictura.layers.stems import PatchStemConfig
from pictura.models.clip import CLIPConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig
from pictura.weights.huggingface_pictures import CLIP_PROCESSOR, pictures_from
from pictura.weights.layout import Json, Layout, State, blocks, from_json, inferred, modules, section

QKV = ("q_proj", "k_proj", "v_proj")
BLOCK = modules(
    {
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "attn.qkv": "self_attn.qkv_proj",  # three in their layout: see `fused` and `split`
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
# Their names of activations -> ours; some of theirs are one formula.
ACTIVATIONS: dict[Any, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
HIDDEN_ACT: dict[Activation, str] = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu"}
HIGHEST_ID = 2  # as eos_token_id: a slip of old files, which transformers reads as the highest id of a text


def to_pictura(state: State) -> dict[str, Tensor]:
    """A state dict of a `CLIPModel` -> ours, same dtype. ValueError names what is missing and what has no place."""
    state = {name: tensor for name, tensor in state.items() if not name.endswith(".position_ids")}
    return LAYOUT.read(fused(state, LAYOUT.whose))


def from_pictura(state: State) -> dict[str, Tensor]:
    """Our state dict -> that of a `CLIPModel`, which loads it strictly: the inverse of `to_pictura`.

    ValueError names what has no place there, such as a SigLIP's bias.
    """
    return split(LAYOUT.write(state))


def fused(state: State, whose: str, three: tuple[str, str, str] = QKV) -> dict[str, Tensor]:
    """Queries, keys and values, [d d] each, `three` in their names -> one tensor, [3*d d], `qkv_proj`."""
    out = dict(state)
    for name in state:
        found = next((one for one in three if f".{one}." in name), None)
        if found is None:
            continue
        names = [name.replace(f".{found}.", f".{one}.") for one in three]
        if missing := [one for one in names if one not in state]:
            raise ValueError(f"{whose} needs {', '.join(missing)}, beside {name}")
        if len({state[one].shape for one in names}) > 1 or not state[name].dim():
            shapes = ", ".join(str(list(state[one].shape)) for one in names)
            raise ValueError(f"{', '.join(names)} are {shapes}, where three of one shape were expected")
        del out[name]
        if found == three[0]:
            out[name.replace(f".{found}.", ".qkv_proj.")] = torch.cat([state[one] for one in names])
    return out


def split(state: State, three: tuple[str, str, str] = QKV) -> dict[str, Tensor]:
    """The inverse of `fused`."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".qkv_proj." in name:
            parts = zip(three, tensor.chunk(3), strict=True)
            out |= {name.replace(".qkv_proj.", f".{one}."): part for one, part in parts}
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
    return from_json(preprocessor, lambda json: to_dict(config) | pictures_from(json, CLIP_PROCESSOR))


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
        "image": tower_from(vision)
        | {"kind": "vit", "image_size": vision["image_size"], "patch_size": vision["patch_size"]}
        | {"pre_norm": True, "stem": {"kind": "patch", "bias": False}},
        "text": tower_from(text)
        | {"kind": "transformer", "vocab_size": text["vocab_size"], "context_length": text["max_position_embeddings"]}
        | {"end_token": None if end == HIGHEST_ID else end},
    }


def tower_from(given: Json) -> dict[str, Any]:
    """What all their Transformers have, as configuration."""
    width, hidden = given["hidden_size"], given["intermediate_size"]
    if not (isinstance(width, int) and isinstance(hidden, int) and width > 0):
        raise ValueError(f"hidden_size and intermediate_size: expected numbers above 0, got {width!r} and {hidden!r}")
    activation = given["hidden_act"]
    if isinstance(activation, str):  # else the loader says what it expects
        activation = ACTIVATIONS.get(activation, activation)
    found = {"width": width, "mlp_ratio": hidden / width, "activation": activation}
    names = {"num_hidden_layers": "depth", "num_attention_heads": "heads", "layer_norm_eps": "eps"}
    return found | {ours: given[theirs] for theirs, ours in names.items()}


def json_of(config: CLIPConfig) -> dict[str, Any]:
    """config.json of the `CLIPModel` that `config` describes. ValueError names what no `CLIPModel` can be."""
    image, text = config.tower, config.text
    if not isinstance(image, ViTConfig):
        raise _cannot("image.kind", image.kind, "its towers for pictures are ViTs; --to open_clip has CLIP's ResNets")  # type: ignore[attr-defined]
    if not isinstance(text, TextTransformerConfig):
        raise _cannot("text.kind", text.kind, "its towers for texts are CLIP's; use kind: transformer")  # type: ignore[attr-defined]
    if config.logit_bias is not None:
        raise _cannot("logit_bias", config.logit_bias, "it has no bias of a SigLIP; --to open_clip has one")
    if config.projection_bias:
        raise _cannot("projection_bias", True, "its projection has no bias; train one without")
    if image.pool != "class":
        raise _cannot("image.pool", image.pool, "it reads the class token; train with image.pool: class")
    if not image.pre_norm:
        raise _cannot("image.pre_norm", False, "it has a norm before the blocks; --to open_clip can do without")
    if image.stem != PatchStemConfig(bias=False):
        raise _cannot("image.stem", to_dict(image.stem), "its stem is {kind: patch, bias: false}; train with that one")
    if text.end_token == HIGHEST_ID:
        raise _cannot("text.end_token", HIGHEST_ID, "it takes this for a slip and reads the highest id")
    vision = tower_json(image) | {"image_size": image.image_size, "patch_size": image.patch_size, "num_channels": 3}
    words = tower_json(text) | {"vocab_size": text.vocab_size, "max_position_embeddings": text.context_length}
    shared = {"projection_dim": config.embed_dim, "attention_dropout": 0.0}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": config.logit_scale,
        "vision_config": {"model_type": "clip_vision_model"} | vision | shared,
        "text_config": {"model_type": "clip_text_model"} | words | shared | _frame(text),
    }


def tower_json(tower: ViTConfig | TextTransformerConfig) -> dict[str, Any]:
    """The inverse of `tower_from`."""
    return {
        "hidden_size": tower.width,
        "intermediate_size": round(tower.width * tower.mlp_ratio),
        "num_hidden_layers": tower.depth,
        "num_attention_heads": tower.heads,
        "hidden_act": HIDDEN_ACT[tower.activation],
        "layer_norm_eps": tower.eps,
    }


def in_clips_form(text: TextTransformerConfig) -> bool:
    """Whether texts end as CLIP's do, with the highest id of the vocabulary; the one below it starts them."""
    return text.end_token in (None, text.vocab_size - 1)


def _frame(text: TextTransformerConfig) -> dict[str, Any]:
    """The ids around a text. transformers' own are those of CLIP's vocabulary, whatever size this one has."""
    end = HIGHEST_ID if text.end_token is None else text.end_token
    start = text.vocab_size - 2 if in_clips_form(text) else None
    return {"bos_token_id": start, "eos_token_id": end, "pad_token_id": text.end_token}


def _cannot(key: str, value: object, why: str) -> ValueError:
    return ValueError(f"{key}: {value}: {LAYOUT.whose} cannot be that: {why}")
