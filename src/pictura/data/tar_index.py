"""Where everything lies in a local tar, found by one walk over its headers.

An index holds the keys of a tar's examples, where each part begins, and the labels as they are written. It is kept as
JSON in the user's cache folder, under a name made from the tar's path, size and time of change, so that the second
start is quick.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pictura.data.source import BadSample
from pictura.data.tar import Damaged, Layout, members, split_name

_VERSION = 1
_logger = logging.getLogger(__name__)


def cached_index(path: str, layout: Layout) -> dict[str, Any]:
    """The index of a tar, from the user's cache folder if it is there, else made and left there."""
    status = os.stat(path)
    file_is = (os.path.realpath(path), path, status.st_size, status.st_mtime_ns)
    what = json.dumps([_VERSION, *file_is, layout.label, *sorted(layout.wanted())])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pictura" / "shards"
    file = cache / f"{hashlib.sha256(what.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.json"
    try:
        kept = json.loads(file.read_bytes())
        if isinstance(kept, dict) and kept.get("what") == what:
            return kept
    except (OSError, ValueError):  # not there, or half a file from elsewhere: made again
        pass
    index = {"what": what, **index_tar(path, layout)}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache, suffix=".tmp", delete=False) as aside:
            json.dump(index, aside)
        os.replace(aside.name, file)
    except OSError as error:
        _logger.info("the index of %s is not kept: %s", path, error)
    return index


class _File:
    """A `Reader` of a local file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._size, self.position = descriptor, os.fstat(descriptor).st_size, 0

    def read(self, size: int) -> bytes:
        content = os.pread(self._descriptor, size, self.position)
        self.position += len(content)
        return content

    def has(self, end: int) -> bool:
        return end <= self._size

    def skip_to(self, position: int) -> None:
        self.position = position


def index_tar(path: str, layout: Layout) -> dict[str, Any]:
    """What `Shard` keeps of a tar, in JSON's types. Parts of one example belong together wherever they are."""
    rows: dict[str, int] = {}
    wanted = layout.wanted()
    others: set[str] = set()
    spans: dict[str, list[list[int]]] = {}
    bad: list[tuple[str, str]] = []
    repeated: set[str] = set()
    cut, last = None, None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        if os.pread(descriptor, 2, 0) == b"\x1f\x8b":
            raise ValueError(f"{path}: is compressed, so it cannot be read at random; unpack it with `gunzip`")
        try:
            for name, offset, size in members(_File(descriptor)):
                key, part = split_name(name) or ("", "")
                if not key:
                    continue
                last, row = key, rows.setdefault(key, len(rows))
                if part not in wanted:
                    others |= {part} if len(others) < 16 else set()
                    continue
                part_spans = spans.setdefault(part, [])
                part_spans += [[-1, -1]] * (row + 1 - len(part_spans))
                if part_spans[row][0] < 0:
                    part_spans[row] = [offset, size]
                elif key not in repeated:
                    repeated.add(key)
                    bad.append((f"{path}/{key}", f"a second {part} of this name; the first is used"))
        except Damaged as damage:
            bad.append((path, f"{damage}; what lies before it is used"))
            cut = (split_name(damage.name) or (last,))[0]
        for part_spans in spans.values():
            part_spans += [[-1, -1]] * (len(rows) - len(part_spans))
        labels = _labels(descriptor, path, layout, list(rows), spans)
    finally:
        os.close(descriptor)
    return {"keys": list(rows), "members": spans, "others": sorted(others), "labels": labels, "bad": bad, "cut": cut}


def _labels(
    descriptor: int, path: str, layout: Layout, keys: Sequence[str], spans: dict[str, list[list[int]]]
) -> list[str | float | None]:
    assert layout.label is not None
    part, found = layout.label.part, []
    for key, (offset, size) in zip(keys, spans.get(part, []), strict=False):
        content = {part: os.pread(descriptor, size, offset)} if 0 <= size <= 2**20 else {}
        try:
            found.append(layout.label_of(content, f"{path}/{key}"))
        except BadSample:  # JSON that is none: the example is refused when it is read
            found.append(None)
    return found or [None] * len(keys)
