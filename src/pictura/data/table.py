"""`table`: a CSV, TSV, JSON Lines or Parquet file that names pictures and says something about each."""

import csv
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pictura.data.decode import clean_caption
from pictura.data.folders import read_picture
from pictura.data.source import (
    BadSample,
    Classes,
    Example,
    Source,
    SourceConfig,
    Strings,
    did_you_mean,
    existing,
    is_empty,
    shown,
    under,
)

IMAGE_COLUMNS = ("image", "image_path", "filepath", "file_path", "file_name", "filename", "path", "img")
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "sentence", "comment")
TEXT_SUFFIXES = (".csv", ".tsv", ".tab")
MAX_LINE = 16 * 2**20  # of JSON Lines; csv has a limit of its own, 128 KiB a field

Row = tuple[str, Any, list[Any], Any]  # where it is, picture, captions, label


@dataclass(frozen=True, kw_only=True)
class TableConfig(SourceConfig):
    """Pictures named in a table, relative to `root` (the table's own folder if not given). A picture named on several
    rows is one example with several captions; a column may also hold a list of captions (JSON Lines, Parquet).

    image_column, caption_columns: found by their usual names (image, filepath, …; caption, text, …) if not given.
    label_column: words, numbered by `class_names` (a list, or a file as `Classes.of` reads it) or sorted; or numbers.
    A relative name that leads outside `root` is refused; absolute names are the user's own and are followed anywhere.
    """

    kind: ClassVar[str] = "table"
    path: Path
    root: Path | None = None
    image_column: str | None = None
    caption_columns: list[str] | None = None
    label_column: str | None = None
    class_names: list[str] | Path | None = None

    def build(self) -> "Table":
        return Table(self)


class Table(Source):
    """Pictures, captions and labels of a table. Rows that cannot be used (no picture named, an empty caption) are in
    `bad`."""

    def __init__(self, config: TableConfig) -> None:
        path = existing(config.path, "file")
        self._root = os.path.realpath(path.parent if config.root is None else existing(config.root, "folder"))
        bad: list[BadSample] = []
        groups: dict[str, tuple[list[str], Any]] = {}  # picture -> captions, label; in the order of first mention
        captioned = False
        for where, picture, texts, value in _rows(path, config, bad):
            if not isinstance(picture, str) or not picture.strip():
                bad.append(BadSample(where, "names no picture"))
                continue
            captions, first = groups.setdefault(picture.strip(), ([], value))
            if value != first and not is_empty(value):
                bad.append(BadSample(where, f"label {value!r}, but {first!r} on an earlier row of the same picture"))
            captioned = captioned or bool(texts)
            for text in texts:
                try:
                    captions.append(clean_caption(text, where))
                except BadSample as empty:
                    bad.append(empty)
        if captioned:
            groups = {picture: group for picture, group in groups.items() if group[0]}
        if not groups:
            raise ValueError(f"{path}: holds no usable row{f', for example {bad[0]}' if bad else ''}")
        self.bad = bad
        self._names = Strings(groups)
        self._captions = Strings(caption for captions, _ in groups.values() for caption in captions)
        self._ends = np.cumsum([0, *(len(captions) for captions, _ in groups.values())])
        self._set_labels(config, [value for _, value in groups.values()])
        self.provides = frozenset(
            {"image"} | ({"captions"} if captioned else set()) | ({"label"} if self._labelled else set())
        )
        self._check_pictures(path)

    def _set_labels(self, config: TableConfig, values: list[Any]) -> None:
        self._labelled = config.label_column is not None
        if config.class_names is not None and not self._labelled:
            raise ValueError("class_names: given, but no label_column to apply them to")
        if self._labelled:
            self._classes = Classes.of(config.class_names, values)
            self.class_names = self._classes.names
            labels = [self._classes.find(value) for value in values]
            self._labels = np.array([-1 if label is None else label for label in labels], dtype=np.int64)
            self.least_classes = 1 + int(self._labels.max(initial=-1))

    def _check_pictures(self, table: Path) -> None:
        """That none of some names leads to a file is a wrong `root`, not bad luck."""
        names = self._names[:: max(1, len(self) // 32)]
        why = f"which is not in {self._root}; set `root` to the pictures' folder"
        for name in names:
            try:
                if os.path.exists(under(self._root, name)):
                    return
            except BadSample as bad:
                why = bad.reason
        raise ValueError(f"{table}: names pictures such as {shown(names[0])!r}: {why}")

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        key, image = read_picture(self._root, self._names[index])
        example: Example = {"key": key, "image": image}
        if "captions" in self.provides:
            example["captions"] = self.captions(index)
        if self._labelled:
            example["label"] = int(self._labels[index])
            if example["label"] < 0:
                raise BadSample(key, "no label, or one that is not among the class names")
        return example

    def captions(self, index: int) -> list[str]:
        index = range(len(self))[index]
        return self._captions[int(self._ends[index]) : int(self._ends[index + 1])]


def _rows(path: Path, config: TableConfig, bad: list[BadSample]) -> Iterator[Row]:
    chosen: list[_Columns] = []

    def choose(types: Mapping[str, str]) -> set[str]:
        chosen.append(_Columns(path, config, types))
        return chosen[0].wanted

    for where, cells in records(path, choose, bad):
        yield chosen[0].row(where, cells)


class _Columns:
    """Which of a table's columns to read."""

    def __init__(self, path: Path, config: TableConfig, types: Mapping[str, str]) -> None:
        self.path, self.names = path, list(types)
        listed = ", ".join(self.names[:20])
        self.image = image_column(path, types, config.image_column)
        self.label = self._given("label_column", config.label_column)
        if config.caption_columns is None:
            usual = usual_column(self.names, CAPTION_COLUMNS)
            self.captions = [] if usual is None else [usual]
        else:
            self.captions = [self._given("caption_columns", name) or name for name in config.caption_columns]
        if not self.captions and self.label is None and config.caption_columns is None:
            raise ValueError(f"{path}: which columns hold captions? Set caption_columns or label_column among {listed}")

    @property
    def wanted(self) -> set[str]:
        return {self.image, *self.captions, *([self.label] if self.label else [])}

    def _given(self, key: str, name: str | None) -> str | None:
        return None if name is None else given_column(self.path, self.names, key, name)

    def row(self, where: str, cells: dict[str, Any]) -> Row:
        texts: list[Any] = []
        for name in self.captions:
            cell = cells.get(name)
            texts += cell if isinstance(cell, list) else [cell]
        given = [text for text in texts if isinstance(text, str | bytes) and text.strip()]
        if self.captions and not given:  # some columns may be empty, but one caption there must be
            given = [""]
        label = cells.get(self.label) if self.label else None
        if label is not None and not isinstance(label, int | float):
            label = str(label).strip()
        return where, cells.get(self.image), given, label


def image_column(path: Path, types: Mapping[str, str], given: str | None) -> str:
    """The column that names the pictures: the one that is given, else one with a usual name. ValueError where there is
    none, or where it holds no names."""
    names = list(types)
    if given is not None:
        image: str | None = given_column(path, names, "image_column", given)
    else:
        image = usual_column(names, IMAGE_COLUMNS)
    if image is None:
        raise ValueError(f"{path}: which column names the pictures? Set image_column to one of {', '.join(names[:20])}")
    if "string" not in types[image]:
        raise ValueError(
            f"{path}: column {image!r} holds {types[image][:60]}, not file names; "
            "pictures kept inside a table must be written out as files or as tar shards"
        )
    return image


def given_column(path: Path, names: Sequence[str], key: str, name: str) -> str:
    """The column `name`, asked for by the field `key`. ValueError where the table has none."""
    if name not in names:
        hint = did_you_mean(name, names) or f"; it has {', '.join(names[:20])}"
        raise ValueError(f"{key}: {path} has no column {name!r}{hint}")
    return name


def usual_column(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """The column that goes by one of the `usual` names, the first of them that there is, None where there is none."""
    spelled = {name.strip().lower(): name for name in reversed(names)}
    return next((spelled[name] for name in usual if name in spelled), None)


Records = Iterator[tuple[str, dict[str, Any]]]  # where a row is, and its cells by column
Choose = Callable[[Mapping[str, str]], Collection[str]]  # {column: type of its cells} -> the columns to read


def records(path: Path, choose: Choose, bad: list[BadSample]) -> Records:
    """The rows of a CSV, TSV, JSON Lines or Parquet file. What is no row goes into `bad`; ValueError for a bad file.

    `choose` is called once, before the first row; a column's type is "string" where the file states none.
    """

    def some(types: Mapping[str, str]) -> Collection[str]:
        if not types:
            raise ValueError(f"{path}: is empty")
        return choose(types)

    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return _rows_of_text(path, some, bad)
    if suffix in (".jsonl", ".ndjson"):
        return _rows_of_json_lines(path, some, bad)
    if suffix in (".parquet", ".pq"):
        return _rows_of_parquet(path, some, bad)
    raise ValueError(f"{path}: a table's name ends in .csv, .tsv, .jsonl or .parquet")


def whole_records(path: Path, bad: list[BadSample]) -> Records:
    """The rows of a CSV or TSV, or else of JSON Lines, with all their cells. The columns of a CSV are known by their
    names in lower case. A file without a row is no mistake here."""
    if path.suffix.lower() not in TEXT_SUFFIXES:
        return json_lines(path, bad)
    rows = _rows_of_text(path, list, bad)
    return ((where, {name.strip().lower(): cell for name, cell in cells.items()}) for where, cells in rows)


def _rows_of_text(path: Path, choose: Choose, bad: list[BadSample]) -> Records:
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    with open(path, "rb") as start:
        wide = start.read(2) in (b"\xff\xfe", b"\xfe\xff")  # what a spreadsheet calls "Unicode text"
    encoding, errors = ("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")
    with open(path, encoding=encoding, errors=errors, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        header = next(reader, [])
        wanted = set(choose(dict.fromkeys(header, "string")))
        while True:
            where = f"{path}:{reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                bad.append(BadSample(where, f"not a row: {error}"))
                continue
            if len(cells) == len(header):
                yield where, {name: cell for name, cell in zip(header, cells, strict=True) if name in wanted}
            elif cells:
                why = f"{len(cells)} cells where the header has {len(header)}; quote text that holds {delimiter!r}"
                bad.append(BadSample(where, why))


def _rows_of_json_lines(path: Path, choose: Choose, bad: list[BadSample]) -> Records:
    rows = json_lines(path, bad)
    first = list(itertools.islice(rows, 100))  # not every object need have every key
    wanted = set(choose({key: "string" for _, cells in first for key in cells}))
    for where, cells in itertools.chain(first, rows):
        yield where, {name: cells.get(name) for name in wanted}


def json_lines(path: Path, bad: list[BadSample]) -> Records:
    """Where it is, and the object, for each line of the file; what is no object goes into `bad`."""
    with open(path, "rb") as file:
        for number in itertools.count(1):
            where = f"{path}:{number}"
            line = file.readline(MAX_LINE)
            if len(line) == MAX_LINE:
                raise ValueError(f"{where}: a line of more than {MAX_LINE:,} bytes; JSON Lines has one object a line")
            if not line:
                return
            try:
                cells = json.loads(line.decode("utf-8-sig", "surrogateescape")) if line.strip() else None
            except (ValueError, RecursionError) as error:
                bad.append(BadSample(where, f"not JSON: {error}"))
                continue
            if isinstance(cells, dict):
                yield where, cells
            elif cells is not None:
                bad.append(BadSample(where, "not a JSON object"))


def _rows_of_parquet(path: Path, choose: Choose, bad: list[BadSample]) -> Records:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            wanted = set(choose({field.name: str(field.type) for field in file.schema_arrow}))
            start = 1
            for part in file.iter_batches(columns=sorted(wanted)):
                for number in range(part.num_rows):
                    where = f"{path}:{start + number}"
                    try:
                        yield where, {name: part.column(name)[number].as_py() for name in wanted}
                    except UnicodeDecodeError:
                        bad.append(BadSample(where, "text is not UTF-8"))
                start += part.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {error}") from error
