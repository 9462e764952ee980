import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pictura.config import load
from pictura.data.coco_objects import CocoObjects, CocoObjectsConfig
from pictura.data.decode import decode
from pictura.data.source import BadSample, SourceConfig
from tests.data.files import encoded, jpeg, photo, shared, write

TRIANGLE = [[1.0, 1.0, 20.0, 1.0, 20.0, 20.0]]


def picture(identity: int, **more: Any) -> dict[str, Any]:
    return {"id": identity, "file_name": f"{identity}.jpg", "width": 40, "height": 30} | more


def note(image: int, category: int, box: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, "segmentation": TRIANGLE} | more


CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}, {"id": 17, "name": "cat"}]  # holes, no order
IMAGES = [picture(7), picture(2), picture(5)]
NOTES = [
    note(2, 17, [1, 2, 10, 10], area=77.5),
    note(7, 90, [0, 0, 5, 6]),
    note(2, 3, [30, 20, 100, 100], iscrowd=1),
    note(2, 90, [4, 4, 1, 1], ignore=1),
]


def content(**more: Any) -> dict[str, Any]:
    return {"images": IMAGES, "annotations": NOTES, "categories": CATEGORIES} | more


def build(folder: Path, what: Any, name: str = "instances.json", **more: Any) -> CocoObjects:
    for number in (2, 5, 7):
        write(folder / f"{number}.jpg", jpeg(number))
    path = write(folder / name, what if isinstance(what, str) else json.dumps(what))
    source = load(SourceConfig, {"kind": "coco_objects", "path": str(path), **more}).build()
    assert isinstance(source, CocoObjects)
    return source


def said(source: CocoObjects, folder: Path) -> list[str]:
    return [str(bad).removeprefix(f"{folder / 'instances.json'}: ") for bad in source.bad]


def test_boxes_of_pictures_in_the_order_of_the_file(tmp_path: Path) -> None:
    source = build(tmp_path, content())
    assert source.provides == {"image", "boxes", "labels", "crowd"}
    assert source.class_names == ("car", "cat", "toothbrush")
    assert source.category_ids == (3, 17, 90)
    assert source.image_ids == [7, 2, 5]
    assert len(source) == 3
    assert not source.bad
    one = source[1]
    assert one["key"] == str(tmp_path / "2.jpg")
    assert one["image"] == jpeg(2)
    assert one["boxes"].tolist() == [[1, 2, 11, 12], [30, 20, 40, 30], [4, 4, 5, 5]]
    assert one["labels"].tolist() == [1, 0, 2]
    assert one["crowd"].tolist() == [False, True, True]
    assert "masks" not in one
    assert source[0]["labels"].tolist() == [2]
    assert source[-1]["boxes"].shape == (0, 4), "a picture without boxes is an example all the same"
    with pytest.raises(IndexError):
        source[3]
    ready = source.objects(1)
    assert ready["areas"].tolist() == [77.5, 10_000, 1], "the file's, else width x height"
    assert ready["size"] == (30, 40)
    np.testing.assert_array_equal(ready["boxes"], one["boxes"])
    assert (source.federated, source.frequencies, source.negatives(0).tolist()) == (False, (), [])
    copied = pickle.loads(pickle.dumps(source))
    assert copied[1]["labels"].tolist() == [1, 0, 2]


def test_pictures_without_a_box_may_be_left_out(tmp_path: Path) -> None:
    annotations = [*NOTES, note(5, 3, [1, 1, 0, 5])]
    source = build(tmp_path, content(annotations=annotations), labelled=True, masks=True)
    assert source.image_ids == [7, 2]
    assert [source[index]["labels"].tolist() for index in range(2)] == [[2], [1, 0, 2]]
    assert [len(source[index]["masks"]) for index in range(2)] == [1, 3]
    assert said(source, tmp_path) == ["annotations[4]: its box 1 1 1 6 has no area inside the picture of 40 x 30"]


def test_bad_entries_are_named_and_the_rest_counts(tmp_path: Path) -> None:
    images = [
        *IMAGES,
        picture(2),
        5,
        picture(8, width=0),
        {"id": 9, "width": 4, "height": 4},
        picture([]),
        picture(11, height="x"),
        picture(12, width=2**31),
        picture(13, height=1e30),
    ]
    annotations = [
        *NOTES,
        note(99, 3, [1, 1, 2, 2]),
        note(7, 4, [1, 1, 2, 2]),
        note(7, "car", [1, 1, 2, 2]),
        note(7, 3, [1, 1, 2]),
        note(7, 3, [1, 1, float("nan"), 2]),
        note(7, 3, [1, 1, 10**400, 2]),
        note(7, 3, [1, 1, -5, 2]),
        note(7, 3, [200, 1, 5, 2]),
        None,
        note([], 3, [1, 1, 2, 2]),
        {"image_id": 7, "category_id": 17},
        note(8, 3, [1, 1, 2, 2]),  # of a picture that is named already
        note(7.0, 17, [2, 2, 2, 2]),
    ]
    source = build(tmp_path, content(images=images, annotations=annotations))
    assert source.image_ids == [7, 2, 5]
    assert source[0]["labels"].tolist() == [2, 1]
    assert source[0]["boxes"].tolist() == [[0, 0, 5, 6], [2, 2, 4, 4]]
    assert said(source, tmp_path) == [
        "images[3]: id 2 is there already",
        "images[4]: has no whole number as id",
        "images[5]: has no width and height in pixels",
        "images[6]: has neither file_name nor coco_url",
        "images[7]: has no whole number as id",
        "images[8]: has no width and height in pixels",
        "images[9]: says that the picture has 2147483648 x 30 pixels",
        "images[10]: has no width and height in pixels",
        "annotations[4]: names no picture of the file",
        "annotations[12]: names no picture of the file",
        "annotations[13]: names no picture of the file",
        "annotations[5]: category_id 4 is no category of the file",
        "annotations[6]: category_id 'car' is no category of the file",
        "annotations[7]: its box is not 4 numbers",
        "annotations[9]: its box holds a number beyond all measure",
        "annotations[14]: its box is not 4 numbers",
        "annotations[8]: its box holds NaN or infinity",
        "annotations[10]: its box 1 1 -4 3 has no area inside the picture of 40 x 30",
        "annotations[11]: its box 200 1 205 3 has no area inside the picture of 40 x 30",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"categories": []}, "its list of classes is empty"),
        ({"categories": None}, r"COCO's boxes are in instances_\*\.json, not captions_\*\.json"),
        ({"categories": [*CATEGORIES, {"id": 1, "name": "cat "}]}, "the class 'cat' is listed twice"),
        ({"categories": [*CATEGORIES, {"id": 3, "name": "dog"}]}, r"categories\[3\]: id 3 is there already"),
        ({"categories": [{"id": "3", "name": "dog"}]}, r"categories\[0\] has no whole number as id, or no name"),
        ({"categories": [{"id": 3, "name": " "}]}, r"categories\[0\] has no whole number as id, or no name"),
        ({"categories": ["dog"]}, r"categories\[0\] has no whole number as id, or no name"),
        ({"images": []}, r"holds no picture with a usable box; for example .*annotations\[0\]: names no picture"),
        ({"annotations": []}, "holds no picture with a usable box$"),
        ({"annotations": {}}, "the lists `images` and `annotations`"),
    ],
)
def test_mistakes_in_the_whole_file(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=rf"instances\.json: .*{words}"):
        build(tmp_path, content(**change))


def test_the_file_must_speak_of_the_picture_that_is_there(tmp_path: Path) -> None:
    source = build(tmp_path, content(images=[picture(7, width=30, height=40), picture(2), picture(5)]))
    with pytest.raises(BadSample, match=r"7\.jpg: has 40 x 30 pixels upright, but its annotations are for 30 x 40"):
        source[0]
    (tmp_path / "2.jpg").unlink()
    with pytest.raises(BadSample, match=r"2\.jpg: no such file"):
        source[1]
    write(tmp_path / "5.jpg", b"<html>")
    with pytest.raises(BadSample, match=r"5\.jpg: a web page"):
        source[2]


def test_a_strangers_file_name_does_not_leave_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "secret.jpg", jpeg())
    source = build(tmp_path / "in", content(images=[picture(7), picture(2, file_name="../secret.jpg")]))
    with pytest.raises(BadSample, match="leads outside"):
        source[1]


def test_masks_beside_bad_ones(tmp_path: Path) -> None:
    """Each is left out with its box; runs of a wrong number of pixels would be written beyond the mask."""
    runs: dict[str, Any] = {"size": [30, 40], "counts": [31, 2, 28, 2, 1137]}
    notes = [
        note(7, 3, [1, 1, 2, 2]),
        note(7, 3, [1, 1, 3, 3], segmentation=runs, iscrowd=1),
        note(7, 3, [1, 1, 2, 2], segmentation=runs | {"counts": [31, 2000]}),
        note(7, 3, [1, 1, 2, 2], segmentation=[[1, 1, 1e12, 1, 5, 5]]),
        {"image_id": 7, "category_id": 3, "bbox": [1, 1, 2, 2]},
        note(7, 3, [1, 1, 0, 0]),
        note(2, 3, [1, 1, 4, 4], segmentation=[*TRIANGLE, [25, 5, 35, 5, 35, 15]]),
    ]
    source = build(tmp_path, content(annotations=notes), masks=True)
    assert source.provides == {"image", "boxes", "labels", "crowd", "masks"}
    masks = source[0]["masks"]
    assert masks.shape == (2, 30, 40)
    assert masks.dtype == np.bool_
    assert np.argwhere(masks[1]).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert 140 < masks[0].sum() < 220
    assert source[0]["boxes"].tolist() == [[1, 1, 3, 3], [1, 1, 4, 4]]
    both = source[1]["masks"][0]
    assert both[8, 33] and both[3, 15] and not both[8, 23]
    assert source[2]["masks"].shape == (0, 30, 40)
    assert [text.partition(":")[0] for text in said(source, tmp_path)] == [f"annotations[{n}]" for n in (2, 3, 4, 5)]
    without = build(tmp_path, content(annotations=notes))
    assert len(without[0]["boxes"]) == 5, "bad masks do no harm where nobody asks for them"


def lvis() -> dict[str, Any]:
    """LVIS v1 has no iscrowd and no file_name."""
    images = [
        {"id": identity, "width": 40, "height": 30, "coco_url": f"http://images.cocodataset.org/{place}/{identity}.jpg",
         "neg_category_ids": negatives, "not_exhaustive_category_ids": partial}
        for identity, place, negatives, partial in [
            (7, "train2017", [90, 3], []), (2, "val2017", [], [17, 4]), (5, "train2017", [3], [90])]
    ]  # fmt: skip
    notes = [{key: value for key, value in one.items() if key not in ("iscrowd", "ignore")} for one in NOTES]
    frequency = {90: "r", 3: "f", 17: "c"}
    categories = [category | {"frequency": frequency[category["id"]], "synset": "x.n.01"} for category in CATEGORIES]
    return {"images": images, "annotations": notes, "categories": categories}


def federated(folder: Path) -> CocoObjects:
    """LVIS's three pictures."""
    for identity, place in ((7, "train2017"), (2, "val2017"), (5, "train2017")):
        write(folder / place / f"{identity}.jpg", jpeg(identity))
    return CocoObjectsConfig(path=write(folder / "lvis_v1_val.json", json.dumps(lvis()))).build()


@pytest.mark.parametrize(
    "file", ["lvis_v1_val.json", "annotations/lvis_v1_val.json", "coco/annotations/lvis_v1_val.json"]
)
def test_lvis(tmp_path: Path, file: str) -> None:
    above = tmp_path / "coco" if file.startswith("coco") else tmp_path
    for identity, place in ((7, "train2017"), (2, "val2017"), (5, "train2017")):
        write(above / place / f"{identity}.jpg", jpeg(identity))
    path = write(tmp_path / file, json.dumps(lvis()))
    source = CocoObjectsConfig(path=path).build()
    assert [source[index]["image"] for index in range(3)] == [jpeg(7), jpeg(2), jpeg(5)]
    assert source.federated
    assert source.frequencies == ("f", "c", "r")
    assert [source.negatives(index).tolist() for index in (0, 1, 2, -1)] == [[2, 0], [], [0], [0]]
    assert [source.not_exhaustive(index).tolist() for index in range(3)] == [[], [1], [2]]
    assert [str(bad) for bad in source.bad] == [
        f"{path}: images[1]: not_exhaustive_category_ids holds what is no category"
    ]
    assert source[1]["crowd"].tolist() == [False, False, False]


def test_lvis_where_one_of_its_folders_is_given(tmp_path: Path) -> None:
    for identity in (7, 5):
        write(tmp_path / "train2017" / f"{identity}.jpg", jpeg(identity))
    path = write(tmp_path / "json" / "lvis_v1_val.json", json.dumps(lvis()))
    source = CocoObjectsConfig(path=path, images=tmp_path / "train2017").build()
    assert source[2]["image"] == jpeg(5)
    with pytest.raises(BadSample, match=r"2\.jpg: no such file"):
        source[1]
    with pytest.raises(ValueError, match=r"no picture such as '7\.jpg'"):
        CocoObjectsConfig(path=path, images=tmp_path / "json").build()
    hostile = lvis()
    hostile["images"][0]["coco_url"] = "http://x/../7.jpg"
    path = write(tmp_path / "train2017" / "annotations" / "lvis_v1_val.json", json.dumps(hostile))
    write(tmp_path / "train2017" / "annotations" / "val2017" / "2.jpg", jpeg(2))
    with pytest.raises(BadSample, match="leads outside"):
        CocoObjectsConfig(path=path).build()[0]


def test_a_picture_that_lies_on_its_side_has_the_boxes_of_the_upright_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    source = build(tmp_path, content(images=[picture(7, width=30, height=40), picture(2)]))
    write(tmp_path / "7.jpg", encoded(photo((40, 30)), "JPEG", exif=exif))
    assert decode(source[0]["image"]).size == (30, 40)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_real_format_is_what_pycocotools_reads(split: str) -> None:
    folder = shared("coco-mini")
    path = folder / f"instances_{split}2017.json"
    source, peer = CocoObjectsConfig(path=path, masks=True).build(), COCO(path)
    assert not source.bad
    assert source.image_ids == list(peer.imgs)
    assert source.category_ids == tuple(peer.getCatIds())
    assert source.class_names[0] == "person" and len(source.class_names) == 80
    assert sum(len(source.objects(index)["labels"]) for index in range(len(source))) == len(peer.anns)
    for index, identity in enumerate(source.image_ids):
        notes = peer.loadAnns(peer.getAnnIds(imgIds=identity))
        ready = source.objects(index)
        x, y, width, height = np.array([one["bbox"] for one in notes]).T
        np.testing.assert_allclose(ready["boxes"], np.stack([x, y, x + width, y + height], 1), atol=0.02)
        assert ready["areas"].tolist() == [one["area"] for one in notes]
        assert ready["crowd"].tolist() == [bool(one["iscrowd"]) for one in notes]
        assert [source.category_ids[label] for label in ready["labels"]] == [one["category_id"] for one in notes]
        if index % 4 == 0 or ready["crowd"].any():
            example = source[index]
            assert decode(example["image"]).size == ready["size"][::-1]
            np.testing.assert_array_equal(
                example["masks"], np.stack([peer.annToMask(one) for one in notes]).astype(bool)
            )


def test_no_area_is_beyond_all_measure(tmp_path: Path) -> None:
    source = build(
        tmp_path, content(annotations=[note(7, 3, [1, 1, 1e300, 1e300]), note(7, 3, [1, 1, 4, 4], area=1e30)])
    )
    assert source.objects(0)["areas"].tolist() == [1e18, 16]
