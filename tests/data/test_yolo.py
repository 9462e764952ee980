import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pictura.config import load
from pictura.data.source import BadSample, SourceConfig
from pictura.data.yolo import Yolo, YoloConfig
from tests.data.files import encoded, jpeg, photo, write

NAMES = "names:\n  0: dog\n  1: cat\n"


def write_yolo(folder: Path, rows: dict[str, str | None], yaml: str = f"train: images/train\n{NAMES}") -> Path:
    """`rows`: the picture's place -> the text of its label file, in labels/ where it lies in images/."""
    for number, (name, text) in enumerate(rows.items()):
        write(folder / name, jpeg(number))
        if text is not None:
            write(folder / name.replace("images/", "labels/").replace(".jpg", ".txt"), text)
    return write(folder / "data.yaml", yaml)


def reasons(source: Yolo, folder: Path) -> list[str]:
    return [str(bad).removeprefix(f"{folder.resolve()}/") for bad in source.bad]


def test_boxes_in_pixels(tmp_path: Path) -> None:
    path = write_yolo(
        tmp_path,
        {
            "images/train/a.jpg": "1 0.5 0.5 0.5 0.2\n0 0.25 0.1 0.5 0.4\n",
            "images/train/deep/b.jpg": None,
            "images/train/c.jpg": "\n",
        },
    )
    source = load(SourceConfig, {"kind": "yolo", "path": str(path)}).build()
    assert source.provides == {"image", "boxes", "labels", "crowd"}
    assert source.class_names == ("dog", "cat")
    assert not source.bad
    one = source[0]
    assert one["key"] == str(tmp_path / "images/train/a.jpg")
    assert one["image"] == jpeg(0)
    np.testing.assert_allclose(one["boxes"], [[10, 12, 30, 18], [0, 0, 20, 9]], atol=1e-5)
    assert one["boxes"].dtype == np.float32
    assert one["labels"].tolist() == [1, 0]
    assert one["crowd"].tolist() == [False, False]
    assert [source[index]["boxes"].shape for index in (1, 2)] == [(0, 4), (0, 4)], "nothing is in them, which is said"
    assert len(source) == 3
    with pytest.raises(IndexError):
        source[3]


@pytest.mark.parametrize(
    ("yaml", "pictures", "labels"),
    [
        ("train: images/train", "images/train", "labels/train"),
        ("path: .\ntrain: [images/train]", "images/train", "images/train"),
        ("path: ../datasets/coco8\ntrain: images/train", "images/train", "labels/train"),  # as Ultralytics writes it
        ("path: /on/another/machine\ntrain: images/train", "images/train", "labels/train"),
        ("path: inner\ntrain: images", "inner/images", "inner/labels"),
        ("train: ../train/images", "train/images", "train/labels"),  # as Roboflow writes it
        ("train: list.txt", "images/train", "labels/train"),
        ("train: lists/list.txt", "images/train", "labels/train"),
        ("train: .", "my images", "my images"),
        ("train: images/a/images", "images/a/images", "images/a/labels"),
    ],
)
def test_where_pictures_and_labels_lie(tmp_path: Path, yaml: str, pictures: str, labels: str) -> None:
    folder = tmp_path / "set"
    write(folder / pictures / "a.jpg", jpeg(4))
    write(folder / labels / "a.txt", "1 0.5 0.5 1 1")
    write(folder / "list.txt", "./images/train/a.jpg\n\nimages/train/a.jpg\n")
    write(folder / "lists" / "list.txt", "../images/train/a.jpg\n")
    source = YoloConfig(path=write(folder / "data.yaml", f"{yaml}\nnc: 2\nnames: ['dog', 'cat']\n")).build()
    assert [source[index]["image"] for index in range(len(source))] == [jpeg(4)]
    assert source[0]["boxes"].tolist() == [[0, 0, 40, 30]]
    assert source[0]["labels"].tolist() == [1]
    assert not source.bad


def test_a_root_that_the_user_names(tmp_path: Path) -> None:
    write_yolo(tmp_path / "data", {"images/val/a.jpg": "0 0.5 0.5 1 1"})
    path = write(tmp_path / "yaml" / "coco.yaml", f"path: coco\nval: images/val\n{NAMES}")
    with pytest.raises(ValueError, match=r"no images/val in .*coco, .*yaml; set `root`"):
        YoloConfig(path=path, split="val").build()
    assert len(YoloConfig(path=path, split="val", root=tmp_path / "data").build()) == 1
    given = write(tmp_path / "yaml" / "absolute.yaml", f"path: {tmp_path / 'data'}\nval: images/val\n{NAMES}")
    assert YoloConfig(path=given, split="val").build()[0]["boxes"].tolist() == [[0, 0, 40, 30]]
    given = write(tmp_path / "yaml" / "absolute.yaml", f"val: {tmp_path / 'data/images'}\n{NAMES}")
    write(tmp_path / "data" / "images" / "val" / "a.txt", "1 0.5 0.5 1 1")
    assert YoloConfig(path=given, split="val").build()[0]["image"] == jpeg(0)


def test_nothing_leads_outside(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"images/train/secret.jpg": "0 0.5 0.5 1 1", "secret.jpg": "0 0.5 0.5 1 1"})
    inside = tmp_path / "in"
    rows: dict[str, str | None] = {"images/train/a.jpg": "0 0.5 0.5 1 1", "images/train/b.jpg": None}
    path = write_yolo(inside, rows)
    (inside / "labels" / "train" / "b.txt").symlink_to(tmp_path / "secret.txt")
    source = YoloConfig(path=path).build()
    assert len(source) == 1
    assert "b.txt: leads outside" in reasons(source, inside)[0]
    write(inside / "list.txt", "images/train/a.jpg\n../secret.jpg\nhttp://x.invalid/a.jpg\na\x00.jpg\nnotes.pdf\n")
    listed = YoloConfig(path=write(inside / "data.yaml", f"train: list.txt\n{NAMES}")).build()
    assert len(listed) == 1
    assert [text.partition(": ")[0] for text in reasons(listed, inside)] == [f"list.txt:{n}" for n in (2, 3, 4, 5)]
    for outside in ("..", "../../images", "images/../../secret"):
        with pytest.raises(ValueError, match="set `root`"):
            YoloConfig(path=write(inside / "data.yaml", f"train: {outside}\n{NAMES}")).build()
    elsewhere = write(tmp_path / "lists" / "list.txt", "a.jpg\n../secret.jpg\n")
    write(tmp_path / "lists" / "a.jpg", jpeg(9))
    write(tmp_path / "lists" / "a.txt", "1 0.5 0.5 1 1")
    absolute = YoloConfig(path=write(inside / "data.yaml", f"train: {elsewhere}\n{NAMES}")).build()
    assert [absolute[index]["image"] for index in range(len(absolute))] == [jpeg(9)]
    assert "leads outside" in str(absolute.bad[0])


def test_bad_rows_are_named_by_file_and_line(tmp_path: Path) -> None:
    rows = [
        "0 0.5 0.5 1.001 1",
        "",
        "0 0.5 0.5 0.2",
        "0 0.5 0.5 0.2 0.2 0.9",
        "2 0.5 0.5 0.2 0.2",
        "-1 0.5 0.5 0.2 0.2",
        "0.5 0.5 0.5 0.2 0.2",
        "nan 0.5 0.5 0.2 0.2",
        "dog 0.5 0.5 0.2 0.2",
        "0 0.5 nan 0.2 0.2",
        "0 320 240 100 100",
        "0 0.5 0.5 -0.2 0.2",
        "0 0.5 0.5 0 0.2",
        "0 0.5 0.5 1e-9 0.2",
        "0 0.5 0.5 ０.x 0.2",
        "1.0 0 0 0.5 0.5",
    ]
    source = YoloConfig(path=write_yolo(tmp_path, {"images/train/a.jpg": "\r\n".join(rows)})).build()
    np.testing.assert_allclose(source[0]["boxes"], [[0, 0, 40, 30], [0, 0, 10, 7.5]], atol=1e-5)
    assert source[0]["labels"].tolist() == [0, 1]
    places = [text.removeprefix("labels/train/a.txt:").partition(": ") for text in reasons(source, tmp_path)]
    assert sorted(int(line) for line, _, _ in places) == [*range(3, 16)]
    said = {int(line): reason for line, _, reason in places}
    assert said[3].startswith("has 4 columns; a row is class x y width height")
    assert said[4].startswith("has 6 columns")
    assert said[5] == "class 2 is not among `names`"
    assert said[7] == "class 0.5 is not a whole number"
    assert said[9] == "holds what is no number"
    assert said[11] == "is not of shares of the picture's sides, 0 … 1"
    assert said[13] == "its box 0.5 0.4 0.5 0.6 has no area inside the picture of 1 x 1"


def polygon_text(points: list[tuple[float, float]], size: tuple[int, int]) -> str:
    return " ".join(f"{x / size[0]:.6f} {y / size[1]:.6f}" for x, y in points)


def test_polygons_give_boxes_and_masks(tmp_path: Path) -> None:
    points = [(4.0, 3.0), (31.0, 6.0), (35.0, 24.0), (9.0, 21.0)]
    square = polygon_text([(0, 0), (8, 0), (8, 8), (0, 8)], (40, 30))
    text = f"1 {polygon_text(points, (40, 30))}\n0 0.5 0.5 0.2 0.2\n0 {square}"
    path = write_yolo(tmp_path, {"images/train/a.jpg": text, "images/train/b.jpg": None})
    source = YoloConfig(path=path).build()
    expected = [[4, 3, 35, 24], [16, 12, 24, 18], [0, 0, 8, 8]]
    np.testing.assert_allclose(source[0]["boxes"], expected, atol=1e-4)
    assert "masks" not in source[0]
    drawn = YoloConfig(path=path, masks=True).build()
    assert drawn.provides == source.provides | {"masks"}
    assert reasons(drawn, tmp_path) == ["labels/train/a.txt:2: is a box without a polygon, and masks are asked for"]
    example = drawn[0]
    np.testing.assert_allclose(example["boxes"], [expected[0], expected[2]], atol=1e-4)
    assert example["masks"].shape == (2, 30, 40)
    np.testing.assert_array_equal(example["masks"][1].nonzero()[0], np.repeat(np.arange(8), 8))
    canvas = Image.new("1", (40, 30))
    ImageDraw.Draw(canvas).polygon(points, fill=1)
    assert (np.asarray(canvas) != example["masks"][0]).mean() < 0.08, "the two draw the rim differently"
    assert drawn[1]["masks"].shape == (0, 30, 40)


def test_a_picture_that_lies_on_its_side_has_the_boxes_of_the_upright_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write_yolo(tmp_path, {"images/train/a.jpg": "0 0.5 0.5 1 1"})
    write(tmp_path / "images/train/a.jpg", encoded(photo((40, 30)), "JPEG", exif=exif))
    assert YoloConfig(path=path).build()[0]["boxes"].tolist() == [[0, 0, 30, 40]]
    write(tmp_path / "images/train/a.jpg", b"<html>")
    with pytest.raises(BadSample, match=r"a\.jpg: a web page"):
        YoloConfig(path=path).build()[0]


@pytest.mark.parametrize(
    ("names", "classes", "numbers"),
    [
        ("[dog, cat]", ("dog", "cat"), (0, 1)),
        ("{7: cat, 0: dog}", ("dog", "cat"), (0, 7)),
        ("{'1': 10, 0: ' a b '}", ("a b", "10"), (0, 1)),
    ],
)
def test_names_are_a_list_or_numbered(
    tmp_path: Path, names: str, classes: tuple[str, ...], numbers: tuple[int, ...]
) -> None:
    rows = "\n".join(f"{number} 0.5 0.5 1 1" for number in reversed(numbers))
    source = YoloConfig(
        path=write_yolo(tmp_path, {"images/train/a.jpg": rows}, f"train: images\nnames: {names}")
    ).build()
    assert source.class_names == classes
    assert source.category_ids == numbers
    assert source[0]["labels"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("train: images\nnames: []", "its list of classes is empty"),
        ("train: images\nnames: {}", "its list of classes is empty"),
        ("train: images\nnc: 80", "has no `names`"),
        ("train: images\nnames: [dog, cat, dog]", "the class 'dog' is listed twice"),
        ("train: images\nnames: [yes, no]", "class 0 is called True; put it in quotes"),
        ("train: images\nnames: [dog, [cat]]", "class 1 is called a list"),
        ("train: images\nnames: {dog: 0}", "'dog' is not the number of a class"),
        ("train: images\nnames: {0: dog, '0': cat}", "class 0 is there already"),
        (f"train: images\nnames:\n  ? '{'9' * 5000}'\n  : dog", "'9999.* is not the number of a class"),
        (f"training: images\n{NAMES}", "names no pictures of 'train'; did you mean 'training'"),
        (f"train: 5\n{NAMES}", "names no pictures of 'train'"),
        (f"train: []\n{NAMES}", "names no pictures of 'train'"),
        (f"train: none\n{NAMES}", "no none in .*; set `root`"),
        (f"train: labels\n{NAMES}", "no picture in .*labels"),
        (f"train: lonely\n{NAMES}", "no label file for any of 1 pictures of train"),
        (f"train: images\nkpt_shape: [17, 3]\n{NAMES}", "is of key points"),
        ("[1, 2]", "should be a data.yaml with `train`, `val` and `names`"),
        ("train: [", "cannot be read as YAML"),
        ("train: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ("a: " + "[" * 1000, "cannot be read as YAML"),
    ],
)
def test_mistakes(tmp_path: Path, yaml: str, said: str) -> None:
    write(tmp_path / "lonely" / "b.jpg", jpeg())
    path = write_yolo(tmp_path, {"images/train/a.jpg": "0 0.5 0.5 1 1"}, yaml)
    with pytest.raises(ValueError, match=rf"data\.yaml: .*{said}"):
        YoloConfig(path=path).build()


@pytest.mark.parametrize("level", ["l{n}: &l{n} [{many}]", "l{n}: &l{n} {{a{n}: 1, <<: [{many}]}}"])
def test_yaml_that_stands_for_gigabytes_is_refused_at_once(tmp_path: Path, level: str) -> None:
    many = {n: ", ".join([f"*l{n - 1}"] * 10) for n in range(1, 12)}
    levels = "\n".join(level.format(n=n, many=many[n]) for n in many)
    path = write_yolo(tmp_path, {"images/train/a.jpg": ""}, f"l0: &l0 {{a: 1}}\n{levels}\ntrain: images\nnames: *l11\n")
    begun = time.perf_counter()
    with pytest.raises(ValueError, match=r"data\.yaml: cannot be read as YAML: it has aliases"):
        YoloConfig(path=path).build()
    assert time.perf_counter() - begun < 1


def test_configs_take_more_words(tmp_path: Path) -> None:
    more: dict[str, Any] = {"split": "val", "masks": True}
    path = write_yolo(tmp_path, {"images/val/a.jpg": ""}, f"val: images/val\n{NAMES}")
    assert len(load(SourceConfig, {"kind": "yolo", "path": str(path), **more}).build()) == 1
