"""Files of tensors, by what they are and not by what they are called: safetensors, PyTorch's, NumPy's.

Nothing of a file is executed, nothing is believed before it is checked, and a file is read whole or not at all.
"""

import os
import pickle
import struct
import sys
import tokenize
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from pictura.weights.archives import Archive
from pictura.weights.folder import read_safetensors
from pictura.weights.pickles import BYTES, read_pickle
from pictura.weights.stored import Storage, Stored, read_stored
from pictura.weights.torchscript import read_modules

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)[2:]  # with which PyTorch's files before version 1.6 begin
STATE_DICTS = ("state_dict", "model", "model_state_dict", "model_state", "module", "net", "params", "teacher")
OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, {size:,} bytes, not the weights: run git lfs pull",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"GIF8": "a GIF picture",
    b"RIFF": "a WebP picture or a sound",
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file, as Keras writes them; convert it to safetensors with the library that wrote it",
    b"GGUF": "a GGUF file; only its safetensors original can be read",
    b"\x1f\x8b": "packed with gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it first",
    b"\x93NUMPY": "one NumPy array without a name; numpy.savez keeps the names",
    b"<": "a web page, saved instead of the file that it offers; download the file itself",
    b"{": "a text of JSON",
}


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file, by name, in their own dtype: .safetensors, what torch.save or torch.jit.save have written
    (.pt, .pth, .bin, .ckpt), or .npz.

    Of a training checkpoint, the model's state dict. ValueError, with the file, for one that is damaged, holds code or
    claims more than it has, and for what is no checkpoint, saying what it is instead.
    """
    try:
        with file.open("rb") as opened:
            start, size = opened.read(64), file.stat().st_size
    except OSError as error:
        what = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ValueError(f"{file}: {what}") from error
    if start.startswith(b"PK\x03\x04"):
        return _zipped(file)
    if start[0:1] == b"\x80" and MAGIC in start[:32]:
        return _legacy(file)
    if start[8:9] == b"{":
        return read_safetensors(file)
    raise ValueError(f"{file}: {_what(start, size)}")


def _what(start: bytes, size: int) -> str:
    if not size:
        return "is empty"
    for magic, what in OTHERS.items():
        if start.lstrip().startswith(magic):
            return f"is {what.format(size=size)}"
    if start[0] == 0x80:
        return "is a pickle, but not one of PyTorch's; only torch.save's can be read"
    return f"damaged, or no file of tensors: its {size:,} bytes begin with {start[:8]!r}"


def _zipped(file: Path) -> dict[str, Tensor]:
    with Archive(file) as archive:
        names = archive.names
        pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) == 1:
            return _archived(file, archive, pickles[0].removesuffix("/data.pkl"))
        if names and all(name.endswith(".npy") for name in names):
            return {name.removesuffix(".npy"): _array(file, archive, name) for name in names}
    listed = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    raise ValueError(f"{file}: is a zip archive of {listed or 'nothing'}, not a checkpoint")


@dataclass(frozen=True)
class _Zip:
    """The storages of an archive, as `Records`."""

    archive: Archive
    folder: str

    @property
    def swapped(self) -> bool:
        order = f"{self.folder}/byteorder"
        return self.archive.size(order) >= 0 and self.archive.read(order, 16) != sys.byteorder.encode()

    def size(self, key: str) -> int:
        return self.archive.size(f"{self.folder}/data/{key}")

    def read(self, key: str) -> bytearray:
        return self.archive.read(f"{self.folder}/data/{key}")


def _archived(file: Path, archive: Archive, folder: str) -> dict[str, Tensor]:
    """What torch.save or torch.jit.save has written."""
    data = archive.read(f"{folder}/data.pkl", BYTES)
    try:
        root, _ = read_pickle(BytesIO(data))
        script = any(name.startswith((f"{folder}/constants.pkl", f"{folder}/code/")) for name in archive.names)
        stored = read_modules(root, archive, folder) if script else _state_dict(root)
        return read_stored(stored, _Zip(archive, folder))
    except ValueError as error:
        raise _named(file, error) from error


@dataclass(frozen=True)
class _Legacy:
    """The storages of a file of PyTorch's before version 1.6, as `Records`."""

    opened: BinaryIO
    places: Mapping[str, tuple[int, int]]  # key -> where it begins, bytes
    swapped: bool

    def size(self, key: str) -> int:
        return self.places.get(key, (0, -1))[1]

    def read(self, key: str) -> bytearray:
        start, size = self.places[key]
        self.opened.seek(start)
        return bytearray(self.opened.read(size))


def _legacy(file: Path) -> dict[str, Tensor]:
    """Five pickles (a number, a version, the machine, the object, the keys of its storages), then the storages."""
    with file.open("rb") as opened:
        try:
            head = BytesIO(opened.read(BYTES))
            _, _, (machine, _), (root, storages), (keys, _) = (read_pickle(head) for _ in range(5))
            opened.seek(head.tell())
            stored = _state_dict(root)
            swapped = isinstance(machine, dict) and machine.get("little_endian", True) != (sys.byteorder == "little")
            places = _places(opened, keys, storages, swapped)
            return read_stored(stored, _Legacy(opened, places, swapped))
        except ValueError as error:
            raise _named(file, error) from error


def _places(opened: BinaryIO, keys: Any, storages: Mapping[str, Storage], swapped: bool) -> dict[str, tuple[int, int]]:
    """Storages follow each other, each behind the number of its elements."""
    order = ">" if swapped == (sys.byteorder == "little") else "<"
    size, end = os.fstat(opened.fileno()).st_size, opened.tell()
    places: dict[str, tuple[int, int]] = {}
    for key in keys if isinstance(keys, list) else ():
        opened.seek(end)
        counted = opened.read(8)
        if key not in storages or len(counted) < 8:
            raise ValueError("is damaged or cut short")
        bytes_ = struct.unpack(f"{order}q", counted)[0] * storages[key].dtype.itemsize
        if not 0 <= bytes_ <= size - end - 8:
            raise ValueError(f"is damaged or cut short at {size:,} bytes: a storage claims {bytes_:,}")
        places[key] = (end + 8, bytes_)
        end += 8 + bytes_
    return places


def _state_dict(root: Any) -> dict[str, Stored]:
    """The model's own, out of all that a training run has kept."""
    found = _found(root, 0)
    if found is None:
        holds = ", ".join(str(key)[:40] for key in list(root)[:8]) if isinstance(root, dict) else type(root).__name__
        raise ValueError(f"holds no state dict, a tensor under each name, but {holds or 'nothing'}")
    return found


def _found(root: Any, depth: int) -> dict[str, Stored] | None:
    if not isinstance(root, dict) or depth > 3:
        return None
    if root and all(isinstance(name, str) and isinstance(value, Stored) for name, value in root.items()):
        return root
    return next((found for key in STATE_DICTS if (found := _found(root.get(key), depth + 1))), None)


def _array(file: Path, archive: Archive, name: str) -> Tensor:
    """One array of an .npz. bfloat16, which NumPy does not know, comes as two bytes without a type, `V2`."""
    data = archive.read(name)
    try:
        shape, fortran, dtype, start = _header(data)
        kind = np.dtype("<i2") if dtype.str[1:] == "V2" else dtype
        if kind.hasobject or kind.kind not in "biufc":
            raise ValueError(f"it is of {dtype}, not of numbers")
        if prod(shape) * kind.itemsize != len(data) - start:
            claims = " x ".join(map(str, shape)) or "one number"
            raise ValueError(f"it claims {claims}, but has {len(data) - start:,} bytes")
        array = np.frombuffer(data, kind, offset=start).astype(kind.newbyteorder("="), copy=False)
        array = array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError) as error:
        raise ValueError(f"{file}: {name} cannot be read: {error}") from error
    return tensor.view(torch.bfloat16) if dtype.str[1:] == "V2" else tensor


def _header(data: bytearray) -> tuple[tuple[int, ...], bool, "np.dtype[Any]", int]:
    stream = BytesIO(data[: 1 << 16])
    major, _ = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python 2, whose headers are read another way
        shape, fortran, dtype = read(stream)
    return shape, fortran, dtype, stream.tell()


def _named(file: Path, error: ValueError) -> ValueError:
    reason = " ".join(str(error).split())[:300]
    return ValueError(f"{file}: not read, because it {reason}")
