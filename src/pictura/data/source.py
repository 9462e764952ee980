"""What a data set is: examples that can be asked for by number, and the ones that cannot be used, by name and reason.

A `SourceConfig` (chosen by `kind:`) says where the data lies; `build()` looks once (listing files, reading a table,
indexing tars), answers a user's mistake with `ValueError`, and gives a `Source`. From then on one unusable example is
a `BadSample`, never a crash.
"""

import difflib
import json
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Required, TypedDict, overload

import numpy as np
import numpy.typing as npt

from pictura.config import Config
from pictura.config.text import parse

MAX_BYTES = 256 * 2**20  # of one encoded picture; a larger file is somebody's mistake or an attack
PICTURE_SUFFIXES = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "avif"}
)


class Example(TypedDict, total=False):
    """One example. A source gives the keys that it `provides`, and may add keys of its own."""

    key: Required[str]  # names the example to a person: a path, or shard.tar/member
    image: bytes | npt.NDArray[np.uint8]  # an encoded file, or pixels uint8 RGB [y x c]
    captions: list[str]  # at least one, none of them empty
    label: int  # position in the source's `class_names`
    boxes: npt.NDArray[np.float32]  # [k 4] x0 y0 x1 y1 in pixels of the upright picture, inside it; k may be 0
    labels: npt.NDArray[np.int64]  # [k] what is in each box, position in `class_names`
    crowd: npt.NDArray[np.bool_]  # [k] regions that are neither to be found nor wrong to find
    masks: npt.NDArray[np.bool_]  # [k y x] the pixels of what is in each box


class BadSample(Exception):
    """One example that cannot be used, and why. A user's mistake in the configuration is a `ValueError` instead."""

    def __init__(self, key: str, reason: str) -> None:
        key, reason = shown(key), shown(reason)[:300]
        super().__init__(key, reason)  # both in args, so that it crosses process borders
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"


class Source(ABC):
    """Examples by number, 0 to len - 1. Cheap to copy into worker processes; reading one leaves nothing open.

    `source[i]` raises `BadSample` for an example that cannot be used. `bad` holds those already found while indexing,
    which are not among the len(source) examples. `class_names[label]` is the word for a label; empty where labels are
    bare numbers, of which `least_classes` is more than the largest, where they are all known.
    """

    provides: frozenset[str] = frozenset()
    class_names: tuple[str, ...] = ()
    least_classes: int = 0
    bad: Sequence[BadSample] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Example: ...

    def captions(self, index: int) -> list[str]:
        """The captions of one example; sources override this where the picture need not be read for it."""
        return self[index].get("captions", [])

    def answers(self, least: int) -> tuple[str, ...]:
        """The most common answers of at least `least` of its questions each, the most frequent first; nothing where it
        has no questions."""
        return ()

    def all_captions(self) -> Iterator[str]:
        """Every caption in order, for training a tokenizer. Bad examples are passed over; drawing them counts them."""
        for index in range(len(self)):
            try:
                yield from self.captions(index)
            except BadSample:
                continue


@dataclass(frozen=True, kw_only=True)
class SourceConfig(Config, ABC):
    """Where the data lies. A choice: each file in `data/` that defines a source has its own `kind`."""

    @abstractmethod
    def build(self) -> Source:
        """Look at the data once. Raises `ValueError` for what the user can mend: no such file, no such column,
        nothing in it."""


class Strings(Sequence[str]):
    """Many strings in one buffer. A list of a million Python strings would be copied, page by page, into every worker
    process as reference counts change; a buffer is shared."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]  # odd file names survive
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._bytes = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Classes:
    """What the values in a label column mean. `names` are for people; `index` finds the label of a value that is not
    a number."""

    names: tuple[str, ...]
    index: dict[str, int]

    @classmethod
    def of(cls, given: Sequence[str] | Path | None, values: Iterable[Any] = ()) -> "Classes":
        """`given` by the user: names in order, or a file: text of one name a line, a JSON or YAML list, or value: name.
        Else found among the `values`: sorted words; values that are all numbers are the labels themselves."""
        values = {value for value in values if not is_empty(value)}
        if given is None:
            words = {str(value) for value in values}
            names = () if all(_number(value) is not None for value in values) else tuple(sorted(words))
            return cls(names, {name: label for label, name in enumerate(names)})
        keys, names = _read_names(Path(given)) if isinstance(given, str | Path) else (tuple(given), tuple(given))
        classes = cls(names, {key: label for label, key in reversed(list(enumerate(keys)))})
        if values and not any(classes.find(value) is not None for value in values):
            strange = min(map(str, values))
            raise ValueError(f"class_names: none of the labels in the data is among the {len(keys)} given names; "
                             f"the data has {strange!r}{did_you_mean(strange, keys)}")  # fmt: skip
        return classes

    def label(self, value: Any, key: str) -> int:
        """The label of one value; `BadSample` names the example `key` when there is none."""
        label = self.find(value)
        if label is None:
            known = (
                f"among the {len(self.names)} class names" if self.names else "a number, and there are no class_names"
            )
            unknown = f"label {str(value)[:80]!r} is not {known}"
            raise BadSample(key, "no label" if is_empty(value) else unknown)
        return label

    def find(self, value: Any) -> int | None:
        """The label of one value, None when there is none."""
        label = self.index.get(str(value))
        if label is not None:
            return label
        label = _number(value)
        return label if label is not None and (not self.names or label < len(self.names)) else None


def is_empty(value: Any) -> bool:
    """Nothing, as CSV ("") or Parquet (None, NaN) spells it."""
    return value is None or value == "" or value != value


def _number(value: Any) -> int | None:
    """A label that is a number: 7, "7" or 7.0, not below zero."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None
    whole = isinstance(value, int | np.integer) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole and 0 <= value < 2**63 else None


def _read_names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`path` -> what the labels are called in the data, and the names for people."""
    text, kind = existing(path, "file").read_text(encoding="utf-8-sig", errors="replace"), path.suffix.lower()
    if kind not in (".json", ".yaml", ".yml"):
        lines = tuple(line.strip() for line in text.splitlines() if line.strip())
        return lines, lines
    what = "JSON" if kind == ".json" else "YAML"
    try:
        given = json.loads(text) if kind == ".json" else parse(text)
        if isinstance(given, dict):
            firsts = (name[0] if isinstance(name, list) else name for name in given.values())
            return tuple(map(_word, given)), tuple(map(_word, firsts))
        if isinstance(given, list):
            return tuple(map(_word, given)), tuple(map(_word, given))
    except (ValueError, IndexError, RecursionError) as error:
        raise ValueError(f"class_names: {path} cannot be read as {what} names: {error}") from error
    raise ValueError(f"class_names: {path} should hold a {what} list of names, or an object of label: name")


def _word(value: Any) -> str:
    """A name in JSON or YAML. ValueError for nothing, true and false, and lists, which are names to nobody."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{str(value)[:80]} is not a name; if it is meant, put it in quotes")
    return str(value)


def shown(text: str) -> str:
    """`text` without what would upset a log or a terminal: control characters, broken encodings in file names."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of an error message: the nearest of `names`, or nothing."""
    close = difflib.get_close_matches(name, list(names)[:10_000], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def existing(path: Path | str, what: str) -> Path:
    """The user's `path`, with ~ expanded, checked to be a "file" or a "folder"."""
    path = Path(path).expanduser()
    if not path.exists():
        try:
            beside = os.listdir(path.parent)
        except OSError:
            beside = []
        raise ValueError(f"{path}: no such {what}{did_you_mean(path.name, beside)}")
    if path.is_dir() != (what == "folder"):
        raise ValueError(f"{path}: a {what} is needed here, and this is not one")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path}: you have no permission to read it")
    return path


def under(root: str, name: str) -> str:
    """The file that a table or a listing calls `name`. A relative name, links followed, must stay under `root` (a
    real path): a stranger's data set must not read the rest of the disk. An absolute name is the user's own choice,
    and is left alone."""
    if "://" in name[:16]:
        raise BadSample(name, "a web address, not a file; download the pictures first")
    if os.path.isabs(name):
        return name
    try:
        path = os.path.realpath(os.path.join(root, name))
    except (OSError, ValueError) as error:  # a NUL in the name
        raise BadSample(name, f"not a file name ({error})") from None
    if path != root and not path.startswith(root.rstrip(os.sep) + os.sep):
        raise BadSample(name, f"leads outside {root}")
    return path


def read_file(path: str, key: str, limit: int = MAX_BYTES) -> bytes:
    """A whole file of at most `limit` bytes, else `BadSample`. A named pipe is refused, so nothing hangs."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadSample(key, "not a regular file")
            if status.st_size > limit:
                raise BadSample(key, f"{status.st_size:,} bytes, above the limit of {limit:,}")
            content = os.read(descriptor, status.st_size)
            while len(content) < status.st_size and (more := os.read(descriptor, status.st_size - len(content))):
                content += more
            return content
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise BadSample(key, "no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadSample(key, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
