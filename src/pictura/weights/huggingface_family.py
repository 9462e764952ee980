"""Hugging Face's folders as transformers reads and writes them: CLIPModel, ViTForImageClassification, ViTModel, and all
classes of ViLT."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor

from pictura.config import load, to_dict
from pictura.data.text import END, START
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIPConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vilt import ViLTConfig
from pictura.weights import huggingface, huggingface_vilt, huggingface_vit
from pictura.weights.classifiers import unwrapped
from pictura.weights.family import Family, Found, Json, State, Written
from pictura.weights.huggingface_pictures import (
    CLIP_PROCESSOR,
    VIT_PROCESSOR,
    beside,
    pictures_from,
    processor_of,
    vilt_pictures_from,
    vilt_processor_of,
)
from pictura.weights.vilt import shaped

MARKS = (
    "vision_model.embeddings.class_embedding",
    "vit.embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.projection.weight",
)
CLIP_STARTS = ("vision_model.", "text_model.")
STARTS = (*CLIP_STARTS, "vit.", "embeddings.", "encoder.layer.")


class HuggingFace(Family):
    """A folder of transformers: model.safetensors, config.json, preprocessor_config.json, tokenizer_config.json."""

    name: ClassVar[str] = "huggingface"

    def knows(self, found: Found) -> bool:
        """By names of tensors; or by config.json, where a tensor that would tell is missing."""
        said = found.beside.get("config.json", {}).get("model_type") in ("clip", "vit", "vilt")
        if _is_vilt(found.state):
            return True
        return bool(_model(found.state)) or (said and any(name.startswith(STARTS) for name in found.state))

    def read(self, found: Found) -> tuple[PictureModelConfig, dict[str, Tensor]]:
        """Without a config.json beside: a CLIP with OpenAI's activation, a ViT as transformers makes one unasked."""
        state, json = _model(found.state) or found.state, found.beside.get("config.json")
        clip = any(name.startswith(CLIP_STARTS) for name in state)
        vilt = _is_vilt(found.state)
        if json is not None and (said := json.get("model_type")) != (
            kind := "clip" if clip else "vilt" if vilt else "vit"
        ):
            raise ValueError(f"config.json: model_type: expected {kind!r}, got {said!r}")
        config: PictureModelConfig
        if vilt:
            return _vilt(found.state, json, found.beside)
        if clip:
            ours, processor = huggingface.to_pictura(state), CLIP_PROCESSOR
            with _about("config.json"):
                told = None if json is None else huggingface.config_from_json(json)
            config = told or huggingface.config_from(state, activation="quick_gelu")
        else:
            ours, processor = huggingface_vit.to_pictura(state), VIT_PROCESSOR
            with _about("config.json"):
                config = huggingface_vit.config_of(ours, json)
        if (pictures := beside(found.beside)) is not None:
            file, prepared = pictures
            with _about(file):
                config = load(type(config), to_dict(config) | pictures_from(prepared, processor))
        return config, ours

    def write(self, config: PictureModelConfig, state: State) -> Written:
        """A CLIPModel of a CLIP; of a classifier a ViTForImageClassification, or without a head a ViTModel, whose
        pooler is our `pre_logits`.
        """
        if isinstance(config, CLIPConfig):
            json, theirs = huggingface.json_of(config), huggingface.from_pictura(state)
        elif isinstance(config, ClassifierConfig):
            json, theirs = huggingface_vit.json_of(config), huggingface_vit.from_pictura(state)
        elif isinstance(config, ViLTConfig):
            json, theirs = huggingface_vilt.json_of(config), huggingface_vilt.from_pictura(state, config.tasks)
        else:
            raise ValueError(f"kind: {config.kind}: Hugging Face's layout is of clip, classifier and vilt")  # type: ignore[attr-defined]
        dtype = next(tensor.dtype for name, tensor in state.items() if tensor.dim() and tensor.is_floating_point())
        files: dict[str, Json] = {
            "config.json": json | {"torch_dtype": str(dtype).removeprefix("torch.")},
            "preprocessor_config.json": processor_of(config),
        }
        if isinstance(config, ViLTConfig):
            files["preprocessor_config.json"] = vilt_processor_of(config, config.vit.patch_size)
            files["tokenizer_config.json"] = _berts_tokenizer(config)
        if isinstance(text := getattr(config, "text", None), TextTransformerConfig):
            files["tokenizer_config.json"] = _tokenizer(text)
        return Written(file="model.safetensors", state=theirs, beside=files)


def _is_vilt(state: State) -> bool:
    return any(name.removeprefix("vilt.") == huggingface_vilt.MARK for name in state)


def _vilt(state: State, json: Json | None, files: Mapping[str, Json]) -> tuple[PictureModelConfig, dict[str, Tensor]]:
    with shaped(huggingface_vilt.WHOSE):
        ours = huggingface_vilt.to_pictura(state)
        with _about("config.json"):
            config = huggingface_vilt.config_of(ours, json)
    if (pictures := beside(files)) is not None:
        file, prepared = pictures
        with _about(file):
            changes = vilt_pictures_from(prepared, config.vit.image_size, config.vit.patch_size)
            config = load(ViLTConfig, to_dict(config) | changes)
    return config, ours


def _berts_tokenizer(config: ViLTConfig) -> dict[str, Any]:
    """What transformers asks for beside a tokenizer.json in BERT's form."""
    names = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}
    found = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.text.context_length}
    return found | {f"{name}_token": token for name, token in names.items()}


def _tokenizer(text: TextTransformerConfig) -> dict[str, Any]:
    """What transformers asks for beside tokenizer.json.

    PreTrainedTokenizerFast takes that file as it stands; CLIPTokenizer would build its own, with another cleaning.
    Texts are padded with the end token: token 0, with which we pad, is CLIP's "!", and transformers cuts what it pads
    with out of every text. Other forms than CLIP's have a token of their own for it, which the file names.
    """
    found = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": text.context_length}
    if not huggingface.in_clips_form(text):
        return found
    return found | {"bos_token": START} | dict.fromkeys(("eos_token", "unk_token", "pad_token"), END)


def _model(state: State) -> State:
    """The model under its own names, whatever wraps it; empty where none of `MARKS` is there."""
    return next((model for mark in MARKS if (model := unwrapped(state, mark))), {})


@contextmanager
def _about(file: str) -> Iterator[None]:
    """Errors name the file that they are about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
