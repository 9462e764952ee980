"""`voc`: boxes in the XML of PASCAL VOC, which many labelling tools write too.

Everingham et al. 2010, the Visual Object Classes challenge; its development kit says what the fields mean.
"""

import logging
import os
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from pictura.data.folders import read_picture
from pictura.data.objects import MAX_SIDE, Annotation, Objects, check_names, check_size, clean, picture_size
from pictura.data.source import (
    PICTURE_SUFFIXES,
    BadSample,
    Classes,
    Example,
    Source,
    SourceConfig,
    Strings,
    existing,
    read_file,
    shown,
    under,
)

log = logging.getLogger(__name__)

CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
           "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")  # fmt: skip
MAX_XML = 16 * 2**20  # bytes of one picture's annotations
SHOWN = 20  # classes in a message
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, kw_only=True)
class VocConfig(SourceConfig):
    """`path`: the folder with Annotations/ and JPEGImages/ in it, such as VOCdevkit/VOC2007.

    split: the pictures that ImageSets/Main/<split>.txt lists; null: all that have annotations.
    class_names: in order, or a file as `Classes.of` reads it; boxes of others are left out, and the log says how many.
    If none, VOC's twenty, or what the files name, sorted.
    """

    kind: ClassVar[str] = "voc"
    path: Path
    split: str | None = "trainval"
    class_names: list[str] | Path | None = None

    def build(self) -> "Voc":
        return Voc(self)


class Voc(Source):
    """Pictures with their boxes, in the order of the split. VOC counts pixels from 1, and the last is inside a box, so
    x0 and y0 are one less here. What it calls difficult is `crowd`."""

    provides = frozenset({"image", "boxes", "labels", "crowd"})

    def __init__(self, config: VocConfig) -> None:
        path = existing(config.path, "folder")
        self._root = os.path.realpath(existing(path / "JPEGImages", "folder"))
        notes = os.path.realpath(existing(path / "Annotations", "folder"))
        files = {name.rpartition(".")[0]: name for name in sorted(os.listdir(self._root))
                 if name.rpartition(".")[2].lower() in PICTURE_SUFFIXES}  # fmt: skip
        bad: list[BadSample] = []
        pictures: list[_Picture] = []
        for stem, where in _stems(path, notes, config.split).items():
            try:
                if stem not in files:
                    raise BadSample(where, f"no picture {stem} in JPEGImages")
                xml = under(notes, f"{stem}.xml")
                pictures.append(_picture(xml, self._root, files[stem], bad))
            except BadSample as sample:
                bad.append(sample)
        if not pictures:
            raise ValueError(f"{path}: no usable picture{f'; for example {bad[0]}' if bad else ''}")
        found = {name for picture in pictures for name, _ in picture.things}
        if config.class_names is None:
            names = check_names(path, CLASSES if found <= {*CLASSES} else sorted(found))
            classes = Classes(names, {name: label for label, name in enumerate(names)})
        else:
            classes = Classes.of(config.class_names, found)
            check_names(path, classes.names)
        self.class_names = classes.names
        self._objects = Objects()
        for picture in pictures:
            self._objects.add(clean(_named(picture, classes.index), picture.size, len(classes.names), bad))
        self.bad = bad
        others = Counter(word for picture in pictures for word, _ in picture.things if word not in classes.index)
        if others:
            some = ", ".join(f"{shown(word[:80])} ({count:,})" for word, count in others.most_common(SHOWN))
            more = f" and {len(others) - SHOWN:,} more" if len(others) > SHOWN else ""
            log.warning("%s: boxes of classes that are not among class_names are left out: %s%s", path, some, more)
        self._names = Strings(picture.name for picture in pictures)
        self._sizes = array("q", [side for picture in pictures for side in picture.size])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        key, image = read_picture(self._root, self._names[index])
        check_size(image, (self._sizes[2 * index], self._sizes[2 * index + 1]), key)
        return cast(Example, {"key": key, "image": image, **self._objects[index]})


class _Picture(NamedTuple):
    name: str
    size: tuple[int, int]
    things: list[tuple[str, Annotation]]  # class name, and the rest, without a label as yet


def _stems(path: Path, notes: str, split: str | None) -> dict[str, str]:
    """The name of each picture without its ending -> where it is listed."""
    if split is None:
        return {name[:-4]: os.path.join(notes, name) for name in sorted(os.listdir(notes)) if name.endswith(".xml")}
    lists = path / "ImageSets" / "Main"
    if not lists.is_dir():
        raise ValueError(f"{path}: has no ImageSets/Main with splits; set `split: null` to take all pictures")
    listed = existing(lists / f"{split}.txt", "file")
    lines = read_file(str(listed), str(listed)).decode("utf-8-sig", "surrogateescape").splitlines()
    stems: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if words := line.split():  # cat_train.txt and its like have 1 or -1 behind the name
            stems.setdefault(words[0], f"{listed}:{number}")
    return stems


def _picture(xml: str, root: str, name: str, bad: list[BadSample]) -> _Picture:
    tree = read_xml(read_file(xml, xml, MAX_XML), xml)
    width, height = (_number(tree, f"size/{side}") for side in ("width", "height"))
    if width >= MAX_SIDE or height >= MAX_SIDE:
        raise BadSample(xml, f"says that the picture has {width:g} x {height:g} pixels")
    if width > 0 and height > 0 and width.is_integer() and height.is_integer():
        size = int(width), int(height)
    else:  # some tools write none, or 0
        key, image = read_picture(root, name)
        size = picture_size(image, key)
    things = []
    for number, thing in enumerate(tree.iterfind("object")):
        where = f"{xml}: object[{number}]"
        word = (thing.findtext("name") or "").strip()
        x0, y0, x1, y1 = (_number(thing, f"bndbox/{corner}") for corner in _CORNERS)
        if word:
            box = (x0 - 1, y0 - 1, x1, y1)
            things.append((word, Annotation(where, box, 0, (thing.findtext("difficult") or "").strip() == "1")))
        else:
            bad.append(BadSample(where, "has no name"))
    return _Picture(name, size, things)


def _number(tree: Element, path: str) -> float:
    """The number at `path`, else NaN."""
    try:
        return float(tree.findtext(path) or "nan")
    except ValueError:
        return float("nan")


def _named(picture: _Picture, labels: Mapping[str, int]) -> list[Annotation]:
    return [thing._replace(label=labels[word]) for word, thing in picture.things if word in labels]


def read_xml(data: bytes, key: str) -> Element:
    """A stranger's XML. Entities are refused where they are declared: a few lines of them can stand for gigabytes, or
    for files of this machine."""

    def refuse(*_: Any) -> None:
        raise BadSample(key, "declares XML entities, which no annotation needs")

    tree, parser = TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = tree.start, tree.end
    parser.CharacterDataHandler, parser.EntityDeclHandler = tree.data, refuse
    try:
        parser.Parse(data, True)
        return tree.close()
    except (expat.ExpatError, ValueError, LookupError, AssertionError) as error:
        raise BadSample(key, f"not XML: {error}") from None
