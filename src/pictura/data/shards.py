"""`shards`: WebDataset tars on this machine, indexed once, then read at random. (Remote ones are `stream`.)"""

import bisect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from pictura.data.patterns import local_tars
from pictura.data.source import MAX_BYTES, BadSample, Classes, Example, Source, SourceConfig, Strings, did_you_mean
from pictura.data.tar import Layout
from pictura.data.tar_index import cached_index


@dataclass(frozen=True, kw_only=True)
class ShardsConfig(SourceConfig):
    """`path`: a tar, a folder of tars, a pattern (`train-{0000..0099}.tar`, `train-*.tar`), or a list of these.

    image: the parts that may be the picture, the first that is there; the usual ones (jpg, png, …) if not given.
    captions: the parts that hold captions, all of them, such as [txt, json.caption]; if not given, the first of txt
    (one caption a line), json.caption, json.captions, json.text that is there; [] for none.
    label: the part that holds the class, such as cls or json.class; cls where there is one if not given.
    class_names: a list, or a file as `Classes.of` reads it; if not given, the words found, sorted, or none for
    numbers.
    """

    kind: ClassVar[str] = "shards"
    path: str | list[str]
    image: list[str] | None = None
    captions: list[str] | None = None
    label: str | None = None
    class_names: list[str] | Path | None = None

    def build(self) -> "Shards":
        return Shards(self)


class Shards(Source):
    """The examples of local tars, in the order of the tars. Each read opens its tar anew, so nothing is shared across
    a fork.

    A tar cut in the middle gives its whole members; the cut is in `bad`, and so are repeated members (the first is
    used) and examples without a picture or, where there are captions, without a caption.
    """

    def __init__(self, config: ShardsConfig) -> None:
        self._layout = Layout.of(config.image, config.captions, config.label or "cls")
        self._shards = [Shard(path, self._layout) for path in local_tars(config.path)]
        self.bad = [bad for shard in self._shards for bad in shard.bad]
        captioned = bool(self._layout.captions) and self._any_caption(required=config.captions is not None)
        for shard in self._shards:
            self.bad += shard.keep_whole(self._layout, captioned)
        self._ends = np.cumsum([len(shard.keys) for shard in self._shards]).tolist()
        if not len(self):
            what = f"for example {self.bad[0]}" if self.bad else "the tars are empty"
            raise ValueError(f"{config.path}: holds no usable example; {what}")
        if not captioned:
            self._layout = Layout.of(config.image, [], config.label)
        labelled = self._read_classes(config)
        self.provides = frozenset({"image", *(["captions"] if captioned else []), *(["label"] if labelled else [])})

    def _any_caption(self, *, required: bool) -> bool:
        """Whether the first examples have captions; that they should, and have not, is the user's mistake."""
        seen: list[str] = []
        for shard in self._shards[:8]:
            for row in range(min(len(shard.keys), 8)):
                try:
                    seen = sorted({*seen, *shard.parts_of(row), *shard.others})
                    wanted = self._layout.caption_parts(shard.parts_of(row))
                    if self._layout.captions_of(shard.read(row, wanted), shard.key(row)):
                        return True
                except BadSample:
                    continue
        if required and seen:
            names = [".".join((field.part, *field.path)) for field in self._layout.captions]
            raise ValueError(f"captions: no {' or '.join(names)} in the first examples (parts: {', '.join(seen)})")
        return False

    def _read_classes(self, config: ShardsConfig) -> bool:
        values = {value for shard in self._shards for value in shard.labels if value is not None}
        if not values and (config.label is not None or config.class_names is not None):
            label = config.label or "cls"
            parts = sorted({part for shard in self._shards for part in (*shard.members, *shard.others)})
            raise ValueError(f"label: no example has {label!r}{did_you_mean(label, parts)} (parts: {', '.join(parts)})")
        self._classes = Classes.of(config.class_names, values) if values else None
        if self._classes is not None:
            self.class_names = self._classes.names
            for shard in self._shards:
                found = (self._classes.find(value) for value in shard.labels)
                shard.label = np.array([-1 if label is None else label for label in found], dtype=np.int64)
            self.least_classes = 1 + max(int(shard.label.max(initial=-1)) for shard in self._shards)
        for shard in self._shards:
            shard.labels = []  # a list of words is heavy, and was needed for this only
        return self._classes is not None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Example:
        shard, row = self._locate(index)
        key = shard.key(row)
        parts = shard.parts_of(row)
        image = self._layout.image_of(parts)
        wanted = self._layout.caption_parts(parts) | ({image} if image else set())
        example = self._layout.example(shard.read(row, wanted), key, classes=None)
        if self._classes is not None:
            example["label"] = int(shard.label[row])
            if example["label"] < 0:
                raise BadSample(key, "no label, or one that is not among the class names")
        return example

    def captions(self, index: int) -> list[str]:
        shard, row = self._locate(index)
        wanted = self._layout.caption_parts(shard.parts_of(row))
        return self._layout.captions_of(shard.read(row, wanted), shard.key(row))

    def _locate(self, index: int) -> tuple["Shard", int]:
        index = range(len(self))[index]
        shard = bisect.bisect_right(self._ends, index)
        return self._shards[shard], index - (self._ends[shard - 1] if shard else 0)


class Shard:
    """One tar and its index: `keys`, and for each part the offset and size [n 2] in the tar, -1 where an example
    lacks it."""

    def __init__(self, path: str, layout: Layout) -> None:
        self.path = path
        index = cached_index(path, layout)
        self.keys = Strings(index["keys"])
        self.members = {
            part: np.array(spans, dtype=np.int64).reshape(-1, 2) for part, spans in index["members"].items()
        }
        self.others: list[str] = index["others"]  # names of some parts that are not read
        self.labels: list[str | float | None] = index["labels"]  # as written
        self.label = np.zeros(0, dtype=np.int64)  # as numbers
        self.bad = [BadSample(key, reason) for key, reason in index["bad"]]
        self._cut: str | None = index["cut"]  # the key that the damage was in or followed

    def key(self, row: int) -> str:
        return f"{self.path}/{self.keys[row]}"

    def parts_of(self, row: int) -> dict[str, int]:
        """The parts of one example, with their sizes."""
        return {part: int(spans[row, 1]) for part, spans in self.members.items() if spans[row, 0] >= 0}

    def read(self, row: int, wanted: set[str]) -> dict[str, bytes]:
        """Those of the `wanted` parts that the example has."""
        key, content = self.key(row), {}
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                for part in wanted & self.members.keys():
                    offset, size = self.members[part][row].tolist()
                    if size > MAX_BYTES:
                        raise BadSample(key, f"its {part} has {size:,} bytes, above the limit of {MAX_BYTES:,}")
                    if offset >= 0:
                        content[part] = os.pread(descriptor, size, offset)
                        if len(content[part]) < size:
                            raise BadSample(key, "the tar is shorter than when it was indexed")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise BadSample(key, f"cannot be read: {error.strerror}") from None
        return content

    def keep_whole(self, layout: Layout, captioned: bool) -> list[BadSample]:
        """Drops the examples that lack what they need, and names them, save for the one that a cut in the tar has
        named."""
        pictured, worded = np.zeros(len(self.keys), dtype=bool), np.full(len(self.keys), not captioned)
        for part, spans in self.members.items():
            pictured |= (spans[:, 0] >= 0) & (part in layout.image)
            worded |= (spans[:, 0] >= 0) & (part in {field.part for field in layout.captions})
        kept, bad = np.flatnonzero(pictured & worded), []
        for row in np.flatnonzero(~(pictured & worded)).tolist():
            if self.keys[row] != self._cut:
                lacking = "caption" if pictured[row] else "picture"
                has = ", ".join([*self.parts_of(row)] or self.others)
                bad.append(BadSample(self.key(row), f"no {lacking} among its parts ({has})"))
        if len(kept) < len(self.keys):
            self.keys = Strings(self.keys[row] for row in kept.tolist())
            self.members = {part: spans[kept] for part, spans in self.members.items()}
            self.labels = [self.labels[row] for row in kept.tolist()]
        return bad
