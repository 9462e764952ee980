"""CLIP as OpenAI and open_clip lay it out (openai/CLIP model.py; open_clip model.py, `CLIP` and `CustomTextCLIP`)."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from pictura.config import to_dict
from pictura.data.vocabularies import CLIP_TOKENS
from pictura.layers.mlp import Activation
from pictura.models.clip import CLIPConfig
from pictura.models.clip_resnet import CLIPResNetConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig
from pictura.weights.family import Family, Found, Written
from pictura.weights.layout import Json, Layout, State, blocks, from_json, inferred, modules, section

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"

BLOCK = {"attn.qkv.weight": "attn.in_proj_weight", "attn.qkv.bias": "attn.in_proj_bias"} | modules(
    {"norm1": "ln_1", "norm2": "ln_2", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
)
COMMON = (
    {
        "logit_scale": "logit_scale",
        "logit_bias": "logit_bias",
        "text.token_embedding.weight": "token_embedding.weight",
        "text.pos_embed": "positional_embedding",
        "text_projection.weight": "text_projection",
    }
    | modules({"text.norm": "ln_final"})
    | blocks("text.blocks", "transformer.resblocks", BLOCK)
)
VIT = (
    {
        "image.cls_token": "visual.class_embedding",
        "image.pos_embed": "visual.positional_embedding",
        "image.patch_embed.proj.weight": "visual.conv1.weight",
        "image_projection.weight": "visual.proj",
    }
    | modules({"image.norm_pre": "visual.ln_pre", "image.norm": "visual.ln_post"})
    | blocks("image.blocks", "visual.transformer.resblocks", BLOCK)
)
LAYOUT = Layout(
    whose="open_clip's CLIP with a ViT",
    names=COMMON | VIT,
    optional=frozenset({"logit_bias", "image.norm_pre.weight", "image.norm_pre.bias"}),
    transposed=("image_projection.weight", "text_projection.weight"),
)


def _convolved(pairs: Mapping[str, str]) -> dict[str, str]:
    """The tensors of convolutions, each followed by its batch norm: names the same in both projects."""
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = [f"{conv}.weight" for conv in pairs] + [f"{norm}.{part}" for norm in pairs.values() for part in parts]
    return {name: name for name in names}


CONVOLUTIONS = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3"}
RESNET = (
    {"image.pool.pos_embed": "visual.attnpool.positional_embedding"}
    | {f"image.{name}": f"visual.{name}" for name in _convolved(CONVOLUTIONS)}
    | modules({f"image.pool.{one}": f"visual.attnpool.{one}_proj" for one in "qkv"})
    | modules({"image_projection": "visual.attnpool.c_proj"})
)
for _layer in ("layer1", "layer2", "layer3", "layer4"):
    _inside = _convolved(CONVOLUTIONS | {"downsample.0": "downsample.1"})
    RESNET |= blocks(f"image.{_layer}", f"visual.{_layer}", _inside)
RESNET_LAYOUT = Layout(
    whose="open_clip's CLIP with a ResNet",
    names=COMMON | RESNET,
    optional=frozenset({"logit_bias"}),
    transposed=("text_projection.weight",),
    leading={"image.pool.pos_embed": 1},
    ours="our CLIP of a ResNet and a text Transformer",
)
NUMBERS = frozenset({"input_resolution", "context_length", "vocab_size"})  # in OpenAI's own archives alone
NO_WEIGHTS = NUMBERS | {"attn_mask"}

# open_clip's name -> ours, of what a configuration says about a tower.
IMAGE = {"layers": "depth"} | {key: key for key in ("image_size", "width", "patch_size", "mlp_ratio", "patch_dropout")}
IMAGE_RESNET = {key: key for key in ("layers", "image_size", "width")}
TEXT = {"layers": "depth"} | {key: key for key in ("context_length", "vocab_size", "width", "heads", "mlp_ratio")}
# What changes nothing for towers like ours, or is read on its own; and values that say what our towers do anyway.
SILENT = frozenset(
    {"no_ln_pre", "head_width", "norm_kwargs", "final_ln_after_pool", "output_tokens", "pad_id", "eos_id"}
)
SILENT_RESNET = frozenset({"patch_size", "mlp_ratio", "patch_dropout"})  # a ResNet has none
ELSEWHERE = ("timm_", "hf_", "attn_pooler_", "tokenizer_")  # of other towers, which their `…_model_name` asks for
SAME = {
    "pos_embed_type": ("learnable",),
    "pool_type": ("tok", "argmax", "eos"),
    "block_type": ("default",),
    "proj_type": ("linear",),
}


def to_pictura(state: State) -> dict[str, Tensor]:
    """A state dict of OpenAI's or open_clip's, also `module.` prefixed or of a `CustomTextCLIP` -> ours, same dtype.

    ValueError names what is missing and what has no place.
    """
    state = {_bare(name): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if name not in NO_WEIGHTS}
    return (RESNET_LAYOUT if _has(state, "visual.layer", "visual.attnpool.") else LAYOUT).read(state)


def from_pictura(state: State) -> dict[str, Tensor]:
    """Our state dict -> that of open_clip's `CLIP`, which loads it strictly: the inverse of `to_pictura`.

    (open_clip's `load_checkpoint` takes it for a `CustomTextCLIP` too.) ValueError names what has no place there.
    """
    return (RESNET_LAYOUT if _has(state, "image.layer", "image.pool.") else LAYOUT).write(state)


def _bare(name: str) -> str:
    return name.removeprefix("module.").removeprefix("text.")


def _has(names: Iterable[str], *starts: str) -> bool:
    return any(name.startswith(starts) for name in names)


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
    resnet = isinstance(vision["layers"], list | tuple)
    if resnet:
        image = _tower(vision, IMAGE_RESNET, "vision_cfg", SILENT | SILENT_RESNET) | {"kind": "clip_resnet"}
        del image["eps"]
    else:
        image = _tower(vision, IMAGE, "vision_cfg") | activation | {"kind": "vit"}
        image["stem"] = {"kind": "patch", "bias": False}
        image["pre_norm"] = not vision.get("no_ln_pre")
    if all(isinstance(vision[key], int) and vision[key] > 0 for key in ("width", "head_width")):
        image["heads"] = vision["width"] * (32 if resnet else 1) // vision["head_width"]
    found = {"embed_dim": model["embed_dim"], "logit_bias": model.get("init_logit_bias"), "image": image}
    found["projection_bias"] = resnet
    found["text"] = _tower(text, TEXT, "text_cfg") | activation | {"kind": "transformer"}
    found["text"]["end_token"] = text.get("eos_id", 2) if text.get("pool_type") == "eos" else None
    if "init_logit_scale" in model:
        found["logit_scale"] = model["init_logit_scale"]
    pictures = section(json, "preprocess_cfg")
    names = {"mean": "mean", "std": "std", "interpolation": "interpolation", "resize_mode": "resize"}
    return found | {ours: pictures[theirs] for theirs, ours in names.items() if theirs in pictures}


def _tower(given: Json, ours: Mapping[str, str], where: str, silent: frozenset[str] = SILENT) -> dict[str, Any]:
    for key, value in given.items():
        apart = key.startswith(ELSEWHERE) and not key.endswith("_model_name")
        if not (key in ours or key in silent or apart or not value or value in SAME.get(key, ())):
            raise ValueError(f"{where}.{key}: {value!r} changes what the weights mean, and our CLIP does not have it")
    norm = section(given, "norm_kwargs", eps=1e-5)
    if norm.keys() != {"eps"}:
        raise ValueError(f"{where}.norm_kwargs: {norm} holds more than eps, and our CLIP does not have it")
    found = {ours[key]: value for key, value in given.items() if key in ours} | norm
    size = found.get("image_size")
    return found | ({"image_size": size[0]} if isinstance(size, list) and len(set(size)) == 1 else {})


def config_to_json(config: CLIPConfig) -> dict[str, Any]:
    """Our configuration -> the object of an open_clip_config.json, of which `config_from_json` makes the same again.

    What matters in training only is left out. ValueError names what else open_clip has no place for.
    """
    image, text = config.tower, config.text
    if not isinstance(image, ViTConfig | CLIPResNetConfig) or not isinstance(text, TextTransformerConfig):
        kinds = " and ".join(str(to_dict(config)[tower]["kind"]) for tower in ("image", "text"))
        raise ValueError(f"open_clip's CLIP has no place for the towers {kinds}")
    model: dict[str, Any] = {"embed_dim": config.embed_dim}
    if text.activation == "quick_gelu":
        model["quick_gelu"] = True
    if config.logit_scale != math.log(1 / 0.07):
        model["init_logit_scale"] = config.logit_scale
    if config.logit_bias is not None:
        model["init_logit_bias"] = config.logit_bias
    model |= {"vision_cfg": _vision(image), "text_cfg": {theirs: getattr(text, ours) for theirs, ours in TEXT.items()}}
    if text.eps != 1e-5:
        model["text_cfg"]["norm_kwargs"] = {"eps": text.eps}
    if text.end_token is not None:
        model["text_cfg"] |= {"pool_type": "eos", "eos_id": text.end_token}
    if (
        text.vocab_size != CLIP_TOKENS
    ):  # else open_clip takes CLIP's own, and says nothing; of a folder it takes this one
        model["text_cfg"]["hf_tokenizer_name"] = "tokenizer.json"
    pictures: dict[str, Any] = {"mean": list(config.mean), "std": list(config.std)}
    pictures |= {"interpolation": config.interpolation, "resize_mode": config.resize}
    json = {"model_cfg": model, "preprocess_cfg": pictures}
    given, kept = _flat(to_dict(config)), _flat(to_dict(config_from_json(json)))
    forgotten = {key for key in given if key.endswith((".dropout", ".drop_path")) or given[key] is None}
    if lost := [f"{key}: {given[key]}" for key in given.keys() - forgotten if given[key] != kept.get(key)]:
        raise ValueError(f"open_clip's CLIP has no place for {', '.join(sorted(lost))}")
    return json


def _vision(image: ViTConfig | CLIPResNetConfig) -> dict[str, Any]:
    if isinstance(image, CLIPResNetConfig):
        found: dict[str, Any] = {theirs: getattr(image, ours) for theirs, ours in IMAGE_RESNET.items()}
        head_width = image.features // (image.heads or image.width // 2)
        found |= {"layers": list(image.layers), "patch_size": None}
        return found | ({} if head_width == 64 else {"head_width": head_width})
    found = {theirs: getattr(image, ours) for theirs, ours in IMAGE.items()}
    found["head_width"] = image.width // image.heads
    if image.eps != 1e-5:
        found["norm_kwargs"] = {"eps": image.eps}
    return found | ({} if image.pre_norm else {"no_ln_pre": True})


def _flat(values: Json, path: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {path + key: value}
    return out


class OpenCLIP(Family):
    """open_clip's folders and checkpoints. OpenAI's own, known by three numbers among them, are another family's."""

    name: ClassVar[str] = "open_clip"

    def knows(self, found: Found) -> bool:
        names = {_bare(name) for name in found.state}
        picture = "visual.conv1.weight" in names or (CONFIG in found.beside and _has(names, "visual."))
        text = "token_embedding.weight" in names or _has(found.state, "text.", "module.text.")
        return picture and text and not found.state.keys() >= NUMBERS

    def read(self, found: Found) -> tuple[PictureModelConfig, dict[str, Tensor]]:
        """With the wrong activation a model loads without a word and answers worse, and no shape tells which is right:
        so nothing is read without its configuration."""
        if CONFIG not in found.beside:
            raise ValueError(
                f"no shape tells whether its activation is gelu or quick_gelu; put the model's {CONFIG} beside it (the "
                "file of that model in open_clip's model_configs, under this name, will do)"
            )
        try:
            config = config_from_json(found.beside[CONFIG])
        except ValueError as error:
            raise ValueError(f"{CONFIG}: {error}") from error
        return config, to_pictura(found.state)

    def write(self, config: PictureModelConfig, state: State) -> Written:
        if not isinstance(config, CLIPConfig):
            raise ValueError(f"open_clip has no place for a {to_dict(config)['kind']}, only for a clip")
        json = config_to_json(config)  # first: its refusals are in words of the configuration
        return Written(file=WEIGHTS, state=from_pictura(state), beside={CONFIG: json})
