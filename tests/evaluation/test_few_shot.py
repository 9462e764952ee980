import math
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from pictura.config import load
from pictura.data.source import Source
from pictura.evaluation import few_shot
from pictura.evaluation.adapters import Method, learnt
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.few_shot import FewShot, FewShotConfig, draw, top1
from pictura.evaluation.panels import Table
from pictura.evaluation.report import write_report
from pictura.evaluation.rise import Rise
from pictura.evaluation.zeroshot import ZeroShot, classifier
from tests.evaluation.conftest import Made
from tests.evaluation.test_probe import NAMES, Coloured, naive

SHOTS = (1, 2, 4)
METHODS: tuple[Method, ...] = ("ridge", "logistic", "prompt_ridge", "prompt_logistic", "cache")


# Draws


def test_a_draw_has_as_many_pictures_of_each_class() -> None:
    label = torch.tensor([0, 0, 2, 1, 1, 2, 0, 1, 2, 2, 0, 0, 2])
    for n in (1, 2, 3):
        drawn = draw(label, n, 0, 0)
        assert len(set(drawn.tolist())) == 3 * n
        assert label[drawn].bincount().tolist() == [n, n, n]


def test_pictures_of_few_shots_are_among_those_of_more() -> None:
    label = torch.arange(60) % 3
    for number in range(4):
        sets = [set(draw(label, n, 7, number).tolist()) for n in (1, 2, 4, 8, 16)]
        assert all(few < more for few, more in pairwise(sets))


def test_draws_are_functions_of_seed_and_number_and_differ() -> None:
    label = torch.arange(300) % 3
    sets = {(seed, i): frozenset(draw(label, 4, seed, i).tolist()) for seed in range(3) for i in range(5)}
    assert len(set(sets.values())) == 15
    assert frozenset(draw(label, 4, 2, 3).tolist()) == sets[2, 3]
    places = [set(draw(label, 4, 0, 0)[label[draw(label, 4, 0, 0)] == c].tolist()) for c in range(3)]
    assert len({frozenset(p // 3 for p in some) for some in places}) == 3, "nor is it the same place in each class"


def test_every_picture_is_drawn_as_often_as_another() -> None:
    label = torch.zeros(10, dtype=torch.long)
    counts = torch.cat([draw(label, 3, 0, i) for i in range(2000)]).bincount()
    assert counts.min() > 520 and counts.max() < 680, "600 are expected, with a deviation of 20"


# The classifier


@pytest.mark.parametrize("shape", [(12, 24), (40, 6)])
def test_answers_are_those_of_a_plain_solve_in_any_blocks(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer pictures than features, and with more."""
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(4, shape[1], generator=random)
    label, wanted = torch.arange(shape[0]) % 4, torch.arange(100) % 4
    x, asked = (
        F.normalize(centres[of] + 1.5 * torch.randn(len(of), shape[1], generator=random), dim=1)
        for of in (label, wanted)
    )
    for l2 in (0.01, 1.0):
        solved = naive(x, label, l2)
        told = (asked.double() @ solved[:-1] + solved[-1]).argmax(1)
        expected = float((told == wanted).double().mean())
        assert 0.3 < expected < 1
        for block in (7, 1000):
            monkeypatch.setattr(few_shot, "BLOCK", block)
            assert top1(learnt("ridge", x, label, 4, l2, None), asked, wanted) == expected


# The evaluator


def test_numbers_are_those_of_a_plain_loop(embedder: Embedder, tmp_path: Path) -> None:
    train, test = Coloured(60, broken=(3,)), Coloured(40, first=100, broken=(0, 9))
    evaluator = FewShot(train, test, shots=SHOTS, draws=3, l2=0.1, seed=5, name="colour")
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))
    expected = {}
    x, asked, label = embedder.images(train), embedder.images(test), train.labels()
    for n in SHOTS:
        shares = []
        for i in range(3):
            some = draw(label, n, 5, i)
            solved = naive(x[some], label[some], 0.1)
            told = (asked.double() @ solved[:-1] + solved[-1]).argmax(1)
            shares.append(float((told == test.labels()).double().mean()))
        mean = sum(shares) / 3
        deviation = math.sqrt(sum((share - mean) ** 2 for share in shares) / 2)
        expected[f"few_shot/colour/{n}/top1"] = mean
        expected[f"few_shot/colour/{n}/half_width"] = 4.302653 * deviation / math.sqrt(3)
    assert list(values) == list(expected)
    assert values == pytest.approx(expected, rel=1e-6)
    assert values["few_shot/colour/4/top1"] > max(0.4, values["few_shot/colour/1/top1"]), "a third is chance"
    assert dict(evaluator.run(embedder)) == values
    chart, table = evaluator.panels()
    assert isinstance(chart, Rise) and isinstance(table, Table)
    assert "38 pictures, 3 classes, ridge regression with l2 0.1, 3 draws" in chart.note
    assert [row[0] for row in table.rows] == list(SHOTS)
    assert table.rows[2][1] == f"{100 * expected['few_shot/colour/4/top1']:.1f} %"
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())


def test_each_picture_is_read_once(embedder: Embedder) -> None:
    read = []
    embedder.progress = lambda what, done, total: read.append((done, total))
    dict(FewShot(Coloured(60), Coloured(40, first=100), shots=SHOTS).run(embedder))
    assert sum(done == total for done, total in read) == 2


def test_one_draw_has_no_interval(embedder: Embedder) -> None:
    evaluator = FewShot(Coloured(60), Coloured(40, first=100), shots=SHOTS, draws=1)
    assert list(dict(evaluator.run(embedder))) == [f"few_shot/{n}/top1" for n in SHOTS]
    chart, table = evaluator.panels()
    assert isinstance(table, Table)
    assert "one draw" in chart.note and table.rows[0][2] == "—"
    ET.fromstring(chart.html())


def test_another_layer_another_number(embedder: Embedder) -> None:
    train, test = Coloured(60), Coloured(40, first=100)
    first, last = (
        dict(FewShot(train, test, shots=(4,), layer=layer, draws=2).run(embedder))["few_shot/4/top1"]
        for layer in (0, None)
    )
    assert first != last
    label, x, asked = train.labels(), embedder.images(train, 0), embedder.images(test, 0)
    expected = [
        top1(learnt("ridge", x[some], label[some], 3, 1.0, None), asked, test.labels())
        for some in (draw(label, 4, 0, i) for i in (0, 1))
    ]
    assert first == sum(expected) / 2


def test_classes_in_another_order_and_classes_without_a_picture_change_nothing(embedder: Embedder) -> None:
    wanted = dict(FewShot(Coloured(60), Coloured(40, first=100), shots=SHOTS).run(embedder))
    names = ("blue", "red", "green")
    assert dict(FewShot(Coloured(60), Coloured(40, first=100, names=names), shots=SHOTS).run(embedder)) == wanted
    names = (*NAMES, "yellow")
    assert dict(FewShot(Coloured(60, names=names), Coloured(40, 100, names), shots=SHOTS).run(embedder)) == wanted
    bare = FewShot(Coloured(60, names=()), Coloured(40, first=100, names=()), shots=SHOTS)
    assert dict(bare.run(embedder)) == wanted


def test_a_broken_model_is_never_right(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Made(30, labels=[i % 3 for i in range(30)])
    for value in (torch.nan, 1.0):
        monkeypatch.setattr(embedder.model, "encode_image", lambda image, v=value: torch.full((len(image), 24), v))
        values = dict(FewShot(source, source, shots=SHOTS).run(embedder))
        assert set(values.values()) == {0}


# Several methods


def test_each_method_is_measured_by_itself_beside_zero_shot(embedder: Embedder, tmp_path: Path) -> None:
    train, test = Coloured(60, broken=(3,)), Coloured(40, first=100, names=("blue", "red", "green"), broken=(0, 9))
    evaluator = FewShot(train, test, shots=SHOTS, draws=2, methods=METHODS, templates=("a {}", "the {}"), name="n")
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))
    asked_in_words = dict(ZeroShot(test, ("a {}", "the {}")).run(embedder))
    assert values["few_shot/n/zeroshot/top1"] == asked_in_words["zeroshot/top1"]
    x, asked, label = embedder.images(train), embedder.images(test), train.labels()
    wanted = torch.tensor([2, 0, 1])[test.labels()]
    words = classifier(embedder, NAMES, ("a {}", "the {}")), embedder.scale
    expected = {"few_shot/n/zeroshot/top1": asked_in_words["zeroshot/top1"]}
    for method in METHODS:
        means = []
        for n in SHOTS:
            drawn = [draw(label, n, 0, i) for i in range(2)]
            shares = [top1(learnt(method, x[i], label[i], 3, 1.0, words), asked, wanted) for i in drawn]
            means.append(sum(shares) / 2)
            expected[f"few_shot/n/{method}/{n}/top1"] = means[-1]
            expected[f"few_shot/n/{method}/{n}/half_width"] = 12.7062 * abs(shares[0] - shares[1]) / 2
        expected[f"few_shot/n/{method}/dip"] = max(0.0, asked_in_words["zeroshot/top1"] - min(means))
    assert list(values) == list(expected)
    assert values == pytest.approx(expected, rel=1e-5)
    assert len({tuple(values[f"few_shot/n/{m}/{n}/top1"] for n in SHOTS) for m in METHODS}) > 2, "they differ"
    plain = dict(FewShot(train, test, shots=SHOTS, draws=2).run(embedder))
    assert [plain[f"few_shot/{n}/top1"] for n in SHOTS] == [values[f"few_shot/n/ridge/{n}/top1"] for n in SHOTS]
    chart, beside, table = evaluator.panels()
    assert isinstance(chart, Rise) and isinstance(beside, Table) and isinstance(table, Table)
    assert list(chart.lines) == list(METHODS) and chart.level == ("zeroshot", values["few_shot/n/zeroshot/top1"])
    assert [row[:2] for row in table.rows] == [(method, n) for method in METHODS for n in SHOTS]
    assert [row[0] for row in beside.rows] == list(METHODS)
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())


def test_where_a_method_overtakes_zero_shot() -> None:
    source = Coloured(9)
    evaluator = FewShot(source, source, shots=SHOTS, draws=1, methods=("ridge", "zeroshot"))
    evaluator.level = 0.5
    for shares, said, dip in (
        ((0.6, 0.5, 0.7), "1", 0.0),
        ((0.3, 0.5, 0.7), "2", 0.2),
        ((0.6, 0.4, 0.7), "4", 0.1),
        ((0.6, 0.7, 0.4), "more than 4", 0.1),
    ):
        evaluator.found = {"ridge": {n: [share] for n, share in zip(SHOTS, shares, strict=True)}}
        assert evaluator.overtakes("ridge") == said
        assert evaluator.dip("ridge") == pytest.approx(dip)
        assert evaluator.panels()[1].rows == [("ridge", f"{100 * dip:.1f}", said)]  # type: ignore[attr-defined]


def test_the_curve_that_falls_below_zero_shot_needs_no_remedy(embedder: Embedder) -> None:
    train, test = Coloured(60), Coloured(40, first=100)
    values = dict(FewShot(train, test, shots=(2,), draws=1, methods=("zeroshot", "ridge")).run(embedder))
    assert list(values) == ["few_shot/zeroshot/top1", "few_shot/ridge/2/top1", "few_shot/ridge/dip"]
    values = dict(FewShot(train, test, shots=(2,), draws=1, methods=("logistic",)).run(embedder))
    assert list(values) == ["few_shot/logistic/2/top1"], "without words, nothing is asked by words"


def test_names_of_classes_without_a_picture_are_not_chosen(embedder: Embedder) -> None:
    wanted = dict(FewShot(Coloured(60), Coloured(40, 100), shots=(1, 4), draws=1, methods=METHODS).run(embedder))
    names = (*NAMES, "yellow")
    more = FewShot(Coloured(60, names=names), Coloured(40, 100, names), shots=(1, 4), draws=1, methods=METHODS)
    assert dict(more.run(embedder)) == pytest.approx(wanted)
    bare = FewShot(
        Coloured(60, names=()), Coloured(40, 100, names=()), shots=(1, 4), draws=1, methods=METHODS, class_names=NAMES
    )
    assert dict(bare.run(embedder)) == wanted
    others = ("green", "blue", "red")
    given = dict(
        FewShot(Coloured(60), Coloured(40, 100), shots=(1,), methods=("cache",), class_names=others).run(embedder)
    )
    plain = dict(ZeroShot(Coloured(40, 100), class_names=others).run(embedder))
    assert given["few_shot/zeroshot/top1"] == plain["zeroshot/top1"] != wanted["few_shot/zeroshot/top1"]


def test_no_method_makes_a_broken_model_right(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Made(30, labels=[i % 3 for i in range(30)], names=NAMES)
    for value in (torch.nan, 1.0):
        monkeypatch.setattr(embedder.model, "encode_image", lambda image, v=value: torch.full((len(image), 24), v))
        monkeypatch.setattr(embedder.model, "encode_text", lambda text: torch.ones(len(text), 24))
        values = dict(FewShot(source, source, shots=(1, 4), draws=2, methods=METHODS).run(embedder))
        assert set(values.values()) == {0}


def test_methods_with_words_need_them(embedder: Embedder) -> None:
    for class_names, said in (((), "^few_shot: needs at least two class names"), (("a", "a", "b"), "'a' names two")):
        source = Coloured(9, names=())
        with pytest.raises(ValueError, match=said):
            FewShot(source, source, methods=("cache",), class_names=class_names)
    evaluator = FewShot(Coloured(60, names=()), Coloured(9, names=()), methods=("cache",), class_names=("a", "b"))
    with pytest.raises(ValueError, match=r"^few_shot: label 2 in the data, but 2 class_names"):
        dict(evaluator.run(embedder))
    classifier = SimpleNamespace(config=SimpleNamespace(kind="classifier"))
    with pytest.raises(ValueError, match="reads no texts alone"):
        evaluator.check(classifier)
    FewShot(Coloured(9), Coloured(9)).check(classifier)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (Made(2), Made(2, labels=[0, 1]), "^few_shot: train: the data has no label"),
        (Made(2, labels=[0, 1]), Made(2), "^few_shot: the data has no label"),
        (
            Made(9, labels=[0] * 9),
            Made(2, labels=[0, 1], names=("a", "b")),
            "4 pictures.*train has 0 of 'b'; test must",
        ),
        (
            Made(9, labels=[0] * 6 + [1] * 3, names=("a", "b")),
            Made(1, labels=[0]),
            r"has 3 of 'b'; set shots to \[1, 2\]",
        ),
        (
            Made(6, labels=[0] * 6, broken=(0, 1, 2, 3, 4)),
            Made(1, labels=[0]),
            r"train has 1 of '0'; set shots to \[1\]",
        ),
        (Coloured(40), Made(0, labels=[], names=NAMES), "^few_shot: the data has no usable picture"),
    ],
)
def test_mistakes_are_named(embedder: Embedder, train: Source, test: Source, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dict(FewShot(train, test, shots=SHOTS).run(embedder))


def test_a_recipe_names_it_by_kind() -> None:
    scenes = {"kind": "scenes", "gives": ["image", "label"], "objects": [1, 1], "count": 6, "label_of": "shape"}
    words = {"kind": "few_shot", "train": scenes, "test": scenes | {"split": "fresh"}, "shots": [1, 5], "l2": 0.5}
    config = load(EvaluatorConfig, words | {"draws": 2, "seed": 9, "layer": -1, "name": "shape"})
    assert isinstance(config, FewShotConfig)
    built = config.build()
    assert (built.shots, built.draws, built.l2, built.seed, built.layer) == ((1, 5), 2, 0.5, 9, -1)
    assert built.title == "few_shot/shape"
    worded = load(EvaluatorConfig, words | {"layer": None, "methods": ["ridge", "cache"], "templates": "plain"})
    assert isinstance(worded, FewShotConfig) and worded.methods == ("ridge", "cache")
    assert [*worded.build().methods] == ["ridge", "cache"] and worded.build().prompts.templates == ("{}",)
    mistakes: tuple[tuple[str, object], ...] = (
        ("methods", []), ("methods", ["zeroshot"]), ("methods", ["ridge", "ridge"]), (r"methods\[0\]", ["svm"]),
        ("templates", "a dog"),
        ("shots", []), ("shots", [0, 1]), ("shots", [2, 1]), ("shots", [1, 1]),
        ("draws", 0), ("l2", 0), ("l2", math.inf),
    )  # fmt: skip
    for key, value in mistakes:
        with pytest.raises(ValueError, match=f"{key}: "):
            load(EvaluatorConfig, words | {key.partition("\\")[0]: value})
    with pytest.raises(ValueError, match="layer: -1 has nothing to do with words"):
        load(EvaluatorConfig, words | {"layer": -1, "methods": ["cache"]})
