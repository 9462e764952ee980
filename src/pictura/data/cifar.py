"""`cifar`: CIFAR-10 and CIFAR-100 in their binary version. Krizhevsky 2009, Learning Multiple Layers of Features from
Tiny Images; www.cs.toronto.edu/~kriz/cifar.html says what the files hold."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from pictura.data.source import BadSample, Example, Source, SourceConfig, existing, shown

SIDE = 32
PIXELS = 3 * SIDE * SIDE  # of one picture, red then green then blue, each row after row


class _Version(NamedTuple):
    """What one of the two sets calls its files; `labels` bytes stand before each picture's pixels."""

    title: str
    inside: str  # the archive's folder
    pickled: tuple[str, ...]  # what is in the Python version, and its folder
    parts: dict[str, tuple[str, ...]]
    labels: int
    names: tuple[str, ...]  # the files of class names, one for each byte
    counts: tuple[int, ...]


CIFAR10 = _Version(
    "cifar-10",
    "cifar-10-batches-bin",
    ("batches.meta", "cifar-10-batches-py"),
    {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
    1,
    ("batches.meta.txt",),
    (10,),
)
CIFAR100 = _Version(
    "cifar-100",
    "cifar-100-binary",
    ("meta", "cifar-100-python"),
    {"train": ("train.bin",), "test": ("test.bin",)},
    2,
    ("coarse_label_names.txt", "fine_label_names.txt"),
    (20, 100),
)


@dataclass(frozen=True, kw_only=True)
class CifarConfig(SourceConfig):
    """`path`: the unpacked folder of cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, or the one that holds it.

    part: train or test. coarse: of CIFAR-100, the twenty classes of classes rather than the hundred.
    """

    kind: ClassVar[str] = "cifar"
    path: Path
    part: Literal["train", "test"] = "test"
    coarse: bool = False

    def build(self) -> "Cifar":
        return Cifar(self)


class Cifar(Source):
    """Pictures of 32 by 32 pixels with their labels, in the order of the files. `class_names` as in the file that comes
    with them, with spaces for underscores."""

    provides = frozenset({"image", "label"})

    def __init__(self, config: CifarConfig) -> None:
        folder, version = _found(config.path)
        if config.coarse and version.labels == 1:
            raise ValueError(f"coarse: {folder} is CIFAR-10, whose ten classes are in no larger ones; leave it out")
        column = version.labels - 1 - config.coarse
        text = existing(folder / version.names[column], "file").read_text(encoding="utf-8", errors="replace")
        self.class_names = tuple(line.strip().replace("_", " ") for line in text.splitlines() if line.strip())
        count = version.counts[column]
        if len(self.class_names) != count:
            has = f"has {len(self.class_names)} class names, and {count} are wanted"
            raise ValueError(f"{folder / version.names[column]}: {has}; unpack the archive again")
        self._skip, self._size = version.labels, version.labels + PIXELS
        self._paths = [str(existing(folder / name, "file")) for name in version.parts[config.part]]
        labels = [_labels(path, self._size, column, count) for path in self._paths]
        self._ends = np.cumsum([len(some) for some in labels])
        self._labels = np.concatenate(labels)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        file = int(np.searchsorted(self._ends, index, side="right"))
        row = index - (int(self._ends[file - 1]) if file else 0)
        key = f"{shown(self._paths[file])}/{row}"
        pixels = np.frombuffer(self._record(self._paths[file], row, key), np.uint8, offset=self._skip)
        image = np.ascontiguousarray(pixels.reshape(3, SIDE, SIDE).transpose(1, 2, 0))
        return {"key": key, "image": image, "label": int(self._labels[index])}

    def _record(self, path: str, row: int, key: str) -> bytes:
        """Read, not mapped: a mapped file that has shrunk kills the process, and a mapping is sent whole to workers."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                record = os.pread(descriptor, self._size, row * self._size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise BadSample(key, f"cannot be read: {error.strerror}") from None
        if len(record) < self._size:
            raise BadSample(key, "the file is shorter than it was")
        return record


def _found(path: Path) -> tuple[Path, _Version]:
    """The folder of the binary files, and which set it is. ValueError says what to get instead of something else."""
    path = path.expanduser()
    if path.is_file():
        raise ValueError(f"{path}: the folder of the unpacked archive is needed; try `tar xzf {path.name}`")
    path = existing(path, "folder")
    found = [
        (folder, version)
        for version in (CIFAR10, CIFAR100)
        for folder in (path, path / version.inside)
        if any((folder / name).exists() for part in version.parts.values() for name in part)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{path}: holds both sets; try path: {found[0][0]}")
    for version in (CIFAR10, CIFAR100):
        if any((path / name).exists() for name in version.pickled):
            get = f"get {version.title}-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html"
            raise ValueError(f"{path}: the Python version is pickles, which may run code when they are read; {get}")
    raise ValueError(f"{path}: neither data_batch_1.bin … test_batch.bin of CIFAR-10 nor train.bin, test.bin of "
                     "CIFAR-100 is in it; unpack cifar-10-binary.tar.gz or cifar-100-binary.tar.gz")  # fmt: skip


def _labels(path: str, size: int, column: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The labels in a file of records of `size` bytes, [n], each below `count`."""
    length = os.path.getsize(path)
    if not length or length % size:
        published = "; as published, it has 10,000 a batch" if size == 1 + PIXELS else ""
        raise ValueError(f"{path}: {length:,} bytes are no whole number of pictures of {size:,} bytes{published}; "
                         "unpack the archive again")  # fmt: skip
    labels = np.memmap(path, np.uint8, "r", shape=(length // size, size))[:, column].astype(np.int64)
    if labels.max() >= count:
        row = int((labels >= count).argmax())
        raise ValueError(f"{path}: picture {row} has label {labels[row]}, and there are {count} classes; is it CIFAR?")
    return labels
