"""Models of others opened as they lie in their folders: open_clip's, and Hugging Face's CLIPModel.

What decides is the configuration in the folder: ours is `config.yaml`, open_clip's `open_clip_config.json`, Hugging
Face's `config.json`. Pickled weights are read by torch's loader of plain tensors, which executes nothing of a file.
"""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pictura.data.text import Tokenizer
from pictura.data.vocabularies import CLIP_TOKENS, CLIPTokenizerConfig, FileTokenizerConfig
from pictura.models.clip import CLIPConfig
from pictura.weights import huggingface, open_clip
from pictura.weights.folder import CONFIG, cast, check_tokenizer, empty, load_folder, read_safetensors, unfit
from pictura.weights.layout import State

OPEN_CLIP, HUGGING_FACE = "open_clip_config.json", "config.json"
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.safetensors",
)
HUGGING_FACE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def load_model(
    path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[nn.Module, Tokenizer]:
    """The model of a folder, ours, open_clip's or a Hugging Face CLIPModel's, on `device` and in `dtype` (None: as
    stored), and its tokenizer. Of a folder that is both of the latter, the one whose weights are there.

    Raises ValueError, with the file, for what is no such folder, is damaged, or is a model that our CLIP cannot be.
    """
    folder = Path(path).expanduser()
    if not (folder / CONFIG).is_file():
        theirs, hugging = _weights(folder, OPEN_CLIP_WEIGHTS), _weights(folder, HUGGING_FACE_WEIGHTS)
        both = (folder / OPEN_CLIP).is_file(), (folder / HUGGING_FACE).is_file()
        if both[0] and (theirs or not (both[1] and hugging)):
            config = open_clip.config_from_json(folder / OPEN_CLIP)
            file = theirs or _none(folder, OPEN_CLIP, OPEN_CLIP_WEIGHTS)
            return _model(folder, config, file, open_clip.to_pictura, device, dtype)
        if both[1]:
            config = huggingface.config_from_json(folder / HUGGING_FACE, _preprocessor(folder))
            file = hugging or _none(folder, HUGGING_FACE, HUGGING_FACE_WEIGHTS)
            return _model(folder, config, file, huggingface.to_pictura, device, dtype)
    return load_folder(path, device, dtype)


def _weights(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _none(folder: Path, config: str, names: tuple[str, ...]) -> Path:
    raise ValueError(f"{folder}: has {config}, but no weights beside it; there should be {' or '.join(names[:2])}")


def _preprocessor(folder: Path) -> Path | dict[str, Any] | None:
    """How pictures are prepared, wherever this version of transformers has written it."""
    if (file := folder / "preprocessor_config.json").is_file():
        return file
    if (file := folder / "processor_config.json").is_file():
        try:
            found = json.loads(file.read_text(encoding="utf-8")).get("image_processor")
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{file}: no JSON object ({error})") from None
        return found if isinstance(found, dict) else None
    return None


def _model(
    folder: Path,
    config: CLIPConfig,
    file: Path,
    translate: Callable[[State], dict[str, Tensor]],
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> tuple[nn.Module, Tokenizer]:
    tokenizer = _tokenizer(folder, config)
    state = read_safetensors(file) if file.suffix == ".safetensors" else read_pickled(file)
    try:
        state = {name: cast(tensor, dtype).to(device) for name, tensor in translate(state).items()}
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    model = empty(config)
    if problems := unfit(state, model.state_dict()):
        raise ValueError(f"{file}: does not fit the configuration beside it: {problems}")
    model.load_state_dict(state, assign=True)
    return model, tokenizer


def _tokenizer(folder: Path, config: CLIPConfig) -> Tokenizer:
    """The folder's own; CLIP's published one where it has none and the model is made for it."""
    length = config.text.context_length
    if any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        tokenizer = FileTokenizerConfig(path=folder, context_length=length).build(lambda: ())
    elif config.text.vocab_size == CLIP_TOKENS:
        tokenizer = CLIPTokenizerConfig(context_length=length).build(lambda: ())
    else:
        raise ValueError(f"{folder}: has no tokenizer.json, and its {config.text.vocab_size:,} tokens are not CLIP's")
    check_tokenizer(config, tokenizer, f"{folder}: its tokenizer")
    return tokenizer


def read_pickled(file: Path) -> dict[str, Tensor]:
    """All tensors of a .bin or .pt file of plain tensors. ValueError for one that holds more, or is damaged."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{file}: not read, because it is damaged or holds code beside its tensors ({reason}); use .safetensors"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file}: holds no state dict, a tensor under each name")
    return state
