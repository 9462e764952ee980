"""The model folder, the currency between commands: `model.safetensors`, `config.yaml` and, where it reads texts,
`tokenizer.json`.

`config.yaml` is the model's configuration, with what pictures must go through (mean, std, resize rule) and what the
weights expect (activation, end token), so that nothing is guessed when it is read. A folder is written aside, brought
to the disk and renamed: whatever happens on the way, the model that was there before can still be loaded.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pictura.config import load, to_yaml
from pictura.config.messages import explain
from pictura.data.text import Tokenizer
from pictura.models.base import ImageTowerConfig, ModelConfig, TextConfig

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.yaml", "tokenizer.json"
FILES = frozenset({WEIGHTS, CONFIG, TOKENIZER})
FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def save_folder(
    path: Path | str, model: nn.Module, tokenizer: Tokenizer | None, *, dtype: torch.dtype | None = torch.float32
) -> None:
    """Write `model`, which holds its configuration as `config`, and its tokenizer, if it has one, into the folder
    `path`.

    A model folder that is there is replaced. dtype: None is as they are; scalars (the temperature) are float32 always.
    Raises ValueError where something else is in the way, where the weights cannot be used, or where the disk refuses.
    """
    path = Path(path).expanduser().resolve()
    config = model.config
    assert isinstance(config, ModelConfig), f"{type(model)} has no ModelConfig as its `config`"
    state = {name: cast(tensor.detach().cpu(), dtype).contiguous() for name, tensor in model.state_dict().items()}
    if problems := unfit(state, empty(config).state_dict()):
        raise ValueError(f"{path}: not written, the weights could not be used: {problems}")
    if tokenizer is not None:
        check_tokenizer(config, tokenizer, f"{path}: not written, its tokenizer")
    _refuse_others(path)
    with replacing(path) as aside:
        (aside / CONFIG).write_text(to_yaml(config), encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save(aside / TOKENIZER)
        write_safetensors(state, aside / WEIGHTS)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of the folder `path` when all is there and on the disk.

    Whatever goes wrong, `path` is as it was. ValueError where the disk refuses.
    """
    aside = path.with_name(f".tmp-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        yield aside
        _swap(aside, path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: the model could not be written there ({_reason(error)})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_safetensors(state: dict[str, Tensor], file: Path) -> None:
    """Tensors into a new file, with what other projects look for in it, readable by whoever may read its folder."""
    file.touch()
    mode = file.stat().st_mode
    save_file(state, file, metadata={"format": "pt"})
    file.chmod(mode)  # safetensors lets only the owner read


def load_folder(
    path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[nn.Module, Tokenizer | None]:
    """The model of a folder, on `device` and in `dtype` (None: as stored), and its tokenizer if it reads texts.

    Raises ValueError, with the file, where the folder is none, a file is missing or damaged, or weights and
    configuration do not fit together, naming the tensors that are missing, unexpected, of another shape or not finite.
    """
    path = _existing(Path(path).expanduser())
    config = load(ModelConfig, path / CONFIG)
    tokenizer = None
    if isinstance(text := getattr(config, "text", None), TextConfig):
        if not (path / TOKENIZER).is_file():
            raise ValueError(f"{path}: not a model folder: it has no {TOKENIZER}, and its model reads texts")
        tokenizer = Tokenizer.load(path / TOKENIZER)
        check_tokenizer(config, tokenizer, f"{path / TOKENIZER}:")
        tokenizer.context_length = text.context_length
    state = read_safetensors(path / WEIGHTS, device, dtype)
    return assembled(config, state, f"{path / WEIGHTS}: does not fit the {CONFIG} beside it"), tokenizer


def assembled(config: ModelConfig, state: Mapping[str, Tensor], misfit: str) -> nn.Module:
    """The model with these weights as its own. ValueError, beginning with `misfit`, where they are not."""
    try:
        model = empty(config)
    except (RuntimeError, ArithmeticError) as error:  # sizes that no tensor can have
        raise ValueError(f"{misfit}: {explain(error)}") from error
    if problems := unfit(state, model.state_dict()):
        raise ValueError(f"{misfit}: {problems}")
    if any(buffer.is_meta for name, buffer in model.named_buffers() if name not in state):
        like = next(tensor for tensor in state.values() if tensor.is_floating_point())
        with torch.random.fork_rng(devices=[]):  # tables that are computed, not stored: only a real build has them
            model = config.build().to(device=like.device, dtype=like.dtype)
    model.load_state_dict(state, assign=True)
    return model


def empty(config: ModelConfig | ImageTowerConfig) -> nn.Module:
    """The model, or tower, without memory for its weights: built in milliseconds at any size."""
    with torch.device("meta"), _Undrawn():
        return config.build()


class _Undrawn(TorchFunctionMode):
    """Leaves out random initialisation: torch imports its compiler before it draws, even where there is no memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        drawn = func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == nn.init.__name__
        return kwargs.get("tensor", *args[:1]) if drawn else func(*args, **kwargs)


def read_safetensors(
    file: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """All tensors of a file, copied out of it; floating ones in `dtype`, scalars in float32. ValueError if damaged."""
    try:
        with safe_open(file, "pt") as stored:
            # safetensors maps the file: a copy keeps the weights when the file goes
            return {name: cast(stored.get_tensor(name), dtype).to(device, copy=True) for name in stored.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise ValueError(f"{file}: there is no such file") from error
    except (OSError, SafetensorError) as error:
        size = file.stat().st_size if file.is_file() else 0
        raise ValueError(f"{file}: damaged or cut short at {size} bytes ({_reason(error)}); copy it again") from error


def unfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What keeps `state` from being loaded where `wanted` are the names and shapes: one line, empty where it fits."""
    shared = [name for name in wanted if name in state]
    shapes = [
        f"{name} is {list(state[name].shape)} instead of {list(wanted[name].shape)}"
        for name in shared
        if state[name].shape != wanted[name].shape
    ]
    kinds = [
        f"{name} is {str(state[name].dtype).removeprefix('torch.')}"
        for name in shared
        if wanted[name].is_floating_point() and state[name].dtype not in FLOATING
    ]
    faults = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": [name for name in state if name not in wanted],
        "of another shape": shapes,
        "of numbers that no model computes with": kinds,
        "not finite": [name for name in shared if not _finite(state[name])],
    }
    return "; ".join(f"{fault}: {_some(names)}" for fault, names in faults.items() if names)


def _finite(tensor: Tensor) -> bool:
    if tensor.dtype not in FLOATING or not tensor.numel():
        return True
    return bool(torch.isfinite(torch.stack(tensor.aminmax())).all())  # ten times faster than asking each number


def _some(names: list[str], most: int = 8) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """In `dtype` (None: as it is), if it is floating; a scalar, such as a temperature, always in float32."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.float() if tensor.dim() == 0 else tensor.to(dtype)


def check_tokenizer(config: ModelConfig, tokenizer: Tokenizer, whose: str) -> None:
    """ValueError, beginning with `whose`, where the tokenizer has more tokens than the model."""
    text = getattr(config, "text", None)
    if isinstance(text, TextConfig) and tokenizer.vocab_size > text.vocab_size:
        raise ValueError(f"{whose} has {tokenizer.vocab_size} tokens, but the model has {text.vocab_size}: not its own")


def _existing(path: Path) -> Path:
    """The folder, or what a save that was killed between its two renames had moved aside. ValueError if it is none."""
    before = path.with_name(f".old-{path.name}") if path.name else path
    if not path.exists() and before.is_dir():
        path = before
    if not path.is_dir():
        what = "is a file, no folder" if path.exists() else "there is no such folder"
        raise ValueError(f"{path}: {what}; give the path of a model folder, such as runs/demo/model")
    missing = sorted(name for name in (WEIGHTS, CONFIG) if not (path / name).is_file())
    if missing:
        hint = f"; its model is in {path / 'model'}" if (path / "model" / WEIGHTS).is_file() else ""
        raise ValueError(f"{path}: not a model folder: it has no {' and no '.join(missing)}{hint}")
    return path


def _refuse_others(path: Path) -> None:
    """ValueError where replacing `path` would cost what is no model folder's."""
    if path.is_dir():
        others = sorted(entry.name for entry in path.iterdir() if entry.name not in FILES)
        if others:
            raise ValueError(f"{path}: holds more than a model ({_some(others, 3)}); choose a new folder for the model")
    elif path.exists():
        raise ValueError(f"{path}: is a file; choose a folder for the model")


def _swap(aside: Path, path: Path) -> None:
    """`aside`, once on the disk, takes the place of `path`; between the two renames `load_folder` finds the old one."""
    for place in (*sorted(aside.iterdir()), aside):
        _sync(place)
    before = path.with_name(f".old-{path.name}")
    if path.exists():
        shutil.rmtree(before, ignore_errors=True)
        path.rename(before)
    try:
        aside.rename(path)
    except BaseException:
        if before.exists():
            before.rename(path)
        raise
    _sync(path.parent)
    shutil.rmtree(before, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
