"""Regions of many pictures with a teacher's vector for each, on disk: float16 arrays mapped into memory, so that a run
reads what it draws and no more.

A folder of `store.json`, which says who wrote what, and four arrays. An example is there when its count is; `flush`
writes that last, so a store whose writing was interrupted is gone on with.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from pictura.data.source import existing
from pictura.output.files import write_text

ABOUT = "store.json"
MISSING = -1  # the count of an example that nobody has written yet


class Regions(NamedTuple):
    """Of one picture: boxes [m 4] float32, x0 y0 x1 y1 in its pixels; vectors [m e] float16."""

    boxes: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float16]


class RegionStore:
    """`store[index]` -> `Regions`. `RegionStore.create` makes one, or opens what it has made."""

    def __init__(self, folder: Path | str, *, writable: bool = False) -> None:
        folder = existing(folder, "folder")
        self.folder, self.writable, self.about = folder, writable, _read(folder / ABOUT)
        self.unflushed = dict[int, int]()  # counts of what `write` has written since the last `flush`
        n, most, e = (self.about[key] for key in ("examples", "regions", "width"))
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            "boxes": (np.float32, (n, most, 4)), "vectors": (np.float16, (n, most, e)),
            "counts": (np.int32, (n,)), "keys": (np.uint32, (n,)),
        }  # fmt: skip
        self.arrays = {}
        for name, (dtype, shape) in shapes.items():
            path, bytes_ = folder / f"{name}.bin", int(np.prod(shape)) * np.dtype(dtype).itemsize
            if not path.is_file() or path.stat().st_size != bytes_:
                raise ValueError(f"{path}: is missing or not of {bytes_:,} bytes; delete {folder} and teach again")
            self.arrays[name] = np.memmap(path, dtype, "r+" if writable else "r", shape=shape)

    @classmethod
    def create(
        cls, folder: Path, about: Mapping[str, Any], *, examples: int, regions: int, width: int
    ) -> "RegionStore":
        """A store of so many examples, of at most `regions` each, their vectors of `width` numbers. One that is there
        is opened, if `about`, what the vectors depend on, is the same. ValueError where it is not."""
        wanted = {**about, "examples": examples, "regions": regions, "width": width}
        if (folder / ABOUT).exists():
            found = _read(folder / ABOUT)
            if found != wanted:
                key = next(key for key in (*wanted, *found) if wanted.get(key) != found.get(key))
                raise ValueError(
                    f"{folder}: was written with another {key} ({found.get(key)}, not {wanted.get(key)}); "
                    "give it another folder, or delete it"
                )
            return cls(folder, writable=True)
        folder.mkdir(parents=True, exist_ok=True)
        sizes = {"boxes": 16 * regions, "vectors": 2 * width * regions, "keys": 4}
        for name, bytes_ in sizes.items():
            with open(folder / f"{name}.bin", "wb") as file:
                file.truncate(bytes_ * examples)  # takes no disk before it is written
        np.full(examples, MISSING, np.int32).tofile(folder / "counts.bin")
        write_text(folder / ABOUT, json.dumps(wanted, indent=1))  # last: without it there is no store
        return cls(folder, writable=True)

    def __getstate__(self) -> dict[str, Any]:
        """Not the arrays: a memmap pickles what it holds, and a worker would be sent all of it."""
        return {"folder": self.folder, "writable": self.writable}

    def __setstate__(self, state: dict[str, Any]) -> None:
        RegionStore.__init__(self, **state)

    def __len__(self) -> int:
        return len(self.arrays["counts"])

    @property
    def missing(self) -> npt.NDArray[np.int64]:
        """The examples that nobody has written yet."""
        gone = self.arrays["counts"] == MISSING
        gone[list(self.unflushed)] = False
        return np.flatnonzero(gone)

    def write(self, index: int, key: str, boxes: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """The regions of example `index`, whose key is kept as a number, so that other data is noticed."""
        boxes, vectors = np.asarray(boxes), np.asarray(vectors)
        count, index = len(boxes), range(len(self))[index]
        assert count == len(vectors) <= self.about["regions"]
        self.arrays["boxes"][index, :count], self.arrays["vectors"][index, :count] = boxes, vectors
        self.arrays["keys"][index] = _number(key)
        self.unflushed[index] = count

    def flush(self) -> None:
        """To the disk, the counts last: the system may write down what is assigned at any time."""
        for name in ("boxes", "vectors", "keys"):
            self.arrays[name].flush()
        for index, count in self.unflushed.items():
            self.arrays["counts"][index] = count
        self.arrays["counts"].flush()
        self.unflushed.clear()

    def __getitem__(self, index: int) -> Regions:
        index = range(len(self))[index]
        count = self.unflushed.get(index, int(self.arrays["counts"][index]))
        if count == MISSING:
            raise ValueError(f"{self.folder}: nobody has written the regions of example {index}; teach it to its end")
        return Regions(np.array(self.arrays["boxes"][index, :count]), np.array(self.arrays["vectors"][index, :count]))

    def check(self, index: int, key: str) -> None:
        """ValueError where example `index` was another one when its regions were written."""
        if int(self.arrays["keys"][index]) != _number(key):
            raise ValueError(f"{self.folder}: its example {index} is not {key}; it was written for other data")


def _number(key: str) -> int:
    """Of the last two parts of a path alone: data may be moved."""
    return crc32("/".join(key.split("/")[-2:]).encode("utf-8", "surrogatepass"))


def _read(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        sound = all(isinstance(about[key], int) and about[key] > 0 for key in ("examples", "regions", "width"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is no store of regions: {error}; `pictura teach` writes one") from error
    if not sound:
        raise ValueError(f"{path}: its numbers of examples, regions or width are no numbers above zero")
    return dict(about)
