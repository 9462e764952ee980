"""`nlvr2`: statements about two pictures, true or false (NLVR2, Suhr et al. 2019, arXiv:1811.00491), in the official
JSON lines of train.json, dev.json and test1.json (github.com/lil-lab/nlvr)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from pictura.data.decode import clean_caption
from pictura.data.official import brief, find_picture, picture_folders
from pictura.data.source import BadSample, Example, Source, SourceConfig, Strings, existing, read_file
from pictura.data.table import json_lines

_IDENTIFIER = re.compile(r"([A-Za-z0-9_]{1,32}(?:-[0-9]{1,18}){2})-[0-9]{1,18}")
_FOLDER = re.compile(r"[A-Za-z0-9_]{0,32}")
_LABELS = {"true": 1, "false": 0}
_BESIDE = (".", "images", "..", "../images")
_INSIDE = ("train", "dev", "test1", "test2", "images", "images/train", "images/dev", "images/test1", "images/test2")


@dataclass(frozen=True, kw_only=True)
class Nlvr2Config(SourceConfig):
    """`path`: train.json, dev.json or test1.json. `images`: the folder of the pictures (train-10171-0-img0.png, …), or
    the one above them, as they are given out: images/train/<directory>/, images/dev/, images/test1/; several may be
    given; if none, looked for beside the file."""

    kind: ClassVar[str] = "nlvr2"
    path: Path
    images: Path | list[Path] | None = None

    def build(self) -> "Nlvr2":
        return Nlvr2(self)


class Nlvr2(Source):
    """Each example: `images` [left, right], encoded files; `statement`; `label` 1 where it is true of the two. `key` is
    the row's identifier, which the official evaluation (accuracy, and consistency over the rows of one set) goes by.
    A pair of which a picture is missing is a `BadSample` when it is read."""

    provides = frozenset({"images", "statement", "label"})
    class_names = ("false", "true")

    def __init__(self, config: Nlvr2Config) -> None:
        path = existing(config.path, "file")
        bad: list[BadSample] = []
        rows: dict[str, tuple[str, str, int]] = {}
        for where, row in json_lines(path, bad):
            try:
                identifier = _identifier(row, where)
                if identifier in rows:
                    raise BadSample(where, f"identifier {identifier} is there already")
                rows[identifier] = (_folder(row, where), _statement(row, where), _label(row, where))
            except BadSample as sample:
                bad.append(sample)
        if not rows:
            why = f"for example {bad[0]}" if bad else "it is empty"
            raise ValueError(f"{path}: no usable row; NLVR2 has one JSON object a line; {why}")
        self.bad = bad
        self._identifiers = Strings(rows)
        self._directories = Strings(folder for folder, _, _ in rows.values())
        self._statements = Strings(statement for _, statement, _ in rows.values())
        self._labels = np.array([label for _, _, label in rows.values()], dtype=np.int8)
        lefts = [_spellings(identifier, row[0], 0) for identifier, row in rows.items()]
        self._folders = picture_folders(path, config.images, _BESIDE, _INSIDE, lefts)

    def __len__(self) -> int:
        return len(self._identifiers)

    def __getitem__(self, index: int) -> Example:
        key, folder = self._identifiers[index], self._directories[index]
        paths = [find_picture(self._folders, _spellings(key, folder, side), key) for side in (0, 1)]
        images = [read_file(path, key) for path in paths]
        statement, label = self._statements[index], int(self._labels[index])
        return cast(Example, {"key": key, "images": images, "statement": statement, "label": label})

    def captions(self, index: int) -> list[str]:
        """The statement, so that a tokenizer can be trained on it."""
        return [self._statements[index]]


def _identifier(row: dict[str, Any], where: str) -> str:
    identifier = row.get("identifier")
    if not isinstance(identifier, str) or not _IDENTIFIER.fullmatch(identifier):
        raise BadSample(where, f"identifier {brief(identifier)} is not of the form train-10171-0-0")
    return identifier


def _folder(row: dict[str, Any], where: str) -> str:
    """The numbered folder of a training pair, which the other files do not have."""
    folder = row.get("directory")
    if folder is None:
        return ""
    if not (isinstance(folder, str) or type(folder) is int) or not _FOLDER.fullmatch(str(folder)):
        raise BadSample(where, f"directory {brief(folder)} is not a number")
    return str(folder)


def _statement(row: dict[str, Any], where: str) -> str:
    sentence = row.get("sentence")
    return clean_caption(sentence if isinstance(sentence, str) else "", where)


def _label(row: dict[str, Any], where: str) -> int:
    label = row.get("label")
    number = _LABELS.get(str(label).lower()) if isinstance(label, str | bool) else None
    if number is None:
        raise BadSample(where, f"label {brief(label)} is neither True nor False")
    return number


def _spellings(identifier: str, folder: str, side: int) -> list[str]:
    """The left (0) or right (1) picture of a pair, which several statements may share."""
    name = f"{identifier.rpartition('-')[0]}-img{side}.png"
    return [f"{folder}/{name}", name] if folder else [name]
