import json
from pathlib import Path
from typing import Any

import pytest

from pictura.config import load
from pictura.data.coco import CocoConfig
from pictura.data.decode import decode
from pictura.data.source import BadSample, SourceConfig
from tests.data.files import jpeg, shared, write

CONTENT = {
    "images": [{"id": 7, "file_name": "7.jpg"}, {"id": 2, "file_name": "2.jpg"}],
    "annotations": [
        {"image_id": 2, "id": 1, "caption": "two"},
        {"image_id": 7, "id": 2, "caption": "seven"},
        {"image_id": 2, "id": 3, "caption": "two again"},
    ],
}


def write_json(path: Path, content: Any) -> Path:
    return write(path, json.dumps(content))


@pytest.mark.parametrize(
    ("file", "pictures"),
    [
        ("captions_train2017.json", "train2017"),
        ("annotations/captions_train2017.json", "train2017"),
        ("annotations/captions_train2017.json", "images/train2017"),
        ("captions.json", "images"),
        ("captions.json", "."),
    ],
)
def test_pictures_are_found_beside_the_file(tmp_path: Path, file: str, pictures: str) -> None:
    for number in (2, 7):
        write(tmp_path / pictures / f"{number}.jpg", jpeg(number))
    path = write_json(tmp_path / file, CONTENT)
    source = load(SourceConfig, {"kind": "coco", "path": str(path)}).build()
    assert [(example["image"], example["captions"]) for example in (source[0], source[1])] == [
        (jpeg(7), ["seven"]),
        (jpeg(2), ["two", "two again"]),
    ]
    assert len(source) == 2
    assert source.provides == {"image", "captions"}
    assert list(source.all_captions()) == ["seven", "two", "two again"]
    assert not source.bad


def test_the_folder_given(tmp_path: Path) -> None:
    write(tmp_path / "else where" / "7.jpg", jpeg(7))
    path = write_json(tmp_path / "c.json", CONTENT)
    source = CocoConfig(path=path, images=tmp_path / "else where").build()
    assert source[0]["image"] == jpeg(7)
    with pytest.raises(BadSample, match=r"2\.jpg: no such file"):
        source[1]
    with pytest.raises(ValueError, match="no such folder"):
        CocoConfig(path=path, images=tmp_path / "none").build()
    with pytest.raises(ValueError, match=r"no picture such as '7.jpg' in .*; set `images`"):
        CocoConfig(path=path).build()


def test_bad_entries_are_named(tmp_path: Path) -> None:
    images = [*CONTENT["images"], {"id": 2, "file_name": "x"}, 5, {"id": 3}, {"id": 9, "file_name": "9.jpg"}]
    annotations = [
        *CONTENT["annotations"],
        {"image_id": 99, "caption": "x"},
        {"image_id": 7, "caption": " "},
        {"image_id": 7},
        None,
    ]
    path = write_json(tmp_path / "c.json", {"images": images, "annotations": annotations})
    write(tmp_path / "7.jpg", jpeg())
    source = CocoConfig(path=path).build()
    assert len(source) == 2
    assert [str(bad).removeprefix(f"{path}: ") for bad in source.bad] == [
        "images[2]: id 2 is there already",
        "images[3]: has no id or no file_name",
        "images[4]: has no id or no file_name",
        "annotations[3]: names no picture of the file",
        "annotations[4]: empty caption",
        "annotations[5]: empty caption",
        "annotations[6]: names no picture of the file",
        "9.jpg: no caption",
    ]


def test_a_strangers_file_name_does_not_leave_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "secret.jpg", jpeg())
    write(tmp_path / "in" / "7.jpg", jpeg())
    content = CONTENT | {"images": [{"id": 7, "file_name": "7.jpg"}, {"id": 2, "file_name": "../secret.jpg"}]}
    source = CocoConfig(path=write_json(tmp_path / "in" / "c.json", content)).build()
    with pytest.raises(BadSample, match="leads outside"):
        source[1]


def test_mistakes(tmp_path: Path) -> None:
    for content, said in [
        ("{", "cannot be read as JSON"),
        ("[]", "the lists `images` and `annotations`"),
        ('{"images": {}, "annotations": []}', "the lists `images` and `annotations`"),
        ('{"images": [], "annotations": []}', "holds no captioned picture"),
    ]:
        with pytest.raises(ValueError, match=said):
            CocoConfig(path=write(tmp_path / "c.json", content)).build()


def test_the_real_format() -> None:
    folder = shared("coco-mini")
    source = CocoConfig(path=folder / "captions_train2017.json").build()
    assert len(source) == 80
    assert not source.bad
    assert sum(len(source.captions(index)) for index in range(80)) == 400
    assert decode(source[0]["image"]).size == (640, 399)
    with pytest.raises(ValueError, match=r"captions are in captions_\*\.json, not instances"):
        CocoConfig(path=folder / "instances_train2017.json").build()
