"""The state of a run as a checkpoint holds it: tensors and plain values, named `optimizer/state/0/exp_avg`."""

import math
from collections.abc import Iterator, MutableMapping
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

State = MutableMapping[str, Any]
Leaves = dict[str, tuple[Any, Any]]  # name -> container and key, so that a leaf can be read and replaced


def split(state: State) -> tuple[Leaves, Leaves]:
    """Leaves that are tensors, and leaves that are plain values, by their path: `optimizer/state/0/exp_avg`."""
    found = list(_leaves(state, ""))
    leaves = dict(found)
    assert len(leaves) == len(found), "two leaves have one name: a key holds a slash"
    tensors = {name: (box, key) for name, (box, key) in leaves.items() if isinstance(box[key], Tensor)}
    return tensors, {name: leaf for name, leaf in leaves.items() if name not in tensors}


def _leaves(box: Any, prefix: str) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for key, value in list(box.items() if isinstance(box, MutableMapping) else enumerate(box)):
        if isinstance(value, MutableMapping) or (isinstance(value, list) and _holds_more(value)):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", (box, key)


def _holds_more(values: list[Any]) -> bool:
    return any(isinstance(v, Tensor | MutableMapping) or (isinstance(v, list) and _holds_more(v)) for v in values)


def encode(value: Any, name: str) -> Any:
    """Plain value -> JSON that reads back as the same value: tuples and non-finite floats are marked."""
    if isinstance(value, tuple):
        return {"tuple": [encode(v, name) for v in value]}
    if isinstance(value, list):
        return [encode(v, name) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = type(value).__name__
    raise TypeError(f"{name}: a {kind} here cannot be checkpointed; numbers, strings, None and tensors in no tuple can")


def decode(value: Any) -> Any:
    if isinstance(value, dict):
        return float(value["float"]) if "float" in value else tuple(decode(v) for v in value["tuple"])
    return [decode(v) for v in value] if isinstance(value, list) else value


def storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What safetensors takes: contiguous, and no two names on one memory (tied weights are written twice)."""
    stored: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach() if isinstance(tensor, DTensor) else tensor.detach().contiguous()
        place = (tensor.to_local() if isinstance(tensor, DTensor) else tensor).data_ptr()
        stored[name] = tensor.clone() if place in seen else tensor
        seen |= {place} - {0}  # 0: empty
    return stored
