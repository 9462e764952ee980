"""What the readers of detection data share: raw annotations become clean boxes, outlines become masks. As with COCO
(Lin et al. 2014), one that cannot be used is noted by file and place, and the others of its picture count all the same.
"""

import io
import warnings
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pictura.data.decode import FORMATS, decode
from pictura.data.source import BadSample

Size = tuple[float, float]  # width, height
LEAST = 1e-6  # of the picture's side: a narrower box has no area, and float32 would not tell its sides apart
MAX_SIDE = 2**31  # pixels; no picture is as long or as high
MAX_MASKS = 2**31  # bytes of one picture's masks
MAX_OUTLINE = (
    4_000_000  # pixels along one annotation's outline, each of which drawing remembers about twenty times over
)
_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)  # the EXIF tag; where it swaps width and height


class Annotation(NamedTuple):
    """One raw annotation, and where it stands, for a person."""

    where: str
    box: Sequence[float]  # x0 y0 x1 y1 in pixels, any numbers
    label: int
    crowd: bool = False


class Clean(NamedTuple):
    """What is left of a picture's annotations; `kept` says which."""

    boxes: npt.NDArray[np.float32]  # [k 4] x0 y0 x1 y1, inside the picture, x1 > x0, y1 > y0
    labels: npt.NDArray[np.int64]  # [k]
    crowd: npt.NDArray[np.bool_]  # [k]
    kept: list[int]


def clean(annotations: Sequence[Annotation], size: Size, classes: int, bad: list[BadSample]) -> Clean:
    """One picture's annotations, clipped to its `size`. Those without a finite box, an area inside the picture or one
    of the labels 0 to `classes` - 1 go into `bad`."""
    boxes = np.array([one.box for one in annotations], np.float64).reshape(-1, 4)
    finite = np.all(np.isfinite(boxes), axis=1)
    inside = boxes.clip(0, [*size, *size])
    roomy = (inside[:, 2:] - inside[:, :2] > LEAST * np.array(size)).all(1)
    kept: list[int] = []
    for number, one in enumerate(annotations):
        if not 0 <= one.label < classes:
            bad.append(BadSample(one.where, f"label {one.label} is none of the {classes} classes"))
        elif not finite[number]:
            bad.append(BadSample(one.where, "its box holds NaN or infinity"))
        elif not roomy[number]:
            corners, sides = " ".join(f"{side:g}" for side in one.box), " x ".join(f"{side:g}" for side in size)
            bad.append(BadSample(one.where, f"its box {corners} has no area inside the picture of {sides}"))
        else:
            kept.append(number)
    labels = np.array([annotations[number].label for number in kept], np.int64)
    crowd = np.array([annotations[number].crowd for number in kept], np.bool_)
    return Clean(inside[kept].astype(np.float32), labels, crowd, kept)


class Objects:
    """All boxes of a data set, picture after picture, in one array of each thing: a Python object for each box would be
    copied into every worker (see `Strings`)."""

    def __init__(self) -> None:
        self._boxes, self._labels, self._crowd, self._ends = array("f"), array("q"), array("b"), array("q", [0])

    def add(self, picture: Clean) -> None:
        self._boxes.frombytes(picture.boxes.tobytes())
        self._labels.frombytes(picture.labels.tobytes())
        self._crowd.frombytes(picture.crowd.tobytes())
        self._ends.append(len(self._labels))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[Any]]:
        """`boxes`, `labels` and `crowd` of one picture."""
        there = self.places(index)
        boxes = np.array(self._boxes[4 * there.start : 4 * there.stop], np.float32).reshape(-1, 4)
        labels, crowd = np.array(self._labels[there], np.int64), np.array(self._crowd[there], np.bool_)
        return {"boxes": boxes, "labels": labels, "crowd": crowd}

    def places(self, index: int) -> slice:
        """Where the boxes of one picture are among all that have been added."""
        index = range(len(self))[index]
        return slice(self._ends[index], self._ends[index + 1])


def check_names(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The class names that the file `path` gives; ValueError where there is none, or one is there twice."""
    if not names:
        raise ValueError(f"{path}: its list of classes is empty")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{path}: the class {name!r} is listed twice; give one of them another name")
        seen.add(name)
    return tuple(names)


def numbers(values: Any, count: int, where: str) -> list[float]:
    """`values`, where it is a list of that many numbers, else `BadSample`."""
    if not isinstance(values, list) or len(values) != count or not {int, float}.issuperset(map(type, values)):
        raise BadSample(where, f"its box is not {count} numbers")
    try:
        return [float(value) for value in values]
    except OverflowError:
        raise BadSample(where, "its box holds a number beyond all measure") from None


def picture_size(image: bytes, key: str) -> tuple[int, int]:
    """(width, height) of the picture as `decode` gives it, upright, but from its header alone."""
    try:
        Image.init()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            with Image.open(io.BytesIO(image), formats=[name for name in FORMATS if name in Image.OPEN]) as opened:
                lying = opened.info.get("exif") and opened.getexif().get(_ORIENTATION) in _LYING
                return opened.size[::-1] if lying else opened.size
    except Exception:  # noqa: BLE001  (as many types as there are damaged files; `decode` has words for them)
        return decode(image, key=key).size


def check_size(image: bytes, size: tuple[int, int], key: str) -> None:
    """`BadSample` where a picture is not of the size that its boxes were drawn for."""
    if (found := picture_size(image, key)) != size:
        has, said = f"{found[0]} x {found[1]}", f"{size[0]} x {size[1]}"
        raise BadSample(key, f"has {has} pixels upright, but its annotations are for {said}")


def check_outline(outline: Any, size: tuple[int, int], where: str) -> None:
    """`BadSample` for what `draw_masks` must not be given: neither polygons (lists of x y x y …) nor run lengths
    ({"size": [y, x], "counts": a list or packed text}), or beyond all bounds. The code that draws trusts them."""
    if isinstance(outline, list) and outline:
        _check_polygons(outline, size, where)
    elif isinstance(outline, dict) and "counts" in outline:
        width, height = size
        if outline.get("size") != [height, width]:
            raise BadSample(where, f"its mask is not of the picture's size, {width} x {height}")
        counts = outline["counts"]
        runs = _unpacked(counts) if isinstance(counts, str) else counts
        if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
            raise BadSample(where, "its mask's counts are not run lengths")
        if sum(runs) != width * height:
            raise BadSample(where, f"its mask's run lengths are of {sum(runs):,} pixels, not {width} x {height}")
    else:
        raise BadSample(where, "has no mask, neither polygons nor run lengths")


def _check_polygons(polygons: list[Any], size: tuple[int, int], where: str) -> None:
    along = 0.0
    for polygon in polygons:
        try:
            points = np.array(polygon if isinstance(polygon, list) else None)
        except ValueError:  # lists in lists
            points = np.array(None)
        if points.dtype.kind not in "if" or points.ndim != 1 or len(points) < 6 or len(points) % 2:
            raise BadSample(where, "a polygon of its mask is not x and y of three points or more")
        points = points.reshape(-1, 2).astype(np.float64)
        if not (np.isfinite(points) & (abs(points) <= 4.0 * np.array(size))).all():
            raise BadSample(where, "a polygon of its mask is far outside the picture, or not of numbers")
        along += float(abs(points - np.roll(points, 1, 0)).sum())
    if along > MAX_OUTLINE:
        raise BadSample(where, f"the outline of its mask is {along:,.0f} pixels long")


def _unpacked(text: str) -> list[int] | None:
    """The run lengths in COCO's packed text, None where it is none: each run is the difference from the last but one
    (from the fourth on), in characters of five bits and a sixth that says whether more follow."""
    codes = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > 8:  # 2⁴⁰ pixels
        return None
    shifts = 5 * (np.arange(len(codes)) - np.repeat(first, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, first)
    runs -= np.where(codes[last] & 16, 1 << (5 * lengths), 0)
    for start in (1, 2):
        runs[start::2] = np.cumsum(runs[start::2])
    return list(runs.tolist())


def draw_masks(outlines: Iterable[Any], size: tuple[int, int], key: str) -> npt.NDArray[np.bool_]:
    """Outlines of a picture, as `check_outline` lets them pass -> bool [k y x], drawn by the field's own code."""
    from faster_coco_eval.core import mask

    outlines, (width, height) = list(outlines), size
    if len(outlines) * width * height > MAX_MASKS:
        raise BadSample(key, f"{len(outlines)} masks of {width} x {height} pixels are too many to hold")
    masks = np.zeros((len(outlines), height, width), np.bool_)
    for outline, drawn in zip(outlines, masks, strict=True):
        if isinstance(outline, list):
            packed = mask.merge(mask.frPyObjects(outline, height, width))
        else:
            packed = outline if isinstance(outline["counts"], str) else mask.frPyObjects(outline, height, width)
        drawn[:] = mask.decode(packed)
    return masks
