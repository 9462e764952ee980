"""Tensors that a file describes, before they are read from it: what they claim is compared with what is there."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Storage:
    """Numbers in a file, under `key`."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class Stored:
    """A tensor that was not read yet: a part of `storage`, in elements of `dtype`."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class Records(Protocol):
    """Where storages lie: `size(key)` in bytes, -1 where there is none, and `read(key)`.

    swapped: whether a machine of the other byte order has written them.
    """

    @property
    def swapped(self) -> bool: ...

    def size(self, key: str) -> int: ...

    def read(self, key: str) -> bytearray: ...


def read_stored(tensors: Mapping[str, Stored], records: Records) -> dict[str, Tensor]:
    """The tensors themselves; those of one storage share it. ValueError, before any is read, for one that claims more
    than is there."""
    for name, tensor in tensors.items():
        _check(name, tensor, records.size(tensor.storage.key))
    out: dict[str, Tensor] = {}
    whole: dict[tuple[str, torch.dtype], Tensor] = {}
    for name, tensor in tensors.items():
        key = (tensor.storage.key, tensor.dtype)
        if key not in whole:
            whole[key] = _numbers(records.read(tensor.storage.key), tensor.dtype, records.swapped)
        out[name] = torch.as_strided(whole[key], tensor.size, tensor.stride, tensor.offset)
    return out


def _check(name: str, tensor: Stored, there: int) -> None:
    claimed, room = tensor.storage.numel * tensor.storage.dtype.itemsize, there // tensor.dtype.itemsize
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    elements = prod(tensor.size)
    if there < 0:
        raise ValueError(f"is damaged: {name} is not in it")
    if claimed > there or elements > room or (elements and last >= room):
        shape = " x ".join(map(str, tensor.size)) or "one number"
        raise ValueError(f"claims that {name} is {shape}, more than the {there:,} bytes that are there for it")


def _numbers(data: bytearray, dtype: torch.dtype, swapped: bool) -> Tensor:
    if swapped:
        width = dtype.itemsize // (2 if dtype.is_complex else 1)
        data = bytearray(torch.frombuffer(data, dtype=torch.uint8).view(-1, width).flip(1).numpy().tobytes())
    count = len(data) // dtype.itemsize
    return torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
