"""The WebDataset layout: a tar whose members `000001.jpg`, `000001.txt`, `000001.json` … are the parts of one example.

The walk over headers is our own because Python's `tarfile` takes a damaged header in the middle for the end of the
file, without a word, and is 10 times slower. Formats: ustar, GNU and PAX, as `tar` and every data set tool write
them. Nothing is ever unpacked.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pictura.data.decode import caption_lines, clean_captions
from pictura.data.source import BadSample, Classes, Example

IMAGE_PARTS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "avif", "image")
CAPTION_PARTS = ("txt", "json.caption", "json.captions", "json.text")
_BLOCK = 512
_MAX_LONG_NAME = 2**20


class Member(NamedTuple):
    name: str
    offset: int  # of the content, in bytes from the beginning of the tar
    size: int


class Damaged(Exception):
    """A tar that cannot be followed beyond `offset`; `name` is the member that the damage is in, where that is
    known."""

    def __init__(self, offset: int, reason: str, name: str = "") -> None:
        super().__init__(f"{reason} (at byte {offset:,})")
        self.name = name


class Reader(Protocol):
    """What a tar is read from, front to back."""

    position: int

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer only where the file ends."""

    def has(self, end: int) -> bool:
        """False if the file is known to end before byte `end`."""

    def skip_to(self, position: int) -> None: ...


def members(file: Reader) -> Iterator[Member]:
    """The regular files of a tar, in order. The caller may read the content of each when it is yielded, or leave it."""
    long: dict[str, str] = {}  # what an extra header says about the member after it
    while True:
        start = file.position
        header = file.read(_BLOCK)
        if len(header) < _BLOCK:
            raise Damaged(
                start, "the tar is cut short: it ends without an end mark" if not header else "the tar is cut short"
            )
        if not header.strip(b"\0"):
            return
        kind, size = header[156:157], _size(header, start)
        body = file.position
        if kind in b"LKxg":
            if size > _MAX_LONG_NAME:
                raise Damaged(start, "not a tar header: a name of more than 1 MiB")
            content = file.read(size)
            if len(content) < size:
                raise Damaged(start, "the tar is cut short")
            if kind == b"L":
                long["path"] = _text(content)
            elif kind == b"x":
                long |= _pax(content)
        else:
            name = long.get("path") or _name(header)
            if kind in b"0\0" + b"7" and "GNU.sparse.major" not in long:
                stated = long.get("size", "")
                size = int(stated) if stated.isdecimal() and len(stated) < 20 else size
                if not file.has(body + size):
                    raise Damaged(start, f"the tar is cut short within {name}", name)
                yield Member(name, body, size)
            elif kind in b"123456":  # links, folders and devices have no content, whatever their size says
                size = 0
            long = {}
        file.skip_to(body + -(-size // _BLOCK) * _BLOCK)


def _size(header: bytes, start: int) -> int:
    """The size in a header whose check sum is right."""
    try:
        if int(header[148:156].strip(b"\0 ") or b"0", 8) != sum(header[:148]) + 8 * 32 + sum(header[156:]):
            raise ValueError
        field = header[124:136]
        if field[0] & 0x80:  # base 256, for 8 GiB and more
            return int.from_bytes(field[1:], "big")
        size = int(field.strip(b"\0 ") or b"0", 8)
        if size < 0:
            raise ValueError
        return size
    except ValueError:
        raise Damaged(start, "damaged, or not a tar: no header where one should be") from None


def _name(header: bytes) -> str:
    prefix = header[345:500] if header[257:263] == b"ustar\0" else b""  # GNU keeps times there
    name = _text(header[:100])
    return f"{_text(prefix)}/{name}" if prefix.strip(b"\0") else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(content: bytes) -> dict[str, str]:
    """Records of the form `27 path=some/long/name.jpg\\n`, the number being the record's length."""
    found = {}
    while content:
        length, _, rest = content.partition(b" ")
        end = int(length) - len(length) - 1 if length.isdigit() and len(length) < 9 else 0
        if end <= 0:
            break
        key, _, value = rest[: end - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        content = rest[end:]
    return found


def split_name(name: str) -> tuple[str, str] | None:
    """WebDataset's rule: `a/b.c.jpg` is part `c.jpg` of example `a/b`. None for hidden files and names without a
    dot."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, part = base.partition(".")
    return (folder + slash + stem, part.lower()) if stem and part and not stem.startswith("__") else None


class Field(NamedTuple):
    """`txt` is a part; `json.meta.caption` is the value under meta, caption in the part `json`."""

    part: str
    path: tuple[str, ...]

    @classmethod
    def parse(cls, name: str) -> "Field":
        words = name.strip(". ").split(".")
        end = words.index("json") + 1 if "json" in words else len(words)
        return cls(".".join(words[:end]).lower(), tuple(words[end:]))

    def value(self, parts: Mapping[str, bytes], key: str) -> Any:
        """Bytes of a part, a value from JSON, or None where there is none."""
        content = parts.get(self.part)
        if content is None or not self.path:
            return content
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BadSample(key, f"its {self.part} is not JSON: {error}") from None
        for word in self.path:
            value = value.get(word) if isinstance(value, dict) else None
        return value


@dataclass(frozen=True)
class Layout:
    """Which parts make an example."""

    image: tuple[str, ...]  # the first that is there
    captions: tuple[Field, ...]
    first_caption: bool  # take the first of `captions` that is there, not all of them
    label: Field | None

    @classmethod
    def of(cls, image: Sequence[str] | None, captions: Sequence[str] | None, label: str | None) -> "Layout":
        return cls(
            image=tuple(part.lower().lstrip(".") for part in image or IMAGE_PARTS),
            captions=tuple(map(Field.parse, CAPTION_PARTS if captions is None else captions)),
            first_caption=captions is None,
            label=None if label is None else Field.parse(label),
        )

    def wanted(self) -> frozenset[str]:
        """The parts worth reading."""
        fields = (*self.captions, *([] if self.label is None else [self.label]))
        return frozenset(self.image) | {field.part for field in fields}

    def image_of(self, parts: Mapping[str, Any]) -> str | None:
        return next((part for part in self.image if part in parts), None)

    def caption_parts(self, parts: Collection[str]) -> set[str]:
        """Those of an example's `parts` that must be read for its captions."""
        found = [field.part for field in self.captions if field.part in parts]
        return set(found[:1] if self.first_caption else found)

    def captions_of(self, parts: Mapping[str, bytes], key: str) -> list[str]:
        """Cleaned captions, at least one; `BadSample` if there is none."""
        found: list[str] = []
        for field in self.captions:
            value = field.value(parts, key)
            if isinstance(value, bytes):
                found += caption_lines(value, key)
            elif isinstance(value, str | list):
                texts = [value] if isinstance(value, str) else value
                found += clean_captions([text for text in texts if isinstance(text, str)], key)
            if found and self.first_caption:
                break
        if not found:
            raise BadSample(key, f"no caption ({' or '.join('.'.join((f.part, *f.path)) for f in self.captions)})")
        return found

    def label_of(self, parts: Mapping[str, bytes], key: str) -> str | float | None:
        """The label as it is written; of a list, the first."""
        value = None if self.label is None else self.label.value(parts, key)
        if isinstance(value, bytes):
            value = value[:4096].decode("utf-8", "replace").strip()
        if isinstance(value, list):
            value = value[0] if value else None
        return value if isinstance(value, str | int | float) else None

    def example(self, parts: Mapping[str, bytes], key: str, classes: Classes | None) -> Example:
        """One example from its parts; the label only where `classes` are given."""
        image = self.image_of(parts)
        if image is None:
            raise BadSample(key, f"no picture among its parts ({', '.join(sorted(parts))[:100]})")
        example: Example = {"key": key, "image": parts[image]}
        if self.captions:
            example["captions"] = self.captions_of(parts, key)
        if classes is not None:
            example["label"] = classes.label(self.label_of(parts, key), key)
        return example
