"""CLIP as OpenAI and open_clip lay it out (openai/CLIP model.py; open_clip model.py, `CLIP` and `CustomTextCLIP`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pictura.config import load
from pictura.layers.mlp import Activation
from pictura.models.clip import CLIPConfig
from pictura.weights.layout import State, blocks, described, inferred, modules, read, section, write

BLOCK = {"attn.qkv.weight": "attn.in_proj_weight", "attn.qkv.bias": "attn.in_proj_bias"} | modules(
    {"norm1": "ln_1", "norm2": "ln_2", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
)
NAMES = (
    {
        "logit_scale": "logit_scale",
        "logit_bias": "logit_bias",
        "image.cls_token": "visual.class_embedding",
        "image.pos_embed": "visual.positional_embedding",
        "image.patch_embed.proj.weight": "visual.conv1.weight",
        "image_projection.weight": "visual.proj",
        "text.token_embedding.weight": "token_embedding.weight",
        "text.pos_embed": "positional_embedding",
        "text_projection.weight": "text_projection",
    }
    | modules({"image.norm_pre": "visual.ln_pre", "image.norm": "visual.ln_post", "text.norm": "ln_final"})
    | blocks("image.blocks", "visual.transformer.resblocks", BLOCK)
    | blocks("text.blocks", "transformer.resblocks", BLOCK)
)
TRANSPOSED = ("image_projection.weight", "text_projection.weight")
NO_WEIGHTS = frozenset({"input_resolution", "context_length", "vocab_size", "attn_mask"})

# What our towers have, by open_clip's name; what tells nothing about the weights; what must be as open_clip has it.
IMAGE = {"image_size": "image_size", "layers": "depth", "width": "width", "patch_size": "patch_size"}
IMAGE |= {"mlp_ratio": "mlp_ratio", "patch_dropout": "patch_dropout"}
TEXT = {"context_length": "context_length", "vocab_size": "vocab_size", "width": "width", "heads": "heads"}
TEXT |= {"layers": "depth", "mlp_ratio": "mlp_ratio"}
SILENT = frozenset({"attn_pooler_queries", "attn_pooler_heads", "output_tokens", "hf_tokenizer_name"})
SILENT |= {"tokenizer_mode", "tokenizer_kwargs", "pad_id", "eos_id", "hf_model_pretrained", "hf_proj_type"}
SILENT |= {"hf_pooler_type", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_drop", "head_width", "norm_kwargs"}
FIXED = {"pos_embed_type": "learnable", "block_type": "default", "proj_type": "linear"}


def to_pictura(state: State) -> dict[str, Tensor]:
    """A state dict of OpenAI's or open_clip's, also `module.` prefixed or of a `CustomTextCLIP` -> ours, same dtype.

    ValueError names what is missing and what has no place, such as a ResNet's tensors.
    """
    state = {name.removeprefix("module.").removeprefix("text."): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if name not in NO_WEIGHTS}
    return read(state, NAMES, "open_clip's layout of a CLIP with a ViT", TRANSPOSED)


def from_pictura(state: State) -> dict[str, Tensor]:
    """Our state dict -> that of open_clip's `CLIP`, which loads it strictly: the inverse of `to_pictura`.

    (open_clip's `load_checkpoint` takes it for a `CustomTextCLIP` too.) ValueError names what has no place there.
    """
    return write(state, NAMES, "open_clip's CLIP", TRANSPOSED)


def config_from(
    state: State, *, activation: Activation, image_heads: int | None = None, text_heads: int | None = None
) -> CLIPConfig:
    """The configuration that the shapes of `state`, in open_clip's layout, give away; the rest must be told.

    OpenAI's own weights have activation "quick_gelu"; open_clip's say it in their name or open_clip_config.json.
    """
    return inferred(to_pictura(state), activation=activation, image_heads=image_heads, text_heads=text_heads)


def config_from_json(source: Path | Mapping[str, Any]) -> CLIPConfig:
    """open_clip_config.json, or one of open_clip's `model_configs` -> our configuration.

    ValueError names a feature that changes what the weights mean and that our CLIP does not have.
    """
    json = described(source)
    model = section({"model_cfg": json}, "model_cfg") if "model_cfg" not in json else section(json, "model_cfg")
    pictures = section(json, "preprocess_cfg")
    image = section(model, "vision_cfg", layers=12, width=768, patch_size=16, image_size=224, head_width=64)
    text = section(model, "text_cfg", context_length=77, vocab_size=49408, width=512, heads=8, layers=12)
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    found: dict[str, Any] = {
        "embed_dim": model.get("embed_dim"),
        "logit_bias": model.get("init_logit_bias"),
        "image": _tower(image, IMAGE, {"pool_type": "tok"}, "vision_cfg") | {"activation": activation},
        "text": _tower(text, TEXT, {"pool_type": ("argmax", "eos")}, "text_cfg") | {"activation": activation},
    }
    found["image"] |= {"kind": "vit", "pre_norm": not image.get("no_ln_pre"), "patch_bias": False}
    return load(CLIPConfig, found)
