import json
from pathlib import Path
from typing import Any

import pytest

from pictura.config import load
from pictura.data.nlvr2 import Nlvr2, Nlvr2Config
from pictura.data.source import BadSample, SourceConfig
from tests.data.files import jpeg, write


def row(identifier: str, label: Any = "True", **more: Any) -> dict[str, Any]:
    return {
        "validation": {"77": "True"},
        "sentence": f"There are two dogs in {identifier}.",
        "left_url": "https://example.com/left.jpg",
        "right_url": "https://example.com/right.jpg",
        "writer": "103",
        "label": label,
        "synset": "dog",
        "query": "two dogs2",
        "identifier": identifier,
    } | more


def lines(path: Path, *rows: Any) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def pair(folder: Path, stem: str, seed: int = 0) -> None:
    for side in (0, 1):
        write(folder / f"{stem}-img{side}.png", jpeg(2 * seed + side))


def build(path: Path, images: Path | list[Path] | None = None) -> Nlvr2:
    return Nlvr2Config(path=path, images=images).build()


def test_statements_about_two_pictures(tmp_path: Path) -> None:
    path = lines(tmp_path / "dev.json", row("dev-850-0-0"), row("dev-850-0-1", "False"), row("dev-8-3-1", False))
    pair(tmp_path / "dev", "dev-850-0", 1)
    pair(tmp_path / "dev", "dev-8-3", 2)
    source = load(SourceConfig, {"kind": "nlvr2", "path": str(path)}).build()
    assert source.provides == {"images", "statement", "label"}
    assert source.class_names == ("false", "true")
    assert len(source) == 3
    assert dict(source[0]) == {
        "key": "dev-850-0-0",
        "images": [jpeg(2), jpeg(3)],
        "statement": "There are two dogs in dev-850-0-0.",
        "label": 1,
    }
    assert [source[index]["label"] for index in range(3)] == [1, 0, 0]
    assert dict(source[1])["images"] == dict(source[0])["images"]
    assert dict(source[-1])["images"] == [jpeg(4), jpeg(5)]
    assert list(source.all_captions()) == [
        f"There are two dogs in {key}." for key in ("dev-850-0-0", "dev-850-0-1", "dev-8-3-1")
    ]
    assert not source.bad


@pytest.mark.parametrize("directory", ["57", 57])
@pytest.mark.parametrize("place", ["", "images", "train", "images/train"])
def test_training_pictures_lie_in_numbered_folders_or_in_one(tmp_path: Path, place: str, directory: Any) -> None:
    path = lines(tmp_path / "train.json", row("train-1-0-0", directory=directory), row("train-2-0-0", directory=8))
    pair(tmp_path / place / "57", "train-1-0", 1)
    pair(tmp_path / place, "train-2-0", 2)
    source = build(path)
    assert [dict(source[index])["images"] for index in (0, 1)] == [[jpeg(2), jpeg(3)], [jpeg(4), jpeg(5)]]


def test_the_folder_given(tmp_path: Path) -> None:
    path = lines(tmp_path / "data" / "test1.json", row("test1-0-0-0"))
    pair(tmp_path / "far" / "images" / "test1", "test1-0-0")
    assert dict(build(path, tmp_path / "far")[0])["images"] == [jpeg(0), jpeg(1)]
    assert len(build(path, [tmp_path, tmp_path / "far" / "images"])) == 1
    with pytest.raises(ValueError, match=r"no picture such as 'test1-0-0-img0\.png' in .*; set `images`"):
        build(path)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_pair_with_one_picture_missing_is_a_bad_sample(tmp_path: Path, missing: int) -> None:
    path = lines(tmp_path / "dev.json", row("dev-1-0-0"), row("dev-2-0-0"))
    pair(tmp_path, "dev-1-0")
    pair(tmp_path, "dev-2-0")
    (tmp_path / f"dev-2-0-img{missing}.png").unlink()
    source = build(path)
    assert len(dict(source[0])["images"]) == 2
    with pytest.raises(BadSample, match=rf"dev-2-0-0: no such file: dev-2-0-img{missing}\.png"):
        source[1]


def test_bad_rows_are_named(tmp_path: Path) -> None:
    rows = [
        row("dev-1-0-0"),
        row("dev-1-0-0"),
        row("../dev-1-0-0"),
        row("dev-1-0"),
        row("dev-1-0-" + "9" * 1000),
        row("dev-1-0-1") | {"identifier": 5},
        row("dev-1-0-1", "maybe"),
        row("dev-1-0-1", 1),
        row("dev-1-0-1", [["True"]]),
        row("dev-1-0-1", sentence=" "),
        row("dev-1-0-1", sentence=["x"]),
        row("dev-1-0-1", directory="../.."),
        row("dev-1-0-1", directory=10**40),
        row("dev-1-0-1", directory=True),
        row("dev-1-0-1", directory={"a": 1}),
        [1],
    ]
    path = lines(tmp_path / "dev.json", *rows)
    path.write_bytes(path.read_bytes() + b'{"identifier": \n' + b"[" * 200_000 + b"\n\n")
    pair(tmp_path, "dev-1-0")
    source = build(path)
    assert len(source) == 1
    form = "is not of the form train-10171-0-0"
    said = {int(bad.key.rpartition(":")[2]): bad.reason for bad in source.bad}
    assert said.pop(17).startswith("not JSON")
    assert said.pop(18).startswith("not JSON")
    assert said == {
        2: "identifier dev-1-0-0 is there already",
        3: f"identifier '../dev-1-0-0' {form}",
        4: f"identifier 'dev-1-0' {form}",
        5: f"identifier 'dev-1-0-{'9' * 72}' {form}",
        6: f"identifier 5 {form}",
        7: "label 'maybe' is neither True nor False",
        8: "label 1 is neither True nor False",
        9: "label a list is neither True nor False",
        10: "empty caption",
        11: "empty caption",
        12: "directory '../..' is not a number",
        13: f"directory 1{'0' * 40} is not a number",
        14: "directory True is not a number",
        15: "directory a dict is not a number",
        16: "not a JSON object",
    }


def test_a_link_that_leads_outside_is_not_followed(tmp_path: Path) -> None:
    path = lines(tmp_path / "in" / "dev.json", row("dev-1-0-0"), row("dev-2-0-0"))
    pair(tmp_path / "in", "dev-1-0")
    pair(tmp_path, "dev-2-0")
    for side in (0, 1):
        (tmp_path / "in" / f"dev-2-0-img{side}.png").symlink_to(tmp_path / f"dev-2-0-img{side}.png")
    with pytest.raises(BadSample, match=r"dev-2-0-0: .*leads outside"):
        build(path)[1]


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no usable row; NLVR2 has one JSON object a line; it is empty"):
        build(write(tmp_path / "dev.json", "\n"))
    with pytest.raises(ValueError, match=r"one JSON object a line; for example .*dev.json:1: not a JSON object"):
        build(write(tmp_path / "dev.json", json.dumps([row("dev-1-0-0")])))
    with pytest.raises(ValueError, match=r"no such file; did you mean 'dev\.json'"):
        build(tmp_path / "dev.jsn")
