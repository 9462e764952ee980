"""Only what is told of a picture's boxes is there, under its new label."""

import numpy as np
import pytest

from pictura.data.partly import PartlyLabelledConfig
from pictura.data.scenes import ScenesConfig

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


def test_a_crowd_stays_one_whatever_its_class() -> None:
    some = PartlyLabelledConfig(of=WORLD, classes=BASE).build()
    crowded = {**some.source[0], "crowd": np.ones(len(some.source[0]["labels"]), bool)}

    class One(type(some.source)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> dict:  # type: ignore[type-arg]
            return crowded

    some.source = One(WORLD)
    assert some[0]["crowd"].all() and len(some[0]["boxes"]) == len(crowded["boxes"])
    assert set(some[0]["labels"].tolist()) <= set(range(4))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": ()}, "classes: none given"),
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
