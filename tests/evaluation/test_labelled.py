import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.data.batches import Batch
from pictura.evaluation.embed import Embedder
from pictura.evaluation.labelled import Labelled, matched, words
from pictura.evaluation.panels import Confusion, Gallery
from tests.evaluation.conftest import Made

NAMES = tuple("abcdefg")
WHOSE = ("the data", "the model")


class Scored(Labelled):
    """Answers with scores given in advance, three pictures at a time."""

    def __init__(self, scores: torch.Tensor, labels: list[int], scale: float = 1.0) -> None:
        super().__init__(Made(len(labels), labels=labels), "made", NAMES[: scores.shape[1]])
        self.scores, self.labels, self.scale = scores, torch.tensor(labels), scale
        self.order: torch.Tensor | None = None

    def run(self, embedder: Embedder | None = None) -> Iterator[tuple[str, float]]:
        parts = torch.arange(len(self.scores)).split(3)
        batches: list[Batch] = [{"index": part, "label": self.labels[part]} for part in parts]
        yield from self.tally(zip(self.scores.split(3), batches, strict=True), self.scale, self.order)


@pytest.mark.parametrize("classes", [5, 7])
def test_numbers_are_those_of_a_plain_loop(classes: int) -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(40, classes), [i * i % (classes - 1) for i in range(40)]  # the last has no picture
    evaluator = Scored(scores, labels, scale=3.0)
    values = dict(evaluator.run())
    first, five, loss = [], [], 0.0
    hits: dict[int, list[bool]] = {}
    for row, label in zip(scores.tolist(), labels, strict=True):
        order = sorted(range(classes), key=lambda c, row=row: -row[c])
        first.append(order[0] == label)
        five.append(label in order[:5])
        hits.setdefault(label, []).append(first[-1])
        loss += math.log(sum(math.exp(3 * s) for s in row)) - 3 * row[label]
    expected = {"made/top1": sum(first) / 40, "made/top5": sum(five) / 40}
    expected["made/mean_per_class"] = sum(sum(some) / len(some) for some in hits.values()) / len(hits)
    if classes == 5:
        del expected["made/top5"]
    assert list(values) == list(expected)
    assert values == pytest.approx(expected)
    assert evaluator.loss == pytest.approx(loss / 40, rel=1e-5)
    for true in range(classes):
        for told in range(classes):
            chosen = [row.index(max(row)) == told for row in scores.tolist()]
            count = sum(c and label == true for c, label in zip(chosen, labels, strict=True))
            assert evaluator.confusion()[true, told] == count


def test_ties_and_numbers_that_are_none_count_against_the_model() -> None:
    assert dict(Scored(torch.zeros(4, 3), [0, 0, 1, 2]).run())["made/top1"] == 0
    assert dict(Scored(torch.full((4, 3), torch.nan), [0, 0, 1, 2]).run())["made/top1"] == 0


def test_labels_in_another_order_find_their_scores() -> None:
    evaluator = Scored(torch.eye(3)[[2, 0, 1]], [0, 1, 2])
    assert dict(evaluator.run())["made/top1"] == 0
    evaluator.order = torch.tensor([2, 0, 1])
    assert dict(evaluator.run())["made/top1"] == 1
    assert torch.equal(evaluator.confusion(), torch.eye(3, dtype=torch.long))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_beyond_the_classes_is_refused(label: int) -> None:
    evaluator = Scored(torch.eye(3), [0, 1, label])
    for order in (None, torch.arange(3)):
        evaluator.order = order
        with pytest.raises(ValueError, match=f"^made: label {label} in the data, but there are 3 class names"):
            dict(evaluator.run())


def test_confidence_is_shown_in_per_cent_and_the_surest_come_first() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05], [0.6, 0.25, 0.15]])
    evaluator = Scored(p.log(), [0, 1, 2, 1])
    evaluator.how = "asked politely"
    assert evaluator.panels() == []
    dict(evaluator.run())
    confusion, gallery = evaluator.panels()
    assert isinstance(confusion, Confusion) and isinstance(gallery, Gallery)
    assert "4 pictures, 3 classes, asked politely." in confusion.note
    shown = {
        heading: [[(line.text, line.value, line.mark) for line in picture.lines] for picture in pictures]
        for heading, pictures in gallery.rows
    }
    assert shown == {
        "Surest and right": [[("b", "80 %", True)], [("a", "70 %", True)]],
        "Surest and wrong": [
            [("a", "90 %", False), ("c", "5 %", True)],
            [("a", "60 %", False), ("b", "25 %", True)],
        ],
    }


def test_data_without_labels_or_without_a_usable_picture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^x: the data has no label"):
        Labelled.__init__(object.__new__(Scored), Made(2), "x")
    with pytest.raises(ValueError, match=r"^made: the data has no usable picture"):
        list(Scored(torch.eye(3), [0, 1, 2]).tally([]))


# Names


@given(st.permutations(NAMES))
@settings(deadline=None)
def test_names_in_another_order_are_matched(names: list[str]) -> None:
    order = matched(names, NAMES, "x", WHOSE)
    if tuple(names) == NAMES:
        assert order is None
    else:
        assert order is not None
        assert [NAMES[place] for place in order.tolist()] == names


def test_a_list_that_says_nothing_is_matched_by_number() -> None:
    assert matched((), NAMES, "x", WHOSE) is None
    assert matched(NAMES, (), "x", WHOSE) is None
    assert matched(("crane", "crane"), ("crane", "crane"), "x", WHOSE) is None


@pytest.mark.parametrize(
    ("names", "wanted", "said"),
    [
        ("ab", "abc", "x: the data has 2 classes and the model 3, not the same ones: the data has no 'c'"),
        ("abz", "abc", "the model does not know 'z'; the data has no 'c'"),
        ("vwxyz", "abcde", r"does not know 'v', 'w', 'x' and 2 more; the data has no 'a', 'b', 'c' and 2 more"),
        ("aab", "ab", "3 classes and the model 2, .*some names stand for several classes"),
        ("baa", "aab", "'a' names two classes"),
    ],
)
def test_names_that_are_not_the_same_are_told(names: str, wanted: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        matched(tuple(names), tuple(wanted), "x", WHOSE)


def test_every_class_has_words_of_its_own() -> None:
    assert words(("dog", "cat"), 2) == ("dog", "cat")
    assert words(("crane", "dog", "crane"), 3) == ("crane (0)", "dog", "crane (2)")
    assert words((), 3) == ("0", "1", "2")
