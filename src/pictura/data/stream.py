"""`stream`: WebDataset tars that lie elsewhere (http, https, s3, gs, …), read front to back while training.

http and https are read with Python's own client, which needs nothing installed and takes up again where a connection
broke; every other scheme with fsspec, which asks for its plug-in (s3fs, gcsfs, …) by name where it is missing.
"""

import gzip
import io
import itertools
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, NoReturn, cast

import numpy as np

from pictura.data.patterns import expand
from pictura.data.source import MAX_BYTES, BadSample, Classes, Example, Source, SourceConfig
from pictura.data.tar import Damaged, Layout, members, split_name

TIMEOUT = 60  # seconds without a byte
TRIES = 5
_PIECE = 2**20


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
        for example in self.epoch(0, 0, 0, 1):
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
        found = 0
        try:
            with open_tar(url) as file:
                for key, parts in self._groups(_Forward(file), url):
                    if key in seen:
                        yield BadSample(f"{url}/{key}", "a second example of this name; the first is used")
                        continue
                    seen.add(key)
                    try:
                        found += 1
                        if isinstance(parts, BadSample):
                            raise parts
                        yield self._layout.example(parts, f"{url}/{key}", self._classes)
                    except BadSample as bad:
                        yield bad
        except Damaged as damage:
            yield BadSample(url, f"{damage}; what lies before it is used")
        except (OSError, EOFError, zlib.error) as error:
            yield BadSample(url, f"cannot be read after {found:,} examples: {error}")

    def _groups(self, file: "_Forward", url: str) -> Iterator[tuple[str, dict[str, bytes] | BadSample]]:
        """The wanted parts of each example: members with one key, one after the other. What a cut leaves incomplete
        is left out."""
        wanted = self._layout.wanted()

        def named() -> Iterator[tuple[str, str, int]]:
            for name, _, size in members(file):
                key, part = split_name(name) or ("", "")
                if key:
                    yield key, part, size

        for key, group in itertools.groupby(named(), key=lambda member: member[0]):
            parts: dict[str, bytes] = {}
            bad: BadSample | None = None
            for _, part, size in group:
                if part in wanted and size > MAX_BYTES:
                    bad = BadSample(f"{url}/{key}", f"its {part} has {size:,} bytes, above the limit of {MAX_BYTES:,}")
                elif part in wanted and part not in parts:
                    parts[part] = file.read(size)
                    if len(parts[part]) < size:
                        raise Damaged(file.position, f"the tar is cut short within {key}.{part}")
            yield key, bad or parts


class _Forward:
    """A `tar.Reader` of a file that cannot go back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.position = file, 0

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self.position += len(content)
        return content

    def has(self, end: int) -> bool:
        return True  # known only when it is read

    def skip_to(self, position: int) -> None:
        while self.position < position and self.read(min(position - self.position, _PIECE)):
            pass


def open_tar(url: str) -> IO[bytes]:
    """The bytes of a tar, unpacked if its name ends in .gz or .tgz. Raises `OSError`, or `ValueError` for a missing
    plug-in."""
    scheme, _, rest = url.partition("://")
    if scheme in ("http", "https"):
        file: IO[bytes] = io.BufferedReader(_Http(url), _PIECE)
    else:
        import fsspec

        try:
            file = fsspec.open(url, "rb").open()
        except ImportError as error:
            raise ValueError(f"path: {scheme}:// needs a package that is not installed: {error}") from error
    packed = rest.partition("?")[0].endswith((".gz", ".tgz"))
    return cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file


class _Http(io.RawIOBase):
    """A file read from a web server once, front to back; a broken connection is taken up again where it broke."""

    def __init__(self, url: str) -> None:
        self._url, self._position, self._end = url, 0, -1
        self._answer: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        for attempt in range(TRIES):
            try:
                self._answer = self._answer or self._connect()
                count = self._answer.readinto(buffer)  # type: ignore[attr-defined]
                if count or self._position >= self._end:
                    self._position += count
                    return int(count)
                raise ConnectionError(f"the connection ended after {self._position:,} of {self._end:,} bytes")
            except urllib.error.HTTPError as error:
                error.close()
                if error.code < 500 and error.code != 429:
                    raise OSError(f"HTTP status {error.code} {error.reason}") from None
                failure: Exception = OSError(f"HTTP status {error.code} {error.reason}")
            except OSError as error:  # time-outs and broken connections are OSErrors too
                failure = error
            self._drop()
            if attempt + 1 < TRIES:
                time.sleep(0.2 * 2**attempt)
        raise OSError(f"{failure}, {TRIES} times")

    def _connect(self) -> IO[bytes]:
        headers = {"Range": f"bytes={self._position}-"} if self._position else {}
        answer = urllib.request.urlopen(urllib.request.Request(self._url, headers=headers), timeout=TIMEOUT)
        start = self._position if answer.status == 206 else 0  # 200: the server begins again from the beginning
        length = answer.headers.get("Content-Length")
        self._end = start + int(length) if length else 0
        while start < self._position:
            piece = answer.read(min(self._position - start, _PIECE))
            if not piece:
                raise ConnectionError("the connection ended")
            start += len(piece)
        return cast(IO[bytes], answer)

    def _drop(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def close(self) -> None:
        self._drop()
        super().close()
