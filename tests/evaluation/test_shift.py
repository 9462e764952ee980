from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from pictura.config import load
from pictura.data.source import Example
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery, Table
from pictura.evaluation.report import write_report
from pictura.evaluation.shift import Shift, ShiftConfig
from pictura.evaluation.zeroshot import classifier
from tests.evaluation.conftest import Made

NAMES = ("dog", "cat", "house", "tree", "old house")
OTHERS = ("tree", "runs", "dog", "cat", "house")  # in another order, one of its own, and one that is missing
TEMPLATES = ("a {}", "the {}")


class Later(Made):
    """Other pictures."""

    def __getitem__(self, index: int) -> Example:
        again = Made(1000, labels=[0] * 1000)[index + 500]
        return super().__getitem__(index) | {"image": again["image"]}


def by_hand(embedder: Embedder, source: Made, names: Sequence[str], broken: int) -> list[tuple[str, bool]]:
    """(class, whether it is right) of every picture of a class that both have."""
    shared = ["dog", "cat", "house", "tree"]
    weights, found = classifier(embedder, shared, TEMPLATES), []
    for i in range(len(source)):
        if i != broken and (name := names[source.labels[i]]) in shared:  # type: ignore[index]
            answer = int((embedder.images([source[i]["image"]])[0] @ weights).argmax())
            found.append((name, shared[answer] == name))
    return found


def share(rows: Sequence[tuple[str, bool]], name: str = "") -> float:
    kept = [right for of, right in rows if name in ("", of)]
    return sum(kept) / len(kept)


def test_numbers_are_those_of_a_plain_loop(embedder: Embedder, tmp_path: Path) -> None:
    source = Made(40, labels=[i % 5 for i in range(40)], names=NAMES, broken=[4])
    shifted = Later(30, labels=[i * 2 % 5 for i in range(30)], names=OTHERS, broken=[7])
    evaluator = Shift(source, shifted, TEMPLATES, name="made")
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))
    one, other = by_hand(embedder, source, NAMES, 4), by_hand(embedder, shifted, OTHERS, 7)
    fell = [share(one, name) - share(other, name) for name in ("dog", "cat", "house", "tree")]
    expected = {
        "source/top1": share(one),
        "shifted/top1": share(other),
        "drop/top1": share(one) - share(other),
        "drop/mean_per_class": sum(fell) / 4,
        "kept/top1": share(other) / share(one),
    }
    assert {name: values[f"shift/made/{name}"] for name in expected} == pytest.approx(expected)
    assert values["shift/made/drop/top1_low"] < expected["drop/top1"] < values["shift/made/drop/top1_high"]
    means = [values[f"shift/made/{whose}/mean_per_class"] for whose in ("source", "shifted")]
    assert means[0] - means[1] == pytest.approx(sum(fell) / 4)
    each = evaluator.each()
    assert float(each["shift/made/shifted/top1"].double().mean()) == pytest.approx(share(other))
    numbers, classes, gallery = evaluator.panels()
    assert isinstance(numbers, Table) and isinstance(classes, Table) and isinstance(gallery, Gallery)
    assert "in source alone: 'old house'" in numbers.note and "in shifted alone: 'runs'" in numbers.note
    assert [row[1] for row in numbers.rows[:2]] == [str(len(one)), str(len(other))]
    assert [float(str(row[3])) for row in classes.rows] == pytest.approx(
        sorted((100 * f for f in fell), reverse=True), abs=0.1
    )
    assert {len(pictures) > 0 for _, pictures in gallery.rows} == {True}
    assert {p.good for title, some in gallery.rows for p in some if "shifted" in title} <= {False}
    assert dict(evaluator.run(embedder)) == values
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())


def test_the_same_pictures_lose_nothing(embedder: Embedder) -> None:
    source = Made(20, labels=[i % 5 for i in range(20)], names=NAMES)
    turned = Made(20, labels=[4 - i % 5 for i in range(20)], names=NAMES[::-1])
    values = dict(Shift(source, turned, class_names=("a dog", "cat", "house", "tree", "old house")).run(embedder))
    assert values["shift/drop/top1"] == 0 and values["shift/kept/top1"] in (0, 1)
    assert values["shift/drop/top1_low"] <= 0 <= values["shift/drop/top1_high"]


def test_other_words_for_a_class_go_with_it() -> None:
    evaluator = Shift(Made(5, labels=range(5), names=NAMES), Made(5, labels=range(5), names=OTHERS),
                      class_names=("hound", "kitten", "villa", "oak", "ruin"))  # fmt: skip
    assert evaluator.names == ("hound", "kitten", "villa", "oak")
    assert [side.order.tolist() for side in evaluator.sides] == [[0, 1, 2, 3, -1], [3, -1, 0, 1, 2]]


def test_a_class_without_pictures_on_a_side_is_in_no_drop(embedder: Embedder) -> None:
    evaluator = Shift(Made(8, labels=[i % 3 for i in range(8)], names=NAMES), Made(8, labels=[0, 4] * 4, names=NAMES))
    values = dict(evaluator.run(embedder))
    (right, n), (still, m) = ((c[1][0], c[0][0]) for c in (side.counts() for side in evaluator.sides))
    assert values["shift/drop/mean_per_class"] == pytest.approx(float(right / n - still / m))
    classes = evaluator.panels()[1]
    assert isinstance(classes, Table) and [row[0] for row in classes.rows] == ["dog"]


def test_a_broken_model_keeps_nothing(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder.model, "encode_image", lambda image: torch.full((len(image), 24), torch.nan))
    evaluator = Shift(Made(6, labels=[0] * 6, names=NAMES), Made(6, labels=[0] * 6, names=NAMES))
    values = dict(evaluator.run(embedder))
    assert values["shift/source/top1"] == values["shift/shifted/top1"] == values["shift/kept/top1"] == 0
    assert len(evaluator.panels()) == 2


@pytest.mark.parametrize(
    ("source", "shifted", "names", "said"),
    [
        (Made(2), Made(2, labels=[0, 1], names=NAMES), (), "shift: source: the data has no label"),
        (Made(2, labels=[0, 1], names=NAMES), Made(2), (), "shift: shifted: the data has no label"),
        (Made(2, labels=[0, 1], names=NAMES), Made(2, labels=[0, 1]), (), "shift: shifted: needs at least two class"),
        (Made(2, labels=[0, 1], names=NAMES), Made(2, labels=[0, 1], names=("dog", "owl")), (),
         "two classes of the same names, or more; source has 'dog', 'cat', 'house' and 2 more and shifted has 'dog', "),
        (Made(2, labels=[0, 1], names=("x", "x")), Made(2, labels=[0, 1], names=NAMES), (), "'x' names two classes"),
        (Made(2, labels=[0, 1], names=NAMES), Made(2, labels=[0, 1], names=NAMES), ("a", "b"), "2 given, but the data"),
    ],
)  # fmt: skip
def test_mistakes_are_named(source: Made, shifted: Made, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Shift(source, shifted, class_names=names)


def test_nothing_of_the_shared_classes_is_no_usable_picture(embedder: Embedder) -> None:
    evaluator = Shift(Made(3, labels=[0] * 3, names=NAMES), Made(3, labels=[1] * 3, names=OTHERS))
    with pytest.raises(ValueError, match="shift/shifted: the data has no usable picture"):
        dict(evaluator.run(embedder))


def test_a_recipe_names_it_by_kind() -> None:
    scenes = {"kind": "scenes", "gives": ["image", "label"], "objects": [1, 1], "count": 6, "label_of": "shape"}
    words = {"kind": "shift", "data": scenes, "shifted": {**scenes, "split": "style"}, "templates": "drawn"}
    config = load(EvaluatorConfig, words)
    assert isinstance(config, ShiftConfig) and config.build().title == "shift"
