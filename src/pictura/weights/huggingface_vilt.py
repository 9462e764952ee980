"""ViLT as transformers lays it out (models/vilt): `ViltModel`, and that model below one head.

transformers has a class for each head, none for matching, and one epsilon for all norms. It ties the masked words to
their embeddings when it makes a model, not when it loads one, so both are written. Of BERT's two kinds of segment ViLT
uses the first, for every token: it is part of our positions, and comes back as zeros.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pictura.config import load
from pictura.models.vilt import JointTask, ViLTConfig
from pictura.weights.huggingface import fused, split, tower_from, tower_json
from pictura.weights.huggingface_vit import class_names_of, one_side
from pictura.weights.layout import Json, Layout, State, blocks, modules
from pictura.weights.vilt import check_published, words_of

WHOSE = "Hugging Face's ViLT"
QKV = ("query", "key", "value")
SEGMENTS = "embeddings.text_embeddings.token_type_embeddings.weight"
MARK = "embeddings.text_embeddings.word_embeddings.weight"
HEADS: Mapping[JointTask, dict[str, str]] = {
    "words": {
        "dense": "mlm_score.transform.dense",
        "norm": "mlm_score.transform.LayerNorm",
        "decoder": "mlm_score.decoder",
    },
    "answers": {"fc1": "classifier.0", "norm": "classifier.1", "fc2": "classifier.3"},
    "pair": {"fc1": "classifier.0", "norm": "classifier.1", "fc2": "classifier.3"},
    "rank": {"": "rank_output"},
}
CLASSES: Mapping[JointTask, str] = {
    "words": "ViltForMaskedLM",
    "answers": "ViltForQuestionAnswering",
    "pair": "ViltForImagesAndTextClassification",
    "rank": "ViltForImageAndTextRetrieval",
}
BODY = (
    {
        "type_embed": "embeddings.token_type_embeddings.weight",
        "text.word_embed.weight": MARK,
        "text.pos_embed": "embeddings.text_embeddings.position_embeddings.weight",
        "image.cls_token": "embeddings.cls_token",
        "image.pos_embed": "embeddings.position_embeddings",
    }
    | modules(
        {
            "text.norm": "embeddings.text_embeddings.LayerNorm",
            "image.patch_embed.proj": "embeddings.patch_embeddings.projection",
            "image.norm": "layernorm",
            "pooler": "pooler.dense",
        }
    )
    | blocks(
        "image.blocks",
        "encoder.layer",
        modules(
            {
                "norm1": "layernorm_before",
                "norm2": "layernorm_after",
                "attn.qkv": "attention.attention.qkv_proj",  # three in their layout
                "attn.proj": "attention.output.dense",
                "mlp.fc1": "intermediate.dense",
                "mlp.fc2": "output.dense",
            }
        ),
    )
)

# What transformers takes where a config.json says nothing.
VILT: Json = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 384,
    "patch_size": 32,
}


def layout(heads: tuple[JointTask, ...]) -> Layout:
    """Names with at most one head."""
    theirs = {f"heads.{head}.{part}".rstrip("."): name for head in heads for part, name in HEADS[head].items()}
    return Layout(whose=WHOSE, ours="our ViLT", names=BODY | modules(theirs), leading={})


def head_of(state: State) -> tuple[JointTask, ...]:
    """The head that these tensors have. A classifier of pairs reads two pictures, so its first layer is square."""
    if "rank_output.weight" in state:
        return ("rank",)
    if any(name.startswith("mlm_score.") for name in state):
        return ("words",)
    if "classifier.0.weight" in state:
        rows, columns = state["classifier.0.weight"].shape
        return ("pair",) if rows == columns else ("answers",)
    return ()


def to_pictura(state: State) -> dict[str, Tensor]:
    """A state dict of one of their classes -> ours, same dtype. ValueError names what is missing or has no place."""
    state = {name.removeprefix("vilt."): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not name.endswith("position_ids")}
    bias, segments = state.pop("mlm_score.bias", None), state.pop(SEGMENTS, None)
    if segments is None:
        raise ValueError(f"{WHOSE} needs {SEGMENTS}, which is not there")
    if any(name.startswith("mlm_score.") for name in state) and MARK in state:
        state.setdefault("mlm_score.decoder.weight", state[MARK])  # tied, so that files hold it once
    if bias is not None:  # version 4 has it under both names
        state.setdefault("mlm_score.decoder.bias", bias)
    ours = layout(head_of(state)).read(fused(state, WHOSE, QKV))
    return ours | {"text.pos_embed": ours["text.pos_embed"] + segments[0]}


def from_pictura(state: State, heads: tuple[JointTask, ...]) -> dict[str, Tensor]:
    """Our state dict -> that of the class with this head, or of a `ViltModel`: the inverse of `to_pictura`."""
    out = split(layout(heads).write(state), QKV)
    out[SEGMENTS] = out[MARK].new_zeros(2, out[MARK].shape[1])
    if not heads:
        return out
    own = tuple(HEADS[heads[0]].values())
    return {name if name.startswith(own) else f"vilt.{name}": tensor for name, tensor in out.items()}


def config_of(state: State, json: Json | None) -> ViLTConfig:
    """The configuration of weights under our names; `json` is their config.json, None for what transformers has."""
    given = dict(VILT) | dict(json or {})
    image = (
        {"kind": "vit"} | tower_from(given) | {key: one_side(key, given[key]) for key in ("image_size", "patch_size")}
    )
    tasks = [task for task in CLASSES if any(name.startswith(f"heads.{task}.") for name in state)]
    answers: list[str] = []
    if "answers" in tasks:
        count = len(state["heads.answers.fc2.bias"])
        answers = class_names_of(given, count) or [f"{k}" for k in range(count)]
    return load(
        ViLTConfig,
        {"image": image, "text": words_of(state) | {"eps": image["eps"]}, "tasks": tasks, "answers": answers},
    )


def json_of(config: ViLTConfig) -> dict[str, Any]:
    """config.json of the class that `config` describes. ValueError names what none of theirs can be."""
    image = config.vit
    check_published(config, WHOSE)
    if len(config.tasks) > 1 or "matching" in config.tasks:
        raise ValueError(
            f"tasks: {', '.join(config.tasks)}: {WHOSE} cannot be that: its classes have one head each, none of them "
            "matching; --to vilt keeps all"
        )
    found: dict[str, Any] = {
        "architectures": [CLASSES[config.tasks[0]] if config.tasks else "ViltModel"],
        "model_type": "vilt",
        "image_size": image.image_size,
        "patch_size": image.patch_size,
        "num_channels": 3,
        "qkv_bias": True,
        "max_image_length": -1,
        "vocab_size": config.text.vocab_size,
        "max_position_embeddings": config.text.context_length,
        "type_vocab_size": 2,
        "modality_type_vocab_size": 3 if "pair" in config.tasks else 2,
        "tie_word_embeddings": False,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if "pair" in config.tasks:
        found |= {"num_images": 2, "id2label": {"0": "False", "1": "True"}, "label2id": {"False": 0, "True": 1}}
    if "answers" in config.tasks:
        found["id2label"] = {str(k): name for k, name in enumerate(config.answers)}
        found["label2id"] = {name: k for k, name in enumerate(config.answers)}
    return found | tower_json(image)
