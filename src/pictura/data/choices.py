"""`choices`: pictures with sentences of which one is true, in a table, or in the files of SugarCrepe. Hsieh et al.
2023, arXiv:2306.14610; github.com/RAIVNLab/sugar-crepe."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from pictura.data.decode import clean_caption
from pictura.data.official import COCO_FOLDERS, brief, files, find_picture, picture_folders
from pictura.data.source import BadSample, Example, Source, SourceConfig, Strings, is_empty, read_file, shown
from pictura.data.table import IMAGE_COLUMNS, TEXT_SUFFIXES, Records, whole_records

MOST = 1000  # choices of one picture
_KINDS = ("kind", "choice_kind", "category")
_BESIDE = (".", "images", "..", "../images", "../Images/mscoco")
_USED = (*IMAGE_COLUMNS, *_KINDS, "choices", "answer", "true", "false", "caption", "negative_caption")


@dataclass(frozen=True, kw_only=True)
class ChoiceTableConfig(SourceConfig):
    """path: a .csv, .tsv or .jsonl, or SugarCrepe's .json (add_att.json, swap_obj.json, …), or several of them, a list
        or a pattern such as sugar-crepe/*.json.
    images: the folder of the pictures, or the one above them (val2017 of COCO for SugarCrepe); several may be given; if
        none, looked for beside the first file. A relative name that leads outside of it is refused.

    Columns: `image` (or as `table` knows it); `true` and `false`, or `choices`, with the place of the true one, from 0,
    in `answer`, or the true one first; `kind`, if none that of the file's name. Several sentences are a JSON list.
    """

    kind: ClassVar[str] = "choices"
    path: str | list[str]
    images: Path | list[Path] | None = None

    def build(self) -> "ChoiceTable":
        return ChoiceTable(self)


class Row(NamedTuple):
    """One picture with its sentences."""

    picture: str
    choices: list[str]
    answer: int
    kind: str


class ChoiceTable(Source):
    """Each example: `image`, `choices`, `answer`, the place of the true one, and where there are several, the
    `choice_kind`. Rows that cannot be used are in `bad`; a picture that is missing is a `BadSample` when it is read."""

    provides = frozenset({"image", "choices", "answer", "choice_kind"})

    def __init__(self, config: ChoiceTableConfig) -> None:
        paths, bad, rows = files(config.path), list[BadSample](), list[Row]()
        for path in paths:
            for where, cells in _cells(path, bad):
                try:
                    rows.append(_row(cells, where, path))
                except BadSample as sample:
                    bad.append(sample)
        if not rows:
            why = f"for example {bad[0]}" if bad else "nothing is in it"
            raise ValueError(f"path: {config.path} has no usable row; {why}")
        self.bad = bad
        self._names, self._kinds = Strings(row.picture for row in rows), Strings(row.kind for row in rows)
        self._answers = np.array([row.answer for row in rows], dtype=np.int64)
        self._choices = Strings(text for row in rows for text in row.choices)
        self._ends = np.cumsum([0, *(len(row.choices) for row in rows)])
        if len({row.kind for row in rows}) == 1:
            self.provides -= {"choice_kind"}
        self._folders = picture_folders(paths[0], config.images, _BESIDE, COCO_FOLDERS, [[r.picture] for r in rows])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        path = find_picture(self._folders, [self._names[index]], self._names[index])
        example: dict[str, Any] = {"key": shown(path), "image": read_file(path, shown(path))}
        example |= {"choices": self._told(index), "answer": int(self._answers[index])}
        if "choice_kind" in self.provides:
            example["choice_kind"] = self._kinds[index]
        return cast(Example, example)

    def captions(self, index: int) -> list[str]:
        """The true sentence, so that a tokenizer can be trained on it."""
        index = range(len(self))[index]
        return [self._told(index)[self._answers[index]]]

    def _told(self, index: int) -> list[str]:
        return self._choices[int(self._ends[index]) : int(self._ends[index + 1])]


def _cells(path: Path, bad: list[BadSample]) -> Records:
    """Where it is, and the columns, of each row of a file."""
    suffix = path.suffix.lower()
    if suffix in (*TEXT_SUFFIXES, ".jsonl", ".ndjson"):
        return whole_records(path, bad)
    if suffix == ".json":
        return _sugar_crepe(path, bad)
    raise ValueError(f"{path}: choices come in .csv, .tsv, .jsonl, or SugarCrepe's .json")


def _sugar_crepe(path: Path, bad: list[BadSample]) -> Records:
    """The entries of {"0": {"filename", "caption", "negative_caption"}, …}, or of a list of them."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict | list):
        raise ValueError(f'{path}: should be SugarCrepe\'s {{"0": {{"filename": …, "caption": …}}}}')
    for name, entry in content.items() if isinstance(content, dict) else enumerate(content):
        where = f"{path}: {shown(str(name))[:40]}"
        if not isinstance(entry, dict):
            bad.append(BadSample(where, "not a JSON object"))
        elif os.path.isabs(str(entry.get("filename", ""))):
            bad.append(BadSample(where, f"{brief(entry['filename'])} leads outside the pictures' folder"))
        else:
            yield where, entry


def _row(cells: dict[str, Any], where: str, path: Path) -> Row:
    picture = next((cells[name] for name in IMAGE_COLUMNS if not is_empty(cells.get(name))), None)
    if not isinstance(picture, str) or not picture.strip():
        raise BadSample(where, "names no picture; call the column `image`")
    answer = 0
    if "choices" in cells:
        choices = _texts(cells["choices"], where, "choices")
        if not is_empty(given := cells.get("answer")):
            answer = _place(given, len(choices), where)
    elif "true" in cells or "negative_caption" in cells:
        names = ("true", "false") if "true" in cells else ("caption", "negative_caption")
        true, false = (_texts(cells.get(name), where, name) for name in names)
        if len(true) != 1:
            raise BadSample(where, f"{len(true)} sentences are said to be true; one is wanted")
        choices = [*true, *false]
    else:
        there = ", ".join(name for name in cells if name in _USED) or "none that is known"
        raise BadSample(where, f"no column `choices`, and none called `true`; there are {there}")
    if len(choices) < 2:
        raise BadSample(where, f"{len(choices)} sentence to choose among; 2 or more are wanted")
    if len(set(choices)) < len(choices):
        raise BadSample(where, "two of the choices are the same")
    kind = next((cells[name] for name in _KINDS if not is_empty(cells.get(name))), path.stem)
    return Row(picture.strip(), choices, answer, kind_of(kind, where))


def _texts(value: Any, where: str, name: str) -> list[str]:
    """One sentence, or a list of them, as JSON where it is in a cell of text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadSample(where, f"{name}: not a JSON list: {error}") from None
    texts = value if isinstance(value, list) else [value]
    if len(texts) > MOST:
        raise BadSample(where, f"{name}: {len(texts):,} sentences, more than {MOST:,}")
    if strange := [text for text in texts if not isinstance(text, str)]:
        raise BadSample(where, f"{name}: {brief(strange[0])} is not a sentence")
    return [clean_caption(text, where) for text in texts]


def _place(value: Any, count: int, where: str) -> int:
    digits = str(value).strip() if isinstance(value, str) or type(value) is int else ""
    if not (digits.isascii() and digits.isdigit() and len(digits) < 5 and int(digits) < count):
        raise BadSample(where, f"answer {brief(value)} is not a place among {count} choices, from 0")
    return int(digits)


def kind_of(value: Any, where: str) -> str:
    """A word that metrics can be called by."""
    if not isinstance(value, str) or not value.strip() or len(value) > 64 or not value.isprintable():
        raise BadSample(where, f"kind {brief(value)} is not a short name")
    return value.strip().replace("/", " or ")
