"""Weights in several safetensors files, under the index that Hugging Face's libraries write beside them.

The index, `model.safetensors.index.json`, is {"weight_map": {name of a tensor: name of a file, …}, "metadata": …}.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from pictura.weights.folder import read_safetensors


def read_sharded(
    index: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """All tensors that `index` names, from the files beside it; floating ones in `dtype` (None: as stored).

    Raises ValueError for an index that is none or leads out of its folder, and for files or tensors that are missing.
    """
    weight_map, folder = _weight_map(index), index.parent
    shards = sorted(set(weight_map.values()))
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise ValueError(f"{index}: names {_some(missing)}, not there beside it; all {len(shards)} files are needed")
    state: dict[str, Tensor] = {}
    for shard in shards:
        stored = read_safetensors(folder / shard, device, dtype)
        names = [name for name, place in weight_map.items() if place == shard]
        if absent := [name for name in names if name not in stored]:
            raise ValueError(f"{folder / shard}: lacks {_some(absent)}, which {index.name} says it has")
        state |= {name: stored[name] for name in names}
    return state


def shard_names(index: Path) -> list[str]:
    """The files that an index names, sorted. ValueError unless each is a plain .safetensors file of its own folder."""
    return sorted(set(_weight_map(index).values()))


def _weight_map(index: Path) -> dict[str, str]:
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{index}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{index}: no JSON that can be read ({error})") from error
    weight_map = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: has no weight_map, which says which tensor is in which file")
    for name in weight_map.values():
        plain = isinstance(name, str) and name.isprintable() and not set(name) & set("/\\:")
        if not plain or not name.endswith(".safetensors"):
            raise ValueError(f"{index}: {name!r} is not the name of a .safetensors file beside it")
    return weight_map


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
