"""ViT as Hugging Face's `ViTModel` and `ViTForImageClassification` lay it out (transformers, models/vit).

The names are those of its files: version 5 has others in memory, `layers.0.attention.q_proj`, which are read too, and
writes and reads the old ones as before.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pictura.config import to_dict
from pictura.layers.stems import PatchStemConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.vit import ViTConfig
from pictura.weights.classifiers import classifier, vit
from pictura.weights.huggingface import fused, split, tower_from, tower_json
from pictura.weights.layout import Json, Layout, State, blocks, modules

WHOSE = "Hugging Face's ViT"
FUSED = {"4": ("query", "key", "value"), "5": ("q_proj", "k_proj", "v_proj")}
BLOCKS = {
    "4": {
        "attn.qkv": "attention.attention.qkv_proj",  # three in their layout
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    },
    "5": {
        "attn.qkv": "attention.qkv_proj",
        "attn.proj": "attention.o_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
}
NORMS = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
AROUND = {
    "image.cls_token": "embeddings.cls_token",
    "image.pos_embed": "embeddings.position_embeddings",
} | modules(
    {
        "image.patch_embed.proj": "embeddings.patch_embeddings.projection",
        "image.norm": "layernorm",
        "pre_logits.fc": "pooler.dense",
        "head": "classifier",
    }
)
LAYOUTS = {
    version: Layout(
        whose=WHOSE,
        ours="our classifier with a ViT",
        names=AROUND | blocks("image.blocks", prefix, modules(NORMS | BLOCKS[version])),
        optional=frozenset(modules({"pre_logits.fc": "", "head": ""})),
        leading={},
    )
    for version, prefix in (("4", "encoder.layer"), ("5", "layers"))
}

# What transformers takes where a config.json says nothing.
VIT: Json = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "pooler_act": "tanh",
}


def to_pictura(state: State) -> dict[str, Tensor]:
    """A state dict of a `ViTModel` or `ViTForImageClassification` -> ours, same dtype.

    A model without biases of queries, keys and values (`qkv_bias: false`) gets them as zeros, which is the same model.
    ValueError names what is missing and what has no place.
    """
    state = {name.removeprefix("vit."): tensor for name, tensor in state.items()}
    if "classifier.weight" in state:  # which reads below the pooler that some old files have beside it
        state = {name: tensor for name, tensor in state.items() if not name.startswith("pooler.")}
    version = "4" if any(name.startswith("encoder.layer.") for name in state) else "5"
    three = FUSED[version]
    if not any(f".{one}.bias" in name for name in state for one in three):
        weights = tuple(f".{one}.weight" for one in three)
        zeros = {name: tensor.new_zeros(tensor.shape[:1]) for name, tensor in state.items() if name.endswith(weights)}
        state |= {f"{name.removesuffix('weight')}bias": bias for name, bias in zeros.items()}
    return LAYOUTS[version].read(fused(state, WHOSE, three))


def from_pictura(state: State) -> dict[str, Tensor]:
    """Our state dict -> that of a `ViTForImageClassification` where there is a head, else of a `ViTModel`: the inverse
    of `to_pictura`. ValueError names what has no place there.
    """
    out = split(LAYOUTS["4"].write(state), FUSED["4"])
    if "classifier.weight" not in out:
        return out
    return {name if name.startswith("classifier.") else f"vit.{name}": tensor for name, tensor in out.items()}


def config_of(state: State, json: Json | None) -> ClassifierConfig:
    """The configuration of weights under our names; `json` is their config.json.

    Without it shapes say what they can, and the rest is as transformers has it unasked: exact GELU, epsilon 1e-12.
    """
    image = vit(state, eps=VIT["layer_norm_eps"]) if json is None else _image(json)
    json = json or {}
    if "pre_logits.fc.weight" in state and (act := json.get("pooler_act", "tanh")) != "tanh":
        raise ValueError(f"pooler_act: {act!r} is not tanh, which our pre_logits have")
    names = class_names_of(json, state["head.bias"].numel() if "head.bias" in state else 0)
    return classifier(image, state, class_names=names, resize="squash", interpolation="bilinear")


def _image(json: Json) -> dict[str, Any]:
    given = dict(VIT) | dict(json)
    return (
        {"kind": "vit"} | tower_from(given) | {key: one_side(key, given[key]) for key in ("image_size", "patch_size")}
    )


def one_side(key: str, value: Any) -> Any:
    """Of two sides, that are the same."""
    if isinstance(value, list) and len(value) == 2:
        if value[0] != value[1]:
            raise ValueError(f"{key}: {value} is not square, and only square pictures and patches are known")
        return value[0]
    return value


def class_names_of(json: Json, classes: int) -> list[str]:
    """The words of `id2label`, empty where it has none. Of words that stand for several classes, such as ImageNet's
    two cranes, each gets its number.
    """
    labels = json.get("id2label")
    if not isinstance(labels, Mapping) or {str(key) for key in labels} != {str(k) for k in range(classes)}:
        return []
    words = [str(labels[key]) for key in sorted(labels, key=int)]
    if all(re.fullmatch(r"LABEL_\d+", word) for word in words):
        return []
    return [f"{word} ({k})" if words.count(word) > 1 else word for k, word in enumerate(words)]


def json_of(config: ClassifierConfig) -> dict[str, Any]:
    """config.json of the model that `config` describes. ValueError names what no ViT of theirs can be."""
    image = config.tower
    if not isinstance(image, ViTConfig):
        raise _cannot("image.kind", image.kind, "it is a ViT; --to timm has others")  # type: ignore[attr-defined]
    if image.pool != "class":
        raise _cannot("image.pool", image.pool, "it reads the class token; --to timm can average")
    if image.pre_norm:
        raise _cannot("image.pre_norm", True, "it has no norm before the blocks; --to timm has one")
    if image.stem != PatchStemConfig(bias=True):
        raise _cannot("image.stem", to_dict(image.stem), "its stem is {kind: patch, bias: true}; train with that one")
    if config.classes and config.pre_logits:
        raise _cannot("pre_logits", config.pre_logits, "with a head it has no pooler; train a head without pre_logits")
    names = config.class_names or [f"LABEL_{k}" for k in range(config.classes)]
    found: dict[str, Any] = {
        "architectures": ["ViTForImageClassification" if config.classes else "ViTModel"],
        "model_type": "vit",
        "image_size": image.image_size,
        "patch_size": image.patch_size,
        "num_channels": 3,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if config.classes:
        found["id2label"] = {str(k): name for k, name in enumerate(names)}
        found["label2id"] = {name: k for k, name in enumerate(names)}
    if config.pre_logits:
        found |= {"pooler_output_size": config.pre_logits, "pooler_act": "tanh"}
    return found | tower_json(image)


def _cannot(key: str, value: object, why: str) -> ValueError:
    return ValueError(f"{key}: {value}: {WHOSE} cannot be that: {why}")
