"""One project's model written as another's: `pictura convert`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pictura.config import load, to_dict
from pictura.config.messages import nearest
from pictura.data.fit import FitConfig
from pictura.data.text import Tokenizer
from pictura.data.views import CropConfig
from pictura.models.base import ModelConfig, TextConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.pictures import PictureModelConfig
from pictura.models.vilt import ViLTConfig
from pictura.weights.family import Found, Json, State, Written, families
from pictura.weights.folder import TOKENIZER, assembled, cast, empty, replacing, save_folder, unfit, write_safetensors
from pictura.weights.foreign import family_of, load_model
from pictura.weights.initial import resized, started

OURS = "pictura"
# Of a configuration, what the shapes of tensors show, and what training alone asks for.
SHOWN = frozenset({"mlp_ratio", "classes"})
TRAINING = frozenset(
    {"max_patches", "dropout", "drop_path", "patch_dropout", "zero_init", "head_bias", "logit_scale", "logit_bias"}
)
# What lies around the model: it computes the same without, so a family may have no place for it.
AROUND = frozenset({"class_names", "answers", "resize", "interpolation", "crop"})
TOLD = frozenset({"text.end_token", "text.mask_token"})  # of a ViLT, by the tokenizer that lies beside it


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What lies in the target folder now. notes: what is not in there, and what is in there without being trained."""

    config: PictureModelConfig
    parameters: int
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def targets() -> list[str]:
    """What `--to` takes."""
    return [OURS, *(name for name, family in families().items() if family.writes)]


def convert(
    source: Path | str, target: Path, to: str, changes: Sequence[str] = (), dtype: torch.dtype | None = None
) -> Converted:
    """Write the model at `source` (a path or a hub name) into the folder `target` as the project `to` has it.

    `changes`, such as image.image_size=384 or classes=0, alter its configuration first: positions are resized, a head
    dropped. `dtype` None keeps every tensor's own. ValueError, and nothing written, where that cannot be.
    """
    if to not in targets():
        raise ValueError(f"--to {to}: not known{nearest(to, targets()) or '; there are ' + ', '.join(targets())}")
    target = target.expanduser().resolve()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ValueError(f"{target}: is there already; choose a new folder")
    model, tokenizer = load_model(source)
    notes: list[str] = []
    if changes:
        model = changed(model, changes, notes)
    config, state = model.config, model.state_dict()
    assert isinstance(config, PictureModelConfig)
    if not isinstance(getattr(config, "text", None), TextConfig):
        tokenizer = None  # of a CLIP, whose picture tower goes on alone
    if dtype is not None:
        state = _cast(state, dtype)
    if to == OURS:
        save_folder(target, model, tokenizer, dtype=dtype)
    else:
        written = families()[to].write(config, state)
        if written.file.endswith(".npz") and dtype in (torch.float16, torch.bfloat16):
            raise ValueError(f"--dtype: {to}'s {written.file} has float32 alone; leave it out")
        notes += left_behind(written, config, to)
        write(written, tokenizer, target)
    files = tuple(sorted(path.name for path in target.iterdir()))
    parameters = sum(p.numel() for p in model.parameters())
    return Converted(config=config, parameters=parameters, files=files, notes=tuple(notes))


def changed(model: nn.Module, changes: Sequence[str], notes: list[str]) -> nn.Module:
    """The model with another configuration, and its weights as far as they go; `notes` gets what they did not do."""
    old = model.config
    assert isinstance(old, PictureModelConfig)
    config = _configured(old, changes)
    weights = resized(model, config)
    if isinstance(config, ClassifierConfig):
        weights = _headed(weights, old, config, notes)
    return assembled(config, weights, f"{' '.join(changes)}: the weights do not fit such a model")


def _configured(old: PictureModelConfig, changes: Sequence[str]) -> ModelConfig:
    values = to_dict(old)
    if isinstance(old, ClassifierConfig) and any(
        change.startswith("classes=") and change != f"classes={old.classes}" for change in changes
    ):
        del values["class_names"]  # they are of the head that goes
    config = load(ModelConfig, values, overrides=changes)
    if not isinstance(config, PictureModelConfig):
        return config
    if config.image is None:  # kind=classifier: the picture tower of a CLIP
        return started(old, config, old.tower.image_size)
    size = config.tower.image_size
    if size == old.tower.image_size or type(config.tower) is not type(old.tower):
        return config
    try:
        values["image"] = to_dict(old.tower.at(size))  # with what else depends on it
    except ValueError as error:
        raise ValueError(f"image.{error}") from error
    return load(ModelConfig, values, overrides=changes)


def _headed(weights: State, old: PictureModelConfig, config: ClassifierConfig, notes: list[str]) -> dict[str, Tensor]:
    """The tower, with the head as it was, or with one of zeros where it has other classes or reads something else."""
    before = old if isinstance(old, ClassifierConfig) else None
    same = config.pre_logits == (before and before.pre_logits)
    if config.pre_logits and not same:
        raise ValueError(f"pre_logits: {config.pre_logits}: there are no weights for such a layer; null leaves it out")
    keep: tuple[str, ...] = ("image.", *(["pre_logits."] if same else []))
    if same and before is not None and before.classes == config.classes:
        keep += ("head.",)
    out = {name: tensor for name, tensor in weights.items() if name.startswith(keep)}
    like = next(tensor for tensor in out.values() if tensor.dim())
    for name, tensor in empty(config).state_dict().items():
        if name.startswith("head.") and name not in out:
            fill = config.head_bias if name == "head.bias" else 0.0
            out[name] = torch.full(tensor.shape, fill, dtype=like.dtype)
            if name == "head.weight":
                notes.append(f"its head of {config.classes} classes is new, of zeros: train it")
    return out


def _cast(state: State, dtype: torch.dtype) -> dict[str, Tensor]:
    out = {name: cast(tensor, dtype) for name, tensor in state.items()}
    if dtype is torch.float16 and (problems := unfit(out, out)):
        raise ValueError(f"--dtype float16: {problems}, since its numbers end at 65,504; bf16 reaches further")
    return out


def left_behind(written: Written, config: PictureModelConfig, to: str) -> list[str]:
    """What of `config` would not come back with `written`, as notes. ValueError where another model would come back.

    It is read again without its numbers, which costs nothing.
    """
    state = {name: tensor.to("meta") for name, tensor in written.state.items()}
    found = Found(file=Path(written.file), state=state, beside=json.loads(json.dumps(written.beside)))
    again, back = family_of(found).read(found)
    wanted = {name: tensor.shape for name, tensor in empty(config).state_dict().items()}
    strange = {name for name in wanted.keys() | back.keys() if name not in back or back[name].shape != wanted.get(name)}
    if strange:
        raise ValueError(f"{to} has no place for {', '.join(sorted(strange)[:4])}")
    ours, theirs = _facts(config), _facts(again)
    lost = {key: value for key, value in ours.items() if value is not None and theirs.get(key) != value}
    if wrong := [f"{key}: {value} (there it is {theirs.get(key)})" for key, value in lost.items() if key not in AROUND]:
        raise ValueError(f"{to} has no place for {', '.join(wrong)}")
    words = [key if key in ("class_names", "answers") else f"{key}: {getattr(config, key)}" for key in lost]
    return [f"{to} has no place for {', '.join(words)}"] if words else []


def _facts(config: PictureModelConfig) -> dict[str, Any]:
    """What a configuration says of the model and of its pictures, by dotted key; a crop and a longest side by the
    pixels that they mean."""
    size = config.tower.image_size
    facts = {
        key: value for key, value in _flat(to_dict(config)).items() if key.rpartition(".")[2] not in SHOWN | TRAINING
    }
    if isinstance(config, ViLTConfig):
        facts = {key: value for key, value in facts.items() if key not in TOLD}
        facts["longest"] = FitConfig(image_size=size, longest=config.longest, patch_size=config.vit.patch_size).limit
    return facts | {"crop": CropConfig(image_size=size, crop=config.crop).resized_to}


def _flat(values: Json, path: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return out


def write(written: Written, tokenizer: Tokenizer | None, target: Path) -> None:
    """A model as another project has it, into the folder `target`, whole or not at all."""
    with replacing(target) as aside:
        file = aside / written.file
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in written.state.items()}
        if file.suffix == ".npz":
            arrays: dict[str, Any] = {name: tensor.float().numpy() for name, tensor in state.items()}
            np.savez(file, **arrays)
        else:
            write_safetensors(state, file)
        for name, content in written.beside.items():
            (aside / name).write_text(text(content), encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save(aside / TOKENIZER)


def text(content: Json) -> str:
    """A JSON object as files have it."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
