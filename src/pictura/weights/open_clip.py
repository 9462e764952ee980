"""CLIP as OpenAI and open_clip lay it out (openai/CLIP model.py; open_clip model.py, `CLIP` and `CustomTextCLIP`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pictura.layers.mlp import Activation
from pictura.models.clip import CLIPConfig
from pictura.weights.layout import Json, Layout, State, blocks, from_json, inferred, modules, section

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
LAYOUT = Layout(
    whose="open_clip's CLIP with a ViT",
    names=NAMES,
    optional=frozenset({"logit_bias", "image.norm_pre.weight", "image.norm_pre.bias"}),
    transposed=("image_projection.weight", "text_projection.weight"),
)
NO_WEIGHTS = frozenset({"input_resolution", "context_length", "vocab_size", "attn_mask"})

# open_clip's name -> ours, of what a configuration says about a tower.
IMAGE = {"layers": "depth"} | {key: key for key in ("image_size", "width", "patch_size", "mlp_ratio", "patch_dropout")}
TEXT = {"layers": "depth"} | {key: key for key in ("context_length", "vocab_size", "width", "heads", "mlp_ratio")}
# What changes nothing for towers like ours, or is read on its own; and values that say what our towers do anyway.
SILENT = frozenset(
    {"no_ln_pre", "head_width", "norm_kwargs", "final_ln_after_pool", "output_tokens", "pad_id", "eos_id"}
)
ELSEWHERE = ("timm_", "hf_", "attn_pooler_", "tokenizer_")  # of other towers, which their `…_model_name` asks for
SAME = {
    "pos_embed_type": ("learnable",),
    "pool_type": ("tok", "argmax", "eos"),
    "block_type": ("default",),
    "proj_type": ("linear",),
}


def to_pictura(state: State) -> dict[str, Tensor]:
    """A state dict of OpenAI's or open_clip's, also `module.` prefixed or of a `CustomTextCLIP` -> ours, same dtype.

    ValueError names what is missing and what has no place, such as a ResNet's tensors.
    """
    state = {name.removeprefix("module.").removeprefix("text."): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if name not in NO_WEIGHTS}
    return LAYOUT.read(state)


def from_pictura(state: State) -> dict[str, Tensor]:
    """Our state dict -> that of open_clip's `CLIP`, which loads it strictly: the inverse of `to_pictura`.

    (open_clip's `load_checkpoint` takes it for a `CustomTextCLIP` too.) ValueError names what has no place there.
    """
    return LAYOUT.write(state)


def config_from(
    state: State, *, activation: Activation, image_heads: int | None = None, text_heads: int | None = None
) -> CLIPConfig:
    """The configuration that the shapes of `state`, in open_clip's layout, give away; the rest must be told.

    OpenAI's own weights have activation "quick_gelu"; open_clip's say it in their name or open_clip_config.json.
    """
    return inferred(to_pictura(state), activation=activation, image_heads=image_heads, text_heads=text_heads)


def config_from_json(source: Path | Json) -> CLIPConfig:
    """open_clip_config.json, or one of open_clip's `model_configs` -> our configuration.

    ValueError names a feature that changes what the weights mean and that our CLIP does not have.
    """
    return from_json(source, _configuration)


def _configuration(json: Json) -> dict[str, Any]:
    model = section(json, "model_cfg") or json
    vision = section(model, "vision_cfg", layers=12, width=768, patch_size=16, image_size=224, head_width=64)
    text = section(model, "text_cfg", context_length=77, vocab_size=49408, width=512, heads=8, layers=12)
    if "embed_dim" not in model:
        raise ValueError("embed_dim: missing; is it a model's open_clip_config.json?")
    activation = {"activation": "quick_gelu" if model.get("quick_gelu") else "gelu"}
    image = _tower(vision, IMAGE, "vision_cfg") | activation | {"kind": "vit"}
    image["stem"] = {"kind": "patch", "bias": False}
    image["pre_norm"] = not vision.get("no_ln_pre")
    if all(isinstance(vision[key], int) and vision[key] > 0 for key in ("width", "head_width")):
        image["heads"] = vision["width"] // vision["head_width"]
    found = {"embed_dim": model["embed_dim"], "logit_bias": model.get("init_logit_bias"), "image": image}
    found["text"] = _tower(text, TEXT, "text_cfg") | activation | {"kind": "transformer"}
    found["text"]["end_token"] = text.get("eos_id", 2) if text.get("pool_type") == "eos" else None
    if "init_logit_scale" in model:
        found["logit_scale"] = model["init_logit_scale"]
    pictures = section(json, "preprocess_cfg")
    names = {"mean": "mean", "std": "std", "interpolation": "interpolation", "resize_mode": "resize"}
    return found | {ours: pictures[theirs] for theirs, ours in names.items() if theirs in pictures}


def _tower(given: Json, ours: Mapping[str, str], where: str) -> dict[str, Any]:
    for key, value in given.items():
        apart = key.startswith(ELSEWHERE) and not key.endswith("_model_name")
        if not (key in ours or key in SILENT or apart or not value or value in SAME.get(key, ())):
            raise ValueError(f"{where}.{key}: {value!r} changes what the weights mean, and our CLIP does not have it")
    norm = section(given, "norm_kwargs", eps=1e-5)
    if norm.keys() != {"eps"}:
        raise ValueError(f"{where}.norm_kwargs: {norm} holds more than eps, and our CLIP does not have it")
    found = {ours[key]: value for key, value in given.items() if key in ours} | norm
    size = found.get("image_size")
    return found | ({"image_size": size[0]} if isinstance(size, list) and len(set(size)) == 1 else {})
