import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pictura.config import load
from pictura.data.source import BadSample, SourceConfig
from pictura.data.winoground import Winoground, WinogroundConfig
from tests.data.files import jpeg, write


def row(number: int, **more: Any) -> dict[str, Any]:
    """One line of examples.jsonl."""
    return {
        "id": number,
        "image_0": f"ex_{number}_img_0",
        "image_1": f"ex_{number}_img_1",
        "caption_0": f"an old person kisses a young person {number}",
        "caption_1": f"a young person kisses an old person {number}",
        "tag": "Adjective-Age",
        "secondary_tag": "",
        "num_main_preds": 1,
        "collapsed_tag": "Object",
    } | more


def lines(path: Path, *rows: Any) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def pictures(folder: Path, *numbers: int, suffix: str = ".png") -> None:
    for number in numbers:
        for side in (0, 1):
            write(folder / f"ex_{number}_img_{side}{suffix}", jpeg(2 * number + side))


def build(path: Path, images: Path | list[Path] | None = None) -> Winoground:
    return WinogroundConfig(path=path, images=images).build()


def test_two_examples_for_each_row(tmp_path: Path) -> None:
    path = lines(tmp_path / "examples.jsonl", row(0), row(7, collapsed_tag="Relation"))
    pictures(tmp_path / "images", 0, 7)
    source = load(SourceConfig, {"kind": "winoground", "path": str(path)}).build()
    assert source.provides == {"image", "choices", "answer", "pair", "choice_kind"}
    assert len(source) == 4 and not source.bad
    examples = [dict(source[index]) for index in range(4)]
    assert [one["image"] for one in examples] == [jpeg(0), jpeg(1), jpeg(14), jpeg(15)]
    assert [one["answer"] for one in examples] == [0, 1, 0, 1]
    assert [one["pair"] for one in examples] == [0, 0, 1, 1]
    assert [one["choice_kind"] for one in examples] == ["Object", "Object", "Relation", "Relation"]
    assert examples[0]["choices"] == examples[1]["choices"] == [row(0)["caption_0"], row(0)["caption_1"]]
    assert examples[3]["key"] == str(tmp_path / "images" / "ex_7_img_1.png")
    assert dict(source[-1]) == examples[3]
    assert list(source.all_captions()) == [row(n)[f"caption_{i}"] for n in (0, 7) for i in (0, 1)]


def test_a_csv_without_tags_and_with_suffixes(tmp_path: Path) -> None:
    rows = [row(n, image_0=f"ex_{n}_img_0.jpg", image_1=f"ex_{n}_img_1.jpg") for n in (1, 2)]
    names = ["image_0", "image_1", "caption_0", "caption_1"]
    with open(tmp_path / "examples.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[name.upper() for name in names], *([one[name] for name in names] for one in rows)])
    pictures(tmp_path / "far", 1, 2, suffix=".jpg")
    source = build(tmp_path / "examples.csv", tmp_path / "far")
    assert source.provides == {"image", "choices", "answer", "pair"}
    assert dict(source[3]) == {
        "key": str(tmp_path / "far" / "ex_2_img_1.jpg"),
        "image": jpeg(5),
        "choices": [rows[1]["caption_0"], rows[1]["caption_1"]],
        "answer": 1,
        "pair": 1,
    }


def test_a_missing_picture_is_a_bad_sample_and_its_neighbour_is_not(tmp_path: Path) -> None:
    path = lines(tmp_path / "examples.jsonl", row(0), row(1))
    pictures(tmp_path, 0, 1)
    (tmp_path / "ex_1_img_0.png").unlink()
    source = build(path)
    with pytest.raises(BadSample, match=r"ex_1_img_0: no such file: ex_1_img_0\.png"):
        source[2]
    assert source[3]["image"] == jpeg(3)


def test_bad_rows_are_named(tmp_path: Path) -> None:
    rows = [
        row(0),
        row(1, image_1=None),
        row(1, image_0=" "),
        row(1, caption_0=["x"]),
        row(1, caption_1=" "),
        row(1, caption_1=row(1)["caption_0"]),
        row(1, image_1="ex_1_img_0"),
        row(1, image_1="/etc/passwd"),
        row(1, collapsed_tag=[]),
        [row(1)],
    ]
    pictures(tmp_path, 0, 1)
    source = build(lines(tmp_path / "examples.jsonl", *rows))
    assert len(source) == 2
    assert [bad.reason for bad in source.bad] == [
        "image_0 and image_1 do not name two pictures",
        "image_0 and image_1 do not name two pictures",
        "caption_0 and caption_1: a list is not a sentence",
        "empty caption",
        "both captions are the same",
        "both pictures are the same",
        "'/etc/passwd' leads outside the pictures' folder",
        "kind a list is not a short name",
        "not a JSON object",
    ]
    assert [bad.key.rpartition(":")[2] for bad in source.bad] == [str(n) for n in range(2, 11)]


def test_a_name_that_leads_outside_is_not_followed(tmp_path: Path) -> None:
    path = lines(tmp_path / "in" / "examples.jsonl", row(0), row(1, image_0="../secret"))
    pictures(tmp_path / "in", 0, 1)
    write(tmp_path / "secret.png", jpeg(9))
    with pytest.raises(BadSample, match="leads outside"):
        build(path, tmp_path / "in")[2]


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no usable row; Winoground has one JSON object a line; it is empty"):
        build(write(tmp_path / "examples.jsonl", "\n"))
    with pytest.raises(ValueError, match=r"for example .*examples\.jsonl:1: not a JSON object"):
        build(write(tmp_path / "examples.jsonl", json.dumps([row(0)])))
    with pytest.raises(ValueError, match=r"no picture such as 'ex_0_img_0\.png' in .*; set `images`"):
        build(lines(tmp_path / "examples.jsonl", row(0)))
    with pytest.raises(ValueError, match=r"no such file; did you mean 'examples\.jsonl'"):
        build(tmp_path / "example.jsonl")
