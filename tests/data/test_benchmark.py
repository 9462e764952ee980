from pathlib import Path
from typing import Any

import pytest

from pictura.config import load
from pictura.data.benchmark import TEMPLATES, Benchmark, templates
from pictura.data.imagenet import classes, listed
from pictura.data.source import BadSample, SourceConfig
from tests.data.files import encoded, jpeg, photo, tar, write


def build(path: Path, **more: Any) -> Benchmark:
    return load(SourceConfig, {"kind": "benchmark", "path": str(path), **more}).build()


@pytest.fixture
def food(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As clip_benchmark's convert_dataset writes it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "wds_food"
    write(root / "classnames.txt", "apple pie\nbaby back ribs\nbaklava\n")
    write(root / TEMPLATES, "a photo of {c}, a type of food.\n{c}\n")
    tar(root / "test" / "0.tar", [("s0000000.cls", "2"), ("s0000000.jpg", jpeg(0)), ("s0000001.cls", "0"),
                                  ("s0000001.jpg", jpeg(1))])  # fmt: skip
    tar(root / "test" / "1.tar", [("s0000002.cls", "1"), ("s0000002.webp", encoded(photo(seed=2), "WEBP"))])
    write(root / "test" / "nshards.txt", "2\n")
    return root


def test_a_label_is_a_line_of_classnames(food: Path) -> None:
    source = build(food)
    assert source.provides == {"image", "label"}
    assert source.class_names == ("apple pie", "baby back ribs", "baklava")
    assert [source[i]["label"] for i in range(len(source))] == [2, 0, 1]
    assert source[1]["image"] == jpeg(1)
    assert source[2]["key"] == f"{food}/test/1.tar/s0000002"
    with pytest.raises(ValueError, match="train: no such folder"):
        build(food, part="train")


def test_names_that_are_numbers_are_still_counted_by_line(food: Path) -> None:
    """Of dSprites or SVHN: label 0 is the class on the first line, here called 2."""
    write(food / "classnames.txt", "2\n1\n0\n")
    source = build(food)
    assert [(source[i]["label"], source.class_names[source[i]["label"]]) for i in range(3)] == [
        (2, "0"),
        (0, "2"),
        (1, "1"),
    ]


def test_imagenets_classes_with_one_name_are_told_apart(food: Path) -> None:
    """As its own kind tells them apart; in another list, two with one name are for an evaluator to refuse."""
    published = [name for _, _, name in listed()]
    assert len(set(published)) == 998
    write(food / "classnames.txt", "".join(f"{name}\n" for name in published))
    assert build(food).class_names == classes()[1]
    write(food / "classnames.txt", "missile\nmissile\npie\n")
    assert build(food).class_names == ("missile", "missile", "pie")


def test_templates(food: Path) -> None:
    assert templates(food) == templates(str(food / TEMPLATES)) == ("a photo of {}, a type of food.", "{}")
    write(food / TEMPLATES, "a photo of {c}.\na photo.\n")
    with pytest.raises(ValueError, match=r"templates\.txt:2: 'a photo\.' has no \{c\} where the class name goes"):
        templates(food)
    with pytest.raises(ValueError, match="none: no such file"):
        templates(food / "none")


def test_a_set_for_retrieval_has_captions(food: Path) -> None:
    root = food.parent / "wds_flickr8k"
    write(root / "dataset_type.txt", "retrieval\n")
    tar(root / "test" / "0.tar", [("s0000000.jpg", jpeg(0)), ("s0000000.txt", "A dog runs.\nA brown dog.")])
    source = build(root)
    assert source.provides == {"image", "captions"} and source[0]["captions"] == ["A dog runs.", "A brown dog."]
    tar(root / "test" / "0.tar", [("s0000000.jpg", jpeg(0))])
    with pytest.raises(ValueError, match="is for retrieval, but no example has captions"):
        build(root)


def test_mistakes(food: Path) -> None:
    write(food / "test" / "nshards.txt", "3")
    with pytest.raises(ValueError, match=r"2\.tar: no such tar"):
        build(food)
    for content in ("many", "", "0", "1\n2", "9" * 30):
        write(food / "test" / "nshards.txt", content)
        with pytest.raises(ValueError, match=r"nshards\.txt: .* is no number of tars"):
            build(food)
    (food / "test" / "nshards.txt").unlink()
    assert len(build(food)) == 3
    write(food / "classnames.txt", "apple pie\n\nbaklava\n")
    assert build(food).class_names == ("apple pie", "", "baklava")  # an empty one does not move the others
    write(food / "classnames.txt", "apple pie\nribs\n")
    with pytest.raises(ValueError, match=r"a label is 2, and classnames\.txt has 2 lines"):
        build(food)
    (food / "classnames.txt").unlink()
    with pytest.raises(ValueError, match=r"classnames\.txt: no such file"):
        build(food)
    write(food / "dataset_type.txt", "multilabel\n")
    with pytest.raises(ValueError, match=r"dataset_type\.txt says 'multilabel'; classification and retrieval"):
        build(food)


def test_labels_that_are_words_or_missing(food: Path) -> None:
    tar(food / "test" / "1.tar", [("s2.jpg", jpeg(2)), ("s3.cls", "1"), ("s3.jpg", jpeg(3))])
    source = build(food)
    with pytest.raises(BadSample, match="no label"):
        source[2]
    assert source[3]["label"] == 1
    tar(food / "test" / "1.tar", [("s2.cls", "baklava"), ("s2.jpg", jpeg(2))])
    with pytest.raises(ValueError, match=r"`cls` should hold a line number of classnames\.txt, and has 'baklava'"):
        build(food)
