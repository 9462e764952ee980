import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as peer

from pictura.data.decode import decode
from pictura.data.objects import (
    Annotation,
    Objects,
    check_names,
    check_outline,
    check_size,
    clean,
    draw_masks,
    numbers,
    picture_size,
)
from pictura.data.source import BadSample
from tests.data.files import encoded, photo

NAN, INF = float("nan"), float("inf")


def boxes(*rows: tuple[float, ...]) -> list[Annotation]:
    return [Annotation(f"a.json: annotations[{number}]", row, 0) for number, row in enumerate(rows)]


def test_boxes_are_clipped_to_the_picture() -> None:
    bad: list[BadSample] = []
    found = clean(boxes((-5, 2.5, 3, 4), (1, 1, 100, 100), (0, 0, 40, 30)), (40, 30), 1, bad)
    assert found.boxes.dtype == np.float32
    assert found.boxes.tolist() == [[0, 2.5, 3, 4], [1, 1, 40, 30], [0, 0, 40, 30]]
    assert found.kept == [0, 1, 2]
    assert not bad


def test_what_is_no_box_is_named_and_the_others_count() -> None:
    raw = boxes(
        (1, 1, 1, 5), (1, 1, 5, NAN), (-INF, 0, INF, 9), (1, 1, 2, 2), (50, 0, 60, 9), (5, 5, 2, 9), (0, -9, 9, 0)
    )
    raw += [
        Annotation("here", (0, 0, 9, 9), 2),
        Annotation("there", (0, 0, 9, 9), -1),
        Annotation("c", (1, 1, 2, 2), 1, True),
    ]
    bad: list[BadSample] = []
    found = clean(raw, (40, 30), 2, bad)
    assert found.kept == [3, 9]
    assert found.labels.tolist() == [0, 1]
    assert found.crowd.tolist() == [False, True]
    assert [str(one).removeprefix("a.json: annotations") for one in bad] == [
        "[0]: its box 1 1 1 5 has no area inside the picture of 40 x 30",
        "[1]: its box holds NaN or infinity",
        "[2]: its box holds NaN or infinity",
        "[4]: its box 50 0 60 9 has no area inside the picture of 40 x 30",
        "[5]: its box 5 5 2 9 has no area inside the picture of 40 x 30",
        "[6]: its box 0 -9 9 0 has no area inside the picture of 40 x 30",
        "here: label 2 is none of the 2 classes",
        "there: label -1 is none of the 2 classes",
    ]


def test_a_box_is_never_empty_in_float32_nor_as_a_share_of_the_picture() -> None:
    """Sides that float64 tells apart and float32 does not are no area."""
    left = 1 - 2.0 ** -np.arange(1, 40)
    for size in ((1.0, 1.0), (100_000.0, 3.0)):
        raw = boxes(*((size[0] * x, 0.0, size[0], size[1]) for x in left))
        found = clean(raw, size, 1, []).boxes
        assert 10 < len(found) < 30
        assert (found[:, 2] > found[:, 0]).all()
        scaled = (found * np.array([777, 1, 777, 1])).astype(np.float32)
        assert (scaled[:, 2] > scaled[:, 0]).all()


def test_pictures_without_boxes_stay() -> None:
    objects = Objects()
    rows = [boxes((0, 0, 1, 1), (0, 0, 2, 2)), [], boxes((0, 0, 3, 3))]
    for row in rows:
        objects.add(clean(row, (9, 9), 1, []))
    assert len(objects) == 3
    assert [objects[i]["boxes"][:, 2].tolist() for i in range(3)] == [[1, 2], [], [3]]
    empty = objects[1]
    assert {key: (value.shape, value.dtype) for key, value in empty.items()} == {
        "boxes": ((0, 4), np.float32), "labels": ((0,), np.int64), "crowd": ((0,), np.bool_)}  # fmt: skip
    assert objects[-1]["boxes"].tolist() == [[0, 0, 3, 3]]
    assert [objects.places(i) for i in range(3)] == [slice(0, 2), slice(2, 2), slice(2, 3)]
    with pytest.raises(IndexError):
        objects[3]
    objects[0]["boxes"][:] = 7
    assert objects[0]["boxes"][0, 2] == 1, "a view that flips boxes in place must not change the data"


def test_class_names_are_there_and_differ() -> None:
    assert check_names(Path("c.json"), ["dog", "cat"]) == ("dog", "cat")
    with pytest.raises(ValueError, match=r"c\.json: its list of classes is empty"):
        check_names(Path("c.json"), [])
    with pytest.raises(ValueError, match=r"c\.json: the class 'dog' is listed twice"):
        check_names(Path("c.json"), ["dog", "cat", "dog"])


def test_numbers_of_a_box() -> None:
    assert numbers([1, 2.5, 3, 4], 4, "here") == [1, 2.5, 3, 4]
    for wrong in (None, 5, "1234", [1, 2, 3], [1, 2, 3, "4"], [1, 2, 3, True], [1, 2, 3, [4]], [1, 2, 3, None], {}):
        with pytest.raises(BadSample, match="here: its box is not 4 numbers"):
            numbers(wrong, 4, "here")
    with pytest.raises(BadSample, match="beyond all measure"):
        numbers([1, 2, 3, 10**400], 4, "here")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_decoded_picture(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encoded(photo((40, 30)), form, **({} if form in ("GIF", "BMP") else {"exif": exif}))
    assert picture_size(image, "a") == decode(image).size
    check_size(image, decode(image).size, "a")
    with pytest.raises(
        BadSample, match=r"a: has (40 x 30|30 x 40) pixels upright, but its annotations are for 41 x 30"
    ):
        check_size(image, (41, 30), "a")


def test_the_size_of_what_is_no_picture() -> None:
    for damaged, said in ((b"", "empty file"), (b"<html>", "a web page"), (b"\xff\xd8\xff", "a: ")):
        with pytest.raises(BadSample, match=said):
            picture_size(damaged, "a")


def naive_runs(mask: np.ndarray[Any, Any]) -> list[int]:
    """Column by column, beginning with a run of zeros."""
    runs, last = [0], 0
    for value in mask.T.ravel().tolist():
        if value != last:
            runs.append(0)
            last = value
        runs[-1] += 1
    return runs


def test_masks_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(3)
    width, height = 53, 37
    outlines: list[Any] = []
    expected = []
    for number in range(30):
        polygons = [
            (rng.random(2 * points) * 60 - 5).round(2).tolist() for points in rng.integers(3, 9, 1 + number % 3)
        ]
        outlines.append(polygons)
        expected.append(peer.decode(peer.merge(peer.frPyObjects(polygons, height, width))))
        mask = rng.random((height, width)) < rng.random() ** 4 if number else np.ones((height, width), bool)
        packed = peer.encode(np.asfortranarray(mask.astype(np.uint8)))
        outlines += [
            {"size": [height, width], "counts": packed["counts"].decode()},
            {"size": [height, width], "counts": naive_runs(mask)},
        ]
        expected += [mask, mask]
    for outline in outlines:
        check_outline(outline, (width, height), "here")
    drawn = draw_masks(json.loads(json.dumps(outlines)), (width, height), "a")
    assert drawn.dtype == np.bool_
    assert drawn.shape == (90, height, width)
    np.testing.assert_array_equal(drawn, np.stack(expected).astype(bool))
    assert draw_masks([], (5, 4), "a").shape == (0, 4, 5)


@pytest.mark.parametrize(
    ("outline", "said"),
    [
        (None, "has no mask"),
        ([], "has no mask"),
        ({}, "has no mask"),
        ("111", "has no mask"),
        ([1, 2, 3, 4, 5, 6], "not x and y of three points"),
        ([[1, 2, 3, 4]], "not x and y of three points"),
        ([[1, 2, 3, 4, 5, 6], []], "not x and y of three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "not x and y of three points"),
        ([[1, 2, 3, 4, 5, "6"]], "not x and y of three points"),
        ([[1, 2, 3, 4, 5, None]], "not x and y of three points"),
        ([[1, 2, 3, 4, 5, [6]]], "not x and y of three points"),
        ([[1, 2, 3, 4, 5, 10**30]], "not x and y of three points"),
        ([{"counts": 1}], "not x and y of three points"),
        ([[1, 2, 3, 4, 5, NAN]], "far outside the picture, or not of numbers"),
        ([[1, 2, 3, 4, 5, -INF]], "far outside the picture, or not of numbers"),
        ([[1, 2, 3, 4, 5, 1e9]], "far outside the picture"),
        ([[0, 0, 40, 30, 0, 30] * 100_000], r"outline of its mask is 1\d,\d\d\d,\d\d\d pixels long"),
        ({"size": [40, 30], "counts": [1200]}, "not of the picture's size, 40 x 30"),
        ({"size": "big", "counts": [1200]}, "not of the picture's size"),
        ({"size": [30, 40], "counts": [1200, -5, 5]}, "not run lengths"),
        ({"size": [30, 40], "counts": [1199.0, 1]}, "not run lengths"),
        ({"size": [30, 40], "counts": {"a": 1}}, "not run lengths"),
        ({"size": [30, 40], "counts": [1201]}, "of 1,201 pixels, not 40 x 30"),
        ({"size": [30, 40], "counts": []}, "of 0 pixels"),
        ({"size": [30, 40], "counts": ""}, "not run lengths"),
        ({"size": [30, 40], "counts": "é"}, "not run lengths"),
        ({"size": [30, 40], "counts": "\ud800"}, "not run lengths"),
        ({"size": [30, 40], "counts": "P"}, "not run lengths"),  # ends where more should follow
        ({"size": [30, 40], "counts": "o" * 60 + "0"}, "not run lengths"),
        ({"size": [30, 40], "counts": "ooooo7"}, "pixels, not 40 x 30"),
    ],
)
def test_outlines_that_must_not_be_drawn(outline: Any, said: str) -> None:
    with pytest.raises(BadSample, match=f"here: .*{said}"):
        check_outline(outline, (40, 30), "here")


def test_packed_runs_are_read_as_pycocotools_reads_them() -> None:
    """What passes has exactly the picture's pixels, or code that trusts it would write beyond the mask."""
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(200):
        mask = (rng.random((30, 40)) < rng.random()).astype(np.uint8, order="F")
        text = bytearray(peer.encode(mask)["counts"])
        if rng.random() < 0.5:
            text[rng.integers(len(text))] = rng.integers(48, 112)
        outline = {"size": [30, 40], "counts": text.decode()}
        try:
            check_outline(outline, (40, 30), "here")
        except BadSample:
            assert text != peer.encode(mask)["counts"]
        else:
            passed += 1
            np.testing.assert_array_equal(draw_masks([outline], (40, 30), "a")[0], peer.decode(outline))
    assert passed >= 80


def test_many_large_masks_are_refused_before_they_are_drawn() -> None:
    tracemalloc.start()
    with pytest.raises(BadSample, match="big: 1000 masks of 4000 x 3000 pixels are too many"):
        draw_masks([[[0, 0, 1, 0, 1, 1]]] * 1000, (4000, 3000), "big")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
