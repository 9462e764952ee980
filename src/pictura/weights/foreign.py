"""Any model by its path or hub name: ours, or another project's as it lies in its folder or single file.

A folder with `config.yaml` is ours. Whatever else is opened without running anything of it, and the one `Family` that
knows its tensors says what they mean.
"""

import json
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pictura.config import to_dict
from pictura.config.messages import nearest
from pictura.data.text import Tokenizer
from pictura.data.vocabularies import CLIP_TOKENS, IN_A_FOLDER, CLIPTokenizerConfig, FileTokenizerConfig
from pictura.models.base import TextConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.vilt import ViLTConfig
from pictura.weights.family import Family, Found, families
from pictura.weights.files import read_tensors
from pictura.weights.folder import CONFIG, FLOATING, assembled, cast, check_tokenizer, load_folder
from pictura.weights.folder import WEIGHTS as OURS
from pictura.weights.hub import INDEX, NO_WEIGHTS, PREFIX, fetch, is_name
from pictura.weights.shards import read_sharded

OPEN_CLIP = "open_clip_config.json"
WEIGHTS = {  # by what says whose they are, in the order of preference
    OPEN_CLIP: ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.safetensors"),
    "config.json": ("model.safetensors", INDEX, "pytorch_model.bin"),
}
SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin", ".ckpt")
TOLD = (*WEIGHTS, "preprocessor_config.json", "processor_config.json", "torchvision.json")  # what families read
LARGEST = 2**31  # number in a configuration
LARGEST_JSON = 64 * 2**20  # bytes; a vocabulary fits


def load_model(
    path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[nn.Module, Tokenizer | None]:
    """The model at a path or under a hub name, on `device` and in `dtype` (None: as stored), and its tokenizer, if it
    reads texts.

    Raises ValueError, with the file, for what is no model, is damaged, or is one that ours cannot be, naming the
    tensors that are missing, unexpected, of another shape or not finite.
    """
    place = _place(path)
    if place.suffix in SUFFIXES and not place.exists():
        beside_it = [file.name for file in place.parent.glob("*")]
        raise ValueError(f"{place}: there is no such file{nearest(place.name, beside_it)}")
    if (place / CONFIG).is_file() or not place.exists():
        return load_folder(place, device, dtype)
    file = weights_in(place) if place.is_dir() else place
    if file is None:
        return load_folder(place, device, dtype)
    config, state = _read(Found(file=file, state=_state(file), beside=beside(file.parent)))
    _check_sizes(config, len(state), file)
    tokenizer = _tokenizer(file.parent, config)
    if tokenizer is not None and isinstance(config, ViLTConfig):  # no checkpoint says which tokens these are
        config = replace(config, text=replace(config.text, end_token=tokenizer.end, mask_token=tokenizer.mask))
    _settle(state, device, dtype)
    precision = ", in float16" if dtype is torch.float16 else ""  # whose largest number is 65,504
    return assembled(config, state, f"{file}: does not fit the configuration that goes with it{precision}"), tokenizer


def _place(path: Path | str) -> Path:
    """Where it lies: here, or else in the cache of the hub, if it can be had from there."""
    place = Path(path).expanduser()
    if place.name == OURS and (place.parent / CONFIG).is_file():
        return place.parent
    moved = place.with_name(f".old-{place.name}") if place.name else place  # by a save that was killed
    if place.exists() or moved.is_dir() or not is_name(str(path)):
        return place
    try:
        return fetch(str(path))
    except ValueError as error:
        if str(path).startswith(PREFIX):
            raise
        reason = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: there is no such path here, and as a model of the hub: {reason}") from error


def _settle(state: dict[str, Tensor], device: torch.device | str, dtype: torch.dtype | None) -> None:
    """In place, one after the other: on `device`, in memory of its own, in `dtype`; None is as stored, or where a file
    mixes several, with which no model computes, the one that holds them all."""
    stored = {tensor.dtype for tensor in state.values() if tensor.dim() and tensor.dtype in FLOATING}
    if dtype is None and len(stored) > 1:
        dtype = reduce(torch.promote_types, stored)
    taken: set[int] = set()
    for name, tensor in state.items():
        moved = (cast(tensor, dtype) if tensor.dtype in FLOATING else tensor).to(device)
        memory = moved.untyped_storage()
        if memory.data_ptr() in taken or memory.nbytes() > moved.nbytes or not moved.is_contiguous():
            moved = moved.clone(memory_format=torch.contiguous_format)
        taken.add(moved.untyped_storage().data_ptr())
        state[name] = moved


def weights_in(folder: Path) -> Path | None:
    """The weights of a folder: those that go with a configuration in it, else the only file that looks like some.

    None where there is nothing of the kind. Of a folder that is two projects', the one whose weights are there.
    """
    described = [config for config in WEIGHTS if (folder / config).is_file()]
    for config in described:
        for name in WEIGHTS[config]:
            if (folder / name).is_file():
                return folder / name
    others = sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix in SUFFIXES and not entry.name.startswith(NO_WEIGHTS) and entry.is_file()
    )
    if len(others) > 1:
        raise ValueError(f"{folder}: which of {', '.join(path.name for path in others[:6])} is meant? Give its path")
    if not others and described:
        names = " or ".join(name for config in described for name in WEIGHTS[config][:2])
        raise ValueError(f"{folder}: has {described[0]}, but no weights beside it; there should be {names}")
    return others[0] if others else None


def beside(folder: Path) -> dict[str, dict[str, Any]]:
    """The JSON objects of a folder, by file name. Of those that no family reads, what is none is passed over."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        if not file.is_file() or file.stat().st_size > LARGEST_JSON or file.name.startswith(("tokenizer.", "vocab.")):
            continue
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            if file.name not in TOLD:
                continue
            raise ValueError(f"{file}: no JSON ({error})") from None
        if isinstance(value, dict):
            found[file.name] = value
        elif file.name in TOLD:
            raise ValueError(f"{file}: expected a JSON object, got {value!r:.80}")
    return found


def family_of(found: Found) -> Family:
    """The one that knows it. ValueError where none does, or where it is not plain which."""
    known = [family for family in families().values() if family.knows(found)]
    if len(known) == 1:
        return known[0]
    names = ", ".join(sorted(found.state)[:4])
    if known:
        raise ValueError(f"{found.file}: could be of {' or '.join(family.name for family in known)} ({names}, …)")
    raise ValueError(f"{found.file}: its tensors ({names}, …) are of none of {', '.join(families())}")


def _state(file: Path) -> dict[str, Tensor]:
    state = read_sharded(file) if file.name == INDEX else read_tensors(file)
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.dtype not in FLOATING:  # its scale lies somewhere else
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{file}: {name} is {kind}, quantised; take the weights that this file was made from")
    return state


def _check_sizes(config: PictureModelConfig, tensors: int, file: Path) -> None:
    """ValueError for numbers with which building a model, to compare it with the file, would take for ever or fail."""
    for tower, values in to_dict(config).items():
        for key, value in values.items() if isinstance(values, dict) else ():
            number = sum(value) if key == "layers" else value
            if key in ("depth", "layers") and number > tensors:
                raise ValueError(f"{file}: {tower}.{key}: {number:,} blocks, but there are {tensors:,} tensors")
            if isinstance(number, int) and number > LARGEST:
                raise ValueError(f"{file}: {tower}.{key}: {number:,} is larger than that of any model")


def _read(found: Found) -> tuple[PictureModelConfig, dict[str, Tensor]]:
    family = family_of(found)
    try:
        return family.read(found)
    except ValueError as error:
        raise ValueError(f"{found.file}: read as {family.name}: {error}") from error


def _tokenizer(folder: Path, config: PictureModelConfig) -> Tokenizer | None:
    """The folder's own; CLIP's published one where it has none and the model is made for it."""
    text = getattr(config, "text", None)
    if not isinstance(text, TextConfig):
        return None
    length = text.context_length
    if any((folder / name).is_file() for name in IN_A_FOLDER):
        tokenizer = FileTokenizerConfig(path=folder, context_length=length).build(lambda: ())
    elif text.vocab_size == CLIP_TOKENS:
        tokenizer = CLIPTokenizerConfig(context_length=length).build(lambda: ())
    else:
        raise ValueError(
            f"{folder}: has no tokenizer.json or vocab.txt, and its {text.vocab_size:,} tokens are not CLIP's"
        )
    check_tokenizer(config, tokenizer, f"{folder}: its tokenizer")
    return tokenizer
