"""Only what is told of a picture's boxes is there, under its new label."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pictura.config import load
from pictura.data.partly import PartlyLabelled, PartlyLabelledConfig
from pictura.data.scenes import ScenesConfig
from tests.data.test_coco_objects import build, content, federated, note

WORLD = ScenesConfig(
    split="everything", gives=("image", "boxes", "masks"), label_of="shape", objects=(2, 5), count=60, image_size=32
)
BASE = ("star", "circle", "ring", "bolt")


def test_boxes_of_other_classes_are_not_told() -> None:
    everything, some = WORLD.build(), PartlyLabelledConfig(of=WORLD, classes=BASE).build()
    assert some.class_names == BASE and len(some) == len(everything)
    told = 0
    for index in range(len(some)):
        whole, own = everything[index], some[index]
        rows = [row for row, label in enumerate(whole["labels"]) if everything.class_names[label] in BASE]
        names = [everything.class_names[whole["labels"][row]] for row in rows]
        assert [BASE[label] for label in own["labels"]] == names
        for key in ("boxes", "masks", "crowd"):
            assert (own[key] == whole[key][rows]).all()  # type: ignore[literal-required]
        assert (own["image"] == whole["image"]).all()
        told += len(rows)
    assert 20 < told < 0.5 * sum(len(everything[i]["labels"]) for i in range(60))


def test_a_few_boxes_of_a_class_are_told_and_their_pictures_come_again() -> None:
    few = {"house": 3, "drop": 2}
    some = PartlyLabelledConfig(of=WORLD, classes=BASE, few=few, repeat=4).build()
    assert some.class_names == (*BASE, "house", "drop")
    counts = dict.fromkeys(some.class_names, 0)
    for index in range(60):
        for label in some[index]["labels"]:
            counts[some.class_names[label]] += 1
    assert (counts["house"], counts["drop"]) == (3, 2)
    again = [some[index]["key"] for index in range(60, len(some))]
    assert len(again) % 3 == 0 and set(again) <= {some[i]["key"] for i in range(60)}
    assert all((some[i]["labels"] >= 4).any() for i in range(60, len(some)))


def test_the_boxes_of_fewer_are_among_those_of_more() -> None:
    def told(count: int, seed: int = 0) -> set[tuple[str, tuple[float, ...]]]:
        some = PartlyLabelledConfig(of=WORLD, classes=BASE, few={"drop": count}, seed=seed).build()
        return {
            (some[i]["key"], tuple(box.tolist()))
            for i in range(60)
            for box, label in zip(some[i]["boxes"], some[i]["labels"], strict=True)
            if label == 4
        }

    assert len(told(2)) == 2 and told(2) < told(5)
    assert told(2, seed=1) != told(2)


def test_a_crowd_is_told_where_its_own_class_is(tmp_path: Path) -> None:
    notes = [note(7, 3, [0, 0, 5, 6], iscrowd=1), note(7, 17, [8, 8, 5, 6], iscrowd=1), note(7, 90, [20, 8, 5, 6])]
    few = {"cat": 1}
    source = build(tmp_path, content(annotations=[*notes, note(2, 17, [1, 1, 9, 9]), note(7, 17, [3, 3, 9, 9])]))
    for classes in (("toothbrush", "car"), ("toothbrush",)):
        for some in ({}, few):
            own = PartlyLabelled(PartlyLabelledConfig(of=WORLD, classes=classes, few=some), source)
            crowded = own[0]["labels"][own[0]["crowd"]].tolist()
            assert crowded == ([1] if "car" in classes else []), "no cat's, not even among the few"
            assert 0 in own[0]["labels"]


def test_what_a_file_says_of_its_pictures_is_said_of_the_classes_that_are_told(tmp_path: Path) -> None:
    source = federated(tmp_path)  # car 3 f, cat 17 c, toothbrush 90 r
    own = PartlyLabelled(PartlyLabelledConfig(of=WORLD, classes=("toothbrush", "cat")), source)
    assert own.image_ids == [7, 2, 5] and own.federated
    assert (own.category_ids, own.frequencies) == ((90, 17), ("r", "c"))
    assert own.negatives and own.not_exhaustive and own.objects
    assert [own.negatives(index).tolist() for index in range(3)] == [[0], [], []], "never a car, which nobody knows"
    assert [own.not_exhaustive(index).tolist() for index in range(3)] == [[], [1], [0]]
    for index in range(3):
        known, example = own.objects(index), own[index]
        for key in ("boxes", "labels", "crowd"):
            assert np.array_equal(known[key], example[key])  # type: ignore[literal-required]
    assert own.objects(1)["areas"].tolist() == [77.5, 1]
    assert pickle.loads(pickle.dumps(own)).objects(1)["labels"].tolist() == [1, 0]


def test_classes_by_how_frequent_they_are(tmp_path: Path) -> None:
    source = federated(tmp_path)  # car f, cat c, toothbrush r

    def told(*frequencies: str, **more: Any) -> PartlyLabelled:
        config = load(PartlyLabelledConfig, {"of": {"kind": "scenes"}, "frequencies": [*frequencies], **more})
        return PartlyLabelled(config, source)

    assert told("common", "frequent").class_names == ("car", "cat"), "in the data's order"
    assert told("rare").class_names == ("toothbrush",)
    base = told("frequent", few={"toothbrush": 1})
    assert (base.class_names, base.frequencies) == (("car", "toothbrush"), ("f", "r"))
    by_name = PartlyLabelled(PartlyLabelledConfig(of=WORLD, classes=("car",), few={"toothbrush": 1}), source)
    for index in range(3):
        assert base[index]["labels"].tolist() == by_name[index]["labels"].tolist()
    with pytest.raises(ValueError, match="'car' is there twice"):
        told("frequent", few={"car": 1})


def test_of_the_few_a_picture_with_others_beside_is_not_exhaustive(tmp_path: Path) -> None:
    source = federated(tmp_path)  # a toothbrush in each of the first two pictures
    own = PartlyLabelled(PartlyLabelledConfig(of=WORLD, classes=("car",), few={"toothbrush": 1}, repeat=2), source)
    (told,) = own.few
    assert own.not_exhaustive
    found = [own.not_exhaustive(index).tolist() for index in range(2)]
    assert found[told] == [] and found[1 - told] == [1]
    assert len(own) == 4 and own.image_ids is None, "the file has no picture twice"


def test_of_a_source_that_says_nothing_beside_its_examples_nothing_is_said() -> None:
    own = PartlyLabelledConfig(of=WORLD, classes=BASE).build()
    assert own.image_ids is own.category_ids is own.frequencies is own.federated is None
    assert own.negatives is own.not_exhaustive is own.objects is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": ()}, "classes: none given"),
        ({"frequencies": ("rare",)}, "classes, frequencies: both given"),
        ({"classes": (), "frequencies": ("rare", "common")}, "the data calls no class rare or common, as LVIS does"),
        ({"classes": ("star", "star")}, "'star' is there twice"),
        ({"few": {"star": 2}}, "'star' is there twice"),
        ({"few": {"drop": 0}}, "below 1"),
        ({"repeat": 0}, "below 1"),
        ({"classes": ("stat",)}, "no 'stat'; did you mean 'star'"),
        ({"few": {"drop": 500}}, "too few boxes of drop"),
        ({"of": ScenesConfig(count=3)}, "this data has no boxes"),
    ],
)
def test_what_cannot_be_is_said(changes: dict, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=says):
        PartlyLabelledConfig(**{"of": WORLD, "classes": BASE, **changes}).build()
