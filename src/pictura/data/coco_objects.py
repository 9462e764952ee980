"""`coco_objects`: boxes and masks in the JSON format of COCO or of LVIS v1, whose pictures are labelled for some of the
classes each; pictures in a folder.

The formats: cocodataset.org, "Data format", section 1; lvisdataset.org (Gupta et al. 2019, arXiv:1908.03195).
"""

import json
import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from pictura.data.coco import images_folder, read
from pictura.data.folders import read_picture
from pictura.data.objects import (
    MAX_SIDE,
    Annotation,
    Objects,
    check_names,
    check_outline,
    check_size,
    clean,
    draw_masks,
    numbers,
)
from pictura.data.official import brief
from pictura.data.source import BadSample, Example, Source, SourceConfig, Strings, existing

MAX_AREA = 1e18  # square pixels of one annotation


@dataclass(frozen=True, kw_only=True)
class CocoObjectsConfig(SourceConfig):
    """`path`: instances_train2017.json, lvis_v1_train.json or the like. `images`: the folder of the pictures; if not
    given, looked for beside the file, as COCO names it. `masks`: draw them too, which costs time. `labelled`: leave out
    the pictures without a box, of which COCO's own training set has a thousand."""

    kind: ClassVar[str] = "coco_objects"
    path: Path
    images: Path | None = None
    masks: bool = False
    labelled: bool = False

    def build(self) -> "CocoObjects":
        return CocoObjects(self)


class CocoObjects(Source):
    """Pictures with what is in them, in the order of the file's `images`. Labels count the categories in the order of
    their ids; `category_ids[label]` is the file's own.

    `federated`: the file is of LVIS's kind, where a picture is labelled for some classes only, and `frequencies` says
    of each class whether it is rare, common or frequent (r, c, f).
    """

    provides = frozenset({"image", "boxes", "labels", "crowd", "masks"})

    def __init__(self, config: CocoObjectsConfig) -> None:
        path, self._masks = existing(config.path, "file"), config.masks
        self.provides = type(self).provides if config.masks else type(self).provides - {"masks"}
        content = read(path, _text_of_masks if config.masks else _without_masks)
        categories = _categories(path, content)
        self.category_ids = tuple(categories)
        self.class_names = check_names(path, [category["name"] for category in categories.values()])
        labels = {category: label for label, category in enumerate(categories)}
        bad: list[BadSample] = []
        pictures = _pictures(path, content, labels, bad)
        notes = _notes(path, content, pictures, bad)
        self._objects, self._areas, outlines = Objects(), array("d"), list[str]()
        used: list[_Picture] = []
        for picture, own in zip(pictures.values(), notes, strict=True):
            if picture is None:
                continue
            raw, more = _annotations(path, content, own, picture, labels, config.masks, bad)
            found = clean(raw, picture.size, len(labels), bad)
            if found.kept or not config.labelled:
                used.append(picture)
                self._objects.add(found)
                self._areas.extend(more[number][0] for number in found.kept)
                outlines += [more[number][1] for number in found.kept]
        if not used or not len(self._areas):
            why = f"; for example {bad[0]}" if bad else ""
            raise ValueError(f"{path}: holds no picture with a usable box{why}")
        self.bad = bad
        self._outlines = Strings(outlines)
        self._ids, self._sizes = array("q", [one.id for one in used]), array("q", [s for one in used for s in one.size])
        self.federated = any(one.federated for one in used)
        frequencies = tuple(str(category.get("frequency", "")) for category in categories.values())
        self.frequencies = frequencies if self.federated and all(frequencies) else ()
        self._negatives, self._partial = _Rows([p.negatives for p in used]), _Rows([p.not_exhaustive for p in used])
        self._root, self._names = _find(path, config.images, used)

    @property
    def image_ids(self) -> list[int]:
        """The file's own number of each picture, which results are given out by."""
        return self._ids.tolist()

    def negatives(self, index: int) -> npt.NDArray[np.int64]:
        """The labels of which LVIS says that a picture surely shows none; there are none in COCO's own files."""
        return self._negatives[index]

    def not_exhaustive(self, index: int) -> npt.NDArray[np.int64]:
        """The labels of which LVIS says that a picture shows more than has a box."""
        return self._partial[index]

    def objects(self, index: int) -> dict[str, Any]:
        """`boxes`, `labels` and `crowd` of one picture without reading it, and what the official evaluation goes by:
        `areas` float64 [k] in pixels, those of the masks where the file says so, and `size` (y, x)."""
        index = range(len(self))[index]
        areas = np.array(self._areas[self._objects.places(index)], np.float64)
        return {**self._objects[index], "areas": areas, "size": self._size(index)[::-1]}

    def __len__(self) -> int:
        return len(self._objects)

    def _size(self, index: int) -> tuple[int, int]:
        return self._sizes[2 * index], self._sizes[2 * index + 1]

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        size = self._size(index)
        key, image = read_picture(self._root, self._names[index])
        check_size(image, size, key)
        example: dict[str, Any] = {"key": key, "image": image, **self._objects[index]}
        if self._masks:
            outlines = [json.loads(text) for text in self._outlines[self._objects.places(index)]]
            example["masks"] = draw_masks(outlines, size, key)
        return cast(Example, example)


class _Picture(NamedTuple):
    id: int
    name: str
    size: tuple[int, int]  # width, height
    from_url: bool
    federated: bool
    negatives: list[int]
    not_exhaustive: list[int]


class _Rows:
    """Lists of whole numbers, in one array."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self._flat, self._ends = array("q"), array("q", [0])
        for row in rows:
            self._flat.extend(row)
            self._ends.append(len(self._flat))

    def __getitem__(self, index: int) -> npt.NDArray[np.int64]:
        index = range(len(self._ends) - 1)[index]
        return np.array(self._flat[self._ends[index] : self._ends[index + 1]], np.int64)


def _without_masks(part: dict[str, Any]) -> dict[str, Any]:
    """As it is read: outlines are nearly all of such a file, and would fill the memory for nothing."""
    part.pop("segmentation", None)
    return part


def _text_of_masks(part: dict[str, Any]) -> dict[str, Any]:
    """A text takes a fifth of the memory that lists of numbers do."""
    if "segmentation" in part:
        part["segmentation"] = json.dumps(part["segmentation"], separators=(",", ":"))
    return part


def _whole(value: Any) -> int | None:
    """A whole number that an array can hold, else None; some write 7 as 7.0."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _categories(path: Path, content: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Category id -> category, in the order of ids."""
    categories: dict[int, dict[str, Any]] = {}
    listed = content.get("categories")
    if not isinstance(listed, list):
        raise ValueError(f"{path}: has no list `categories`; COCO's boxes are in instances_*.json, not captions_*.json")
    for number, category in enumerate(listed):
        identity = _whole(category.get("id")) if isinstance(category, dict) else None
        if identity is None or not isinstance(category.get("name"), str) or not category["name"].strip():
            raise ValueError(f"{path}: categories[{number}] has no whole number as id, or no name")
        if identity in categories:
            raise ValueError(f"{path}: categories[{number}]: id {identity} is there already")
        categories[identity] = category | {"name": category["name"].strip()}
    return dict(sorted(categories.items()))


def _pictures(
    path: Path, content: Mapping[str, Any], labels: Mapping[int, int], bad: list[BadSample]
) -> dict[int, _Picture | None]:
    """Image id -> picture; None where it cannot be used, so that its annotations are not each noted too."""
    pictures: dict[int, _Picture | None] = {}
    for number, image in enumerate(content["images"]):
        where = f"{path}: images[{number}]"
        identity = _whole(image.get("id")) if isinstance(image, dict) else None
        if identity is None:
            bad.append(BadSample(where, "has no whole number as id"))
        elif identity in pictures:
            bad.append(BadSample(where, f"id {identity} is there already"))
        else:
            try:
                pictures[identity] = _picture(image, identity, where, labels, bad)
            except BadSample as sample:
                bad.append(sample)
                pictures[identity] = None
    return pictures


def _picture(
    image: dict[str, Any], identity: int, where: str, labels: Mapping[int, int], bad: list[BadSample]
) -> _Picture:
    name, url = image.get("file_name"), image.get("coco_url")
    from_url = not (isinstance(name, str) and name)
    if from_url:  # LVIS: http://images.cocodataset.org/train2017/000000391895.jpg
        name = "/".join(url.rsplit("/", 2)[1:]) if isinstance(url, str) else ""
    if not name:
        raise BadSample(where, "has neither file_name nor coco_url")
    width, height = _whole(image.get("width")), _whole(image.get("height"))
    if width is None or height is None or min(width, height) < 1:
        raise BadSample(where, "has no width and height in pixels")
    if max(width, height) >= MAX_SIDE:
        raise BadSample(where, f"says that the picture has {width} x {height} pixels")
    kinds = []
    for part in ("neg_category_ids", "not_exhaustive_category_ids"):
        listed = image.get(part, [])
        ids = [_whole(one) for one in listed] if isinstance(listed, list) else [None]
        known = [labels[one] for one in ids if one is not None and one in labels]
        if len(known) < len(ids):
            bad.append(BadSample(where, f"{part} holds what is no category"))
        kinds.append(known)
    return _Picture(identity, str(name), (width, height), from_url, "neg_category_ids" in image, *kinds)


def _notes(
    path: Path, content: Mapping[str, Any], pictures: Mapping[int, Any], bad: list[BadSample]
) -> list[list[int]]:
    """The numbers of the annotations of each picture."""
    numbers: dict[int | None, list[int]] = {identity: [] for identity in pictures}
    for number, note in enumerate(content["annotations"]):
        own = numbers.get(_whole(note.get("image_id"))) if isinstance(note, dict) else None
        if own is None:
            bad.append(BadSample(f"{path}: annotations[{number}]", "names no picture of the file"))
        else:
            own.append(number)
    return list(numbers.values())


def _annotations(
    path: Path,
    content: Mapping[str, Any],
    own: list[int],
    picture: _Picture,
    labels: Mapping[int, int],
    masks: bool,
    bad: list[BadSample],
) -> tuple[list[Annotation], list[tuple[float, str]]]:
    """The annotations `own` of one picture, and the area and the outline of each."""
    raw, more = [], []
    for number in own:
        note, where = content["annotations"][number], f"{path}: annotations[{number}]"
        try:
            category = _whole(note.get("category_id"))
            if category is None or category not in labels:
                raise BadSample(where, f"category_id {brief(note.get('category_id'))} is no category of the file")
            x, y, width, height = numbers(note.get("bbox"), 4, where)
            outline = note.get("segmentation", "null")
            if masks:
                check_outline(json.loads(outline), picture.size, where)
        except BadSample as sample:
            bad.append(sample)
            continue
        crowd = bool(note.get("iscrowd")) or bool(note.get("ignore"))
        area = note.get("area")
        area = float(area) if isinstance(area, float | int) and 0 <= area < MAX_AREA else width * height
        raw.append(Annotation(where, (x, y, x + width, y + height), labels[category], crowd))
        more.append((min(area, MAX_AREA), outline if masks else ""))
    return raw, more


def _find(path: Path, given: Path | None, pictures: list[_Picture]) -> tuple[str, Strings]:
    """The real folder of the pictures, and their names in it. LVIS says train2017/ or val2017/ before each name (some
    of its own val are COCO's train); where one such folder itself is given, the names alone count."""
    names = Strings(picture.name for picture in pictures)
    step = max(1, len(names) // 16)
    if not any(picture.from_url for picture in pictures):
        return os.path.realpath(images_folder(path, given, names[::step])), names
    try:
        return os.path.realpath(images_folder(path, given, names[::step], ("..", "../.."))), names
    except ValueError:
        alone = Strings(os.path.basename(name) for name in names)
        return os.path.realpath(images_folder(path, given, alone[::step])), alone
