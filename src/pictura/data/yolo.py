"""`yolo`: boxes or polygons in a text file beside or parallel to each picture, with a data.yaml above them, as
Ultralytics and most labelling tools write it. The format: docs.ultralytics.com/datasets/detect and /segment."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import yaml

from pictura.data.folders import pictures_under, read_picture
from pictura.data.objects import Annotation, Objects, check_names, check_outline, clean, draw_masks, picture_size
from pictura.data.official import brief
from pictura.data.source import (
    PICTURE_SUFFIXES,
    BadSample,
    Example,
    Source,
    SourceConfig,
    Strings,
    did_you_mean,
    existing,
    read_file,
    shown,
    under,
)

MAX_YAML = 2**20  # bytes of data.yaml
MAX_TEXT = 64 * 2**20  # bytes of a list of pictures, or of one picture's labels
SLACK = 0.01  # how far outside the picture a point may be drawn
_SETTINGS = ("path", "names", "nc", "download")


@dataclass(frozen=True, kw_only=True)
class YoloConfig(SourceConfig):
    """`path`: data.yaml. `split`: train, val or another that it names. `masks`: draw them too, of rows with polygons.
    `root`: the folder that its paths count from, if not what it says itself or the folder that it lies in."""

    kind: ClassVar[str] = "yolo"
    path: Path
    split: str = "train"
    root: Path | None = None
    masks: bool = False

    def build(self) -> "Yolo":
        return Yolo(self)


class Yolo(Source):
    """Pictures with what is in them; one without a label file shows nothing, as Ultralytics has it. Rows are `class
    x y width height` (of the centre) or `class x y x y x y …`, as shares of the picture's sides. `category_ids[label]`
    is the class that the rows name."""

    provides = frozenset({"image", "boxes", "labels", "crowd", "masks"})

    def __init__(self, config: YoloConfig) -> None:
        path, self._masks = existing(config.path, "file"), config.masks
        self.provides = type(self).provides if config.masks else type(self).provides - {"masks"}
        content = _yaml(path)
        classes = _classes(path, content.get("names"))
        self.category_ids, self.class_names = tuple(classes), check_names(path, list(classes.values()))
        labels = {number: label for label, number in enumerate(classes)}
        bad: list[BadSample] = []
        self._root, names = _pictures(path, content, config, bad)
        self._objects, outlines, used, files = Objects(), list[str](), list[str](), 0
        for name in names:
            try:
                file, text = _labels(self._root, name)
            except BadSample as sample:
                bad.append(sample)
                continue
            files += bool(file)
            rows = list(_rows(file, text, labels, config.masks, bad))
            found = clean([row for row, _ in rows], (1, 1), len(labels), bad)
            used.append(name)
            self._objects.add(found)
            outlines += [rows[number][1] for number in found.kept]
        if not files:
            why = f"for example {bad[0]}" if bad else "labels/ is looked for where images/ is, and beside the pictures"
            raise ValueError(f"{path}: no label file for any of {len(names):,} pictures of {config.split}; {why}")
        self.bad, self._names, self._outlines = bad, Strings(used), Strings(outlines)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        key, image = read_picture(self._root, self._names[index])
        size = width, height = picture_size(image, key)
        example: dict[str, Any] = {"key": key, "image": image, **self._objects[index]}
        scale = np.array([width, height, width, height], np.float64)
        example["boxes"] = (example["boxes"] * scale).astype(np.float32)
        if self._masks:
            texts = self._outlines[self._objects.places(index)]
            outlines = [[(np.array(text.split(), np.float64).reshape(-1, 2) * size).ravel().tolist()] for text in texts]
            for outline in outlines:
                check_outline(outline, size, key)
            example["masks"] = draw_masks(outlines, size, key)
        return cast(Example, example)


def _yaml(path: Path) -> dict[Any, Any]:
    try:
        text = read_file(str(path), path.name, MAX_YAML)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("it has aliases (*name), a few of which can stand for gigabytes; write them out")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, BadSample, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: should be a data.yaml with `train`, `val` and `names`")
    if "kpt_shape" in content:
        raise ValueError(f"{path}: is of key points (kpt_shape), which are not read; its rows are no boxes")
    return content


def _classes(path: Path, names: Any) -> dict[int, str]:
    """Number -> name, in order, of a list or of an object with numbers as keys."""
    if not isinstance(names, list | dict):
        raise ValueError(f"{path}: has no `names`, a list of the classes, or an object of number: name")
    classes: dict[int, str] = {}
    for number, name in enumerate(names) if isinstance(names, list) else names.items():
        if isinstance(number, bool) or not (
            isinstance(number, int) or (isinstance(number, str) and number.isdecimal() and len(number) < 10)
        ):
            raise ValueError(f"{path}: names: {brief(number)} is not the number of a class")
        if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
            raise ValueError(f"{path}: names: class {number} is called {brief(name)}; put it in quotes")
        if int(number) in classes:
            raise ValueError(f"{path}: names: class {number} is there already")
        classes[int(number)] = str(name).strip()
    return dict(sorted(classes.items()))


def _pictures(path: Path, content: dict[Any, Any], config: YoloConfig, bad: list[BadSample]) -> tuple[str, list[str]]:
    """The real root, and the pictures of the split relative to it: of folders, and of lists in .txt files."""
    given = content.get(config.split)
    listed = given if isinstance(given, list) else [given]
    places = [place for place in listed if isinstance(place, str) and place]
    if not places or len(places) < len(listed):
        splits = [name for name in content if isinstance(name, str) and name not in _SETTINGS]
        raise ValueError(f"{path}: names no pictures of {config.split!r}{did_you_mean(config.split, splits)}")
    tried = []
    for root in _roots(path, content.get("path"), config.root):
        found = [there for place in places if (there := _place(root, place)) is not None]
        if len(found) == len(places):
            names = [name for there in found for name in _listed(root, there, bad)]
            if not names:
                raise ValueError(f"{path}: no picture in {', '.join(found)}")
            return root, list(dict.fromkeys(names))
        tried.append(root)
    looked = ", ".join(tried)
    raise ValueError(
        f"{path}: no {' or '.join(places)} in {looked}; set `root` to the folder that its paths count from"
    )


def _roots(path: Path, said: Any, given: Path | None) -> Iterator[str]:
    """Where the paths may count from: what the user says; else what the file says, if it is there; else its folder."""
    if given is not None:
        yield os.path.realpath(existing(given, "folder"))
        return
    beside = os.path.realpath(path.parent)
    if isinstance(said, str) and said:
        with suppress(BadSample):  # Ultralytics' own files say ../datasets/…, of a folder that its settings name
            yield os.path.realpath(under(beside, said))
    yield beside


def _place(root: str, name: str) -> str | None:
    """A folder or a list that the file names, if it is there. ../train/images, as Roboflow writes, is meant within."""
    for spelling in (name, name.removeprefix("../")):
        try:
            place = under(root, spelling)
        except BadSample:
            continue
        if os.path.exists(place):
            return place
    return None


def _listed(root: str, place: str, bad: list[BadSample]) -> Iterator[str]:
    """The pictures of one folder or list: names relative to `root`, or absolute where the file itself leads out."""
    inside = place == root or place.startswith(root.rstrip(os.sep) + os.sep)
    base = root if inside else place if os.path.isdir(place) else os.path.dirname(place)
    if os.path.isdir(place):
        names = pictures_under(base, os.path.relpath(place, base), outside_links=False)
        yield from (os.path.normpath(name if inside else os.path.join(base, name)) for name in names)
        return
    above = os.path.relpath(os.path.dirname(place), base)
    lines = read_file(place, place, MAX_TEXT).decode("utf-8-sig", "surrogateescape").splitlines()
    for number, line in enumerate(lines, 1):
        if not (name := line.strip()):
            continue
        try:
            if name.rpartition(".")[2].lower() not in PICTURE_SUFFIXES:
                raise BadSample(name, "is not a picture")
            if "://" in name:
                raise BadSample(name, "is a web address, not a file; download the pictures first")
            name = os.path.normpath(os.path.join(above, name))
            real = under(base, name)
            yield name if inside else real
        except BadSample as sample:
            bad.append(BadSample(f"{place}:{number}", str(sample)))


def _labels(root: str, name: str) -> tuple[str, str]:
    """The label file of a picture and what is in it; nothing where there is none."""
    stem = os.path.splitext(name)[0]
    before, images, after = f"/{stem}".rpartition("/images/")
    parallel = [f"{before}/labels/{after}.txt".removeprefix("/")] if images else []
    for spelling in (*parallel, f"{stem}.txt"):
        file = under(root, spelling)
        if os.path.isfile(file):
            return shown(file), read_file(file, shown(file), MAX_TEXT).decode("utf-8-sig", "replace")
    return "", ""


def _rows(
    file: str, text: str, labels: dict[int, int], masks: bool, bad: list[BadSample]
) -> Iterator[tuple[Annotation, str]]:
    """The usable rows of a label file, boxes as shares of the picture's sides, each with the text of its polygon."""
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{file}:{number}"
        first, *rest = line.split() or [""]
        if not first:
            continue
        try:
            values, category = _values(first, rest, where)
            if category not in labels:
                raise BadSample(where, f"class {first[:20]} is not among `names`")
            if masks and len(rest) == 4:
                raise BadSample(where, "is a box without a polygon, and masks are asked for")
        except BadSample as sample:
            bad.append(sample)
            continue
        if len(values) == 4:
            x, y, width, height = values
            box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        else:
            xs, ys = values[::2], values[1::2]
            box = [min(xs), min(ys), max(xs), max(ys)]
        yield Annotation(where, box, labels[category]), " ".join(rest) if masks else ""


def _values(first: str, rest: list[str], where: str) -> tuple[list[float], int]:
    try:
        category, values = float(first), [float(word) for word in rest]
    except ValueError:
        raise BadSample(where, "holds what is no number") from None
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        columns = "class x y width height, or class and x y of three points or more"
        raise BadSample(where, f"has {1 + len(values)} columns; a row is {columns}")
    if not all(-SLACK <= value <= 1 + SLACK for value in values):  # NaN too
        raise BadSample(where, "is not of shares of the picture's sides, 0 … 1")
    if not math.isfinite(category) or not category.is_integer():
        raise BadSample(where, f"class {first[:20]} is not a whole number")
    return values, int(category)
