import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pictura.config import load
from pictura.data.source import Source
from pictura.evaluation import few_shot
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.few_shot import FewShot, FewShotConfig, Rise, draw, half_width, student, top1
from pictura.evaluation.panels import Table
from pictura.evaluation.report import write_report
from tests.evaluation.conftest import Made
from tests.evaluation.test_probe import NAMES, Coloured, naive

SHOTS = (1, 2, 4)


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


# The interval


def test_students_t_is_that_of_printed_tables() -> None:
    """Fisher and Yates; the digits of Abramowitz and Stegun 1964, table 26.10, where a row is there."""
    for freedom, value in (
        (1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (6, 2.447), (7, 2.365), (8, 2.306), (9, 2.262),
        (10, 2.228), (14, 2.145), (15, 2.131), (20, 2.086), (29, 2.045), (30, 2.042), (60, 2.000), (120, 1.980),
    ):  # fmt: skip
        assert student(freedom) == pytest.approx(value, abs=5.1e-4)
    assert student(4, 0.99) == pytest.approx(4.604, abs=5.1e-4)
    assert student(100_001) == pytest.approx(1.95997, abs=1e-4)


@pytest.mark.parametrize("freedom", [1, 2, 5, 8])
def test_between_its_bounds_lies_its_share(freedom: int) -> None:
    """By the density, summed in small steps."""
    bound = student(freedom, 0.9)
    norm = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
    steps = 20_000
    inside = 0.0
    for i in range(steps):
        t = bound * (i + 0.5) / steps
        inside += norm * (1 + t * t / freedom) ** (-(freedom + 1) / 2) * 2 * bound / steps
    assert inside == pytest.approx(0.9, abs=1e-6)


def test_the_interval_holds_the_mean_of_a_normal_variable_95_times_in_100() -> None:
    values = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)).double()
    held = sum(abs(sum(row)) / 4 <= half_width(row) for row in values.tolist()) / 4000
    assert 0.94 < held < 0.96
    assert half_width([0.5, 0.5]) == 0


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
            assert top1(x, label, asked, wanted, 4, l2) == expected


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
        top1(x[some], label[some], asked, test.labels(), 3, 1.0) for some in (draw(label, 4, 0, i) for i in (0, 1))
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
    mistakes: tuple[tuple[str, object], ...] = (
        ("shots", []), ("shots", [0, 1]), ("shots", [2, 1]), ("shots", [1, 1]),
        ("draws", 0), ("l2", 0), ("l2", math.inf),
    )  # fmt: skip
    for key, value in mistakes:
        with pytest.raises(ValueError, match=f"{key}: "):
            load(EvaluatorConfig, words | {key: value})


# The chart


@pytest.mark.parametrize(
    "points",
    [
        [(1, 0.2, 0.1), (2, 0.4, 0.05), (16, 0.9, 0.3)],
        [(1, 0.0, 0.0)],
        [(3, 1.0, 0.0), (5, 1.0, 0.0)],
        [(1, 0.1, 5.0), (1000, 0.1001, 0.0)],
    ],
)
def test_the_chart_stays_in_its_frame(points: list[tuple[int, float, float]]) -> None:
    drawing = Rise("few <shots>", points).html()
    assert ET.fromstring(drawing).tag == "div"
    for pair in re.findall(r' points="([^"]*)"', drawing):
        for x, y in (point.split(",") for point in pair.split()):
            assert 46 <= float(x) <= 412
            assert 8 <= float(y) <= 168
    assert re.findall(r'text-anchor="middle">(\d+)<', drawing) == [str(n) for n, _, _ in points]


def test_every_doubling_is_as_wide_in_the_chart() -> None:
    drawing = Rise("t", [(n, 0.1 * i, 0.01) for i, n in enumerate((1, 2, 4, 8, 16), 1)]).html()
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', drawing)]
    widths = [b - a for a, b in pairwise(places)]
    assert widths == pytest.approx([widths[0]] * 4, abs=0.11)
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', drawing)]
    assert heights == sorted(heights, reverse=True)
