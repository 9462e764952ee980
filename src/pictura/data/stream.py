"""`stream`: WebDataset tars that lie elsewhere (http, https, s3, gs, …), read front to back while training."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar, NoReturn

import numpy as np

from pictura.data.patterns import expand
from pictura.data.remote import PIECE, check_scheme, open_remote
from pictura.data.source import MAX_BYTES, BadSample, Classes, Example, Source, SourceConfig
from pictura.data.tar import Damaged, Layout, members, split_name

VOCABULARY_EXAMPLES = 100_000


@dataclass(frozen=True, kw_only=True)
class StreamConfig(SourceConfig):
    """`path`: addresses with brace patterns, such as https://host/train-{0000..0099}.tar, or a list of these.
    `image`, `captions` and `label` as in `shards`, but a label is given only if `label` names its part.

    examples: how many there are in all, which a stream cannot know; the length of an epoch in steps follows from it.
    class_names: needed where labels are words.
    """

    kind: ClassVar[str] = "stream"
    path: str | list[str]
    examples: int | None = None
    image: list[str] | None = None
    captions: list[str] | None = None
    label: str | None = None
    class_names: list[str] | Path | None = None

    def build(self) -> "Stream":
        return Stream(self)


class Stream(Source):
    """Examples in the order of `epoch()`; asking for one by number is a `ValueError`.

    For `batches.py`: chain `epoch(0, …)`, `epoch(1, …)`, … without end, one such chain per process of a distributed
    run, read in one place (hand the encoded pictures on to decoding workers), so that the order does not depend on
    the number of workers. Everything is a function of (seed, epoch, rank, world), so a run resumes by passing over
    what it has read already.
    """

    def __init__(self, config: StreamConfig) -> None:
        self.urls = [
            url for path in ([config.path] if isinstance(config.path, str) else config.path) for url in expand(path)
        ]
        for url in self.urls:
            if "://" not in url:
                raise ValueError(
                    f"path: {url!r} is not an address such as https://…; for files on this machine use `kind: shards`"
                )
        if not self.urls:
            raise ValueError("path: names no tar")
        for scheme in sorted({url.partition("://")[0] for url in self.urls}):
            check_scheme(scheme)
        self._layout = Layout.of(config.image, config.captions, config.label)
        self._classes = None if config.label is None else Classes.of(config.class_names)
        self._examples = config.examples
        self.class_names = () if self._classes is None else self._classes.names
        captions = ["captions"] if self._layout.captions else []
        self.provides = frozenset({"image", *captions, *(["label"] if config.label else [])})

    def __len__(self) -> int:
        if self._examples is None:
            raise ValueError(
                "examples: say how many examples the stream holds; it cannot be known without reading all of it"
            )
        return self._examples

    def __getitem__(self, index: int) -> NoReturn:
        raise ValueError(
            "a stream is read in its own order, for training only; copy its tars here and use `kind: shards`"
        )

    def all_captions(self) -> Iterator[str]:
        """The captions of the first `VOCABULARY_EXAMPLES` of a pass; a tokenizer needs no more."""
        for example in itertools.islice(self.epoch(0, 0, 0, 1), VOCABULARY_EXAMPLES):
            if not isinstance(example, BadSample):
                yield from example.get("captions", [])

    def epoch(self, epoch: int, seed: int, rank: int, world: int) -> Iterator[Example | BadSample]:
        """One pass of process `rank` of `world` over its share of the tars, which are shuffled by (seed, epoch). A
        `BadSample` stands in the place of what cannot be used. `ValueError` if nothing can, or if there are fewer
        tars than processes."""
        if len(self.urls) < world:
            raise ValueError(
                f"path: {len(self.urls)} tars cannot be shared among {world} processes; write more, smaller tars"
            )
        order = np.random.default_rng([seed, epoch]).permutation(len(self.urls))
        first: BadSample | None = None
        good = False
        for place in order[rank::world].tolist():
            for example in self._shard(self.urls[place]):
                if isinstance(example, BadSample):
                    first = first or example
                else:
                    good = True
                yield example
        if not good:
            raise ValueError(f"path: no usable example in any tar; {first or 'they are empty'}")

    def _shard(self, url: str) -> Iterator[Example | BadSample]:
        seen: set[str] = set()
        damage: Damaged | None = None
        try:
            with open_remote(url) as file:
                for group in self._groups(_Forward(file)):
                    damage, key = group.damage, f"{url}/{group.key}"
                    if group.key in seen:
                        yield BadSample(key, "a second example of this name; the first is used")
                    elif group.key:
                        seen.add(group.key)
                        try:
                            if group.refused:
                                raise BadSample(key, group.refused)
                            yield self._layout.example(group.parts, key, self._classes)
                        except BadSample as bad:
                            if damage is None:  # else the damage is why, and is named below
                                yield bad
        except OSError as error:
            yield BadSample(url, f"cannot be opened: {error}")
        if damage is not None:
            yield BadSample(url, f"{damage}; what lies before it is used")

    def _groups(self, file: "_Forward") -> Iterator["_Group"]:
        """The wanted parts of each example: members with one key, one after the other."""
        wanted = self._layout.wanted()
        group = _Group()
        try:
            for name, _, size in members(file):
                key, part = split_name(name) or ("", "")
                if key and key != group.key:
                    yield group
                    group = _Group(key)
                if key and part in wanted and part not in group.parts:
                    if size > MAX_BYTES:
                        group.refused = f"its {part} has {size:,} bytes, above the limit of {MAX_BYTES:,}"
                        continue
                    group.parts[part] = file.read(size)
                    if len(group.parts[part]) < size:
                        del group.parts[part]
                        raise Damaged(file.position, f"the tar is cut short within {name}")
        except Damaged as damage:
            group.damage = damage
        yield group


@dataclass
class _Group:
    """The parts of one example, why it cannot be used if so, and the damage that the tar ends in after it, if any."""

    key: str = ""  # empty where there is no example, only damage
    parts: dict[str, bytes] = field(default_factory=dict)
    refused: str = ""
    damage: Damaged | None = None


class _Forward:
    """A `tar.Reader` of a file that cannot go back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.position = file, 0

    def read(self, size: int) -> bytes:
        try:
            content = self._file.read(size)
        except Exception as error:  # fsspec's plug-ins, gzip and sockets raise errors of many kinds
            raise Damaged(self.position, f"cannot be read further: {error}") from error
        self.position += len(content)
        return content

    def has(self, end: int) -> bool:
        return True  # known only when it is read

    def skip_to(self, position: int) -> None:
        while self.position < position and self.read(min(position - self.position, PIECE)):
            pass
