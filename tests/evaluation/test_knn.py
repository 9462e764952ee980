import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pictura.config import load
from pictura.data.source import Source
from pictura.evaluation import knn
from pictura.evaluation.base import TIE, EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.knn import KNN, KNNConfig, nearest, votes
from pictura.evaluation.report import write_report
from tests.evaluation.conftest import Largest, Made
from tests.evaluation.test_probe import NAMES, Coloured


def naive(rows: Tensor, x: Tensor, label: list[int], classes: int, k: int, temperature: float) -> list[list[float]]:
    """The votes' shares, one picture and one neighbour after the other, numbers of Python."""
    out = []
    for row in rows.tolist():
        cosines = [sum(a * b for a, b in zip(row, other, strict=True)) for other in x.tolist()]
        order = sorted(cosines, reverse=True)[:k]
        above = sum(c > order[-1] + TIE for c in order)
        level = sum(abs(c - order[-1]) <= TIE for c in cosines)
        shares = [0.0] * classes
        for c, of in zip(cosines, label, strict=True):
            part = 1.0 if c > order[-1] + TIE else (len(order) - above) / level if c >= order[-1] - TIE else 0.0
            shares[of] += part * math.exp((c - order[0]) / temperature)
        out.append([share / sum(shares) for share in shares])
    return out


def close(scores: Tensor, temperature: float, expected: list[list[float]]) -> None:
    """Shares of a softmax of the scores, to a part in a hundred thousand of each."""
    torch.testing.assert_close(
        (scores.double() / temperature).softmax(1), torch.tensor(expected).double(), rtol=1e-5, atol=1e-12
    )


@pytest.mark.parametrize("k", [1, 5, 20, 59, 60, 200])
@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_votes_are_those_of_a_plain_loop(k: int, temperature: float) -> None:
    random = torch.Generator().manual_seed(0)
    x, rows = (F.normalize(torch.randn(n, 5, generator=random), dim=1) for n in (60, 30))
    label = torch.randint(0, 4, (60,), generator=random)
    scores = votes(rows, x, label, 4, k, temperature)
    assert scores.dtype == torch.float32
    expected = naive(rows, x, label.tolist(), 4, k, temperature)
    close(scores, temperature, expected)
    assert scores.argmax(1).tolist() == [row.index(max(row)) for row in expected]


@settings(max_examples=150)
@given(st.data(), st.integers(1, 12), st.integers(1, 5))
def test_pictures_that_tie_for_the_last_places_share_them(data: st.DataObject, k: int, block: int) -> None:
    """On a coarse grid, where most cosines are the same, and in any blocks."""
    n, b, d = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    grid = st.integers(-1, 1)
    x, rows = (
        torch.tensor(data.draw(st.lists(grid, min_size=m * d, max_size=m * d))).float().view(m, d) for m in (n, b)
    )
    label = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "BLOCK", block)
        scores = votes(rows, x, torch.tensor(label), 3, k, 0.5)
    close(scores, 0.5, naive(rows, x, label, 3, k, 0.5))


def test_the_order_of_files_changes_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    x = F.normalize(torch.randint(-1, 2, (50, 4), generator=random) + 0.01, dim=1)
    label = torch.randint(0, 3, (50,), generator=random)
    other = torch.randperm(50, generator=random)
    torch.testing.assert_close(votes(x, x, label, 3, 7, 0.1), votes(x, x[other], label[other], 3, 7, 0.1))


@pytest.mark.parametrize("block", [1, 7, 64])
def test_nearest_are_the_largest_of_all_cosines(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    x, rows = torch.randn(40, 6, generator=random), torch.randn(9, 6, generator=random)
    monkeypatch.setattr(knn, "BLOCK", block)
    for k in (1, 3, 40, 50):
        cosine, place = nearest(rows, x, k)
        expected, order = (rows @ x.T).sort(1, descending=True)
        assert torch.equal(place, order[:, :k])
        torch.testing.assert_close(cosine, expected[:, :k])


def test_cold_votes_ask_the_nearest_and_hot_ones_count_heads() -> None:
    cosine = torch.tensor([0.9, 0.5, 0.4, 0.3])
    x = torch.stack([cosine, (1 - cosine**2).sqrt()], 1)
    label = torch.tensor([0, 1, 1, 2])
    rows = torch.tensor([[1.0, 0.0]])
    assert votes(rows, x, label, 3, 4, 1e-3).argmax() == 0
    assert votes(rows, x, label, 3, 4, 1e3).argmax() == 1
    hot = (votes(rows, x, label, 3, 3, 1e3).double() / 1e3).softmax(1)
    torch.testing.assert_close(hot[0, :2], torch.tensor([1 / 3, 2 / 3]).double(), atol=1e-3, rtol=0)
    assert hot[0, 2] == 0, "the fourth is no neighbour"


def test_the_whole_matrix_is_never_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "BLOCK", 30)
    x, label = F.normalize(torch.ones(1000, 3), dim=1), torch.arange(1000) % 4
    with Largest() as watch:
        votes(x[:20], x, label, 4, 10, 0.1)  # where all tie too
    assert 20 * 30 <= watch.numbers <= 20 * (30 + 11)


def test_what_it_yields_is_counted_as_in_a_plain_loop(embedder: Embedder, tmp_path: Path) -> None:
    train, test = Coloured(60, broken=(3,)), Coloured(40, first=100, broken=(0, 9))
    evaluator = KNN(train, test, k=10, temperature=0.07, name="colour")
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))
    assert list(values) == ["knn/colour/top1", "knn/colour/mean_per_class"]
    shares = naive(embedder.images(test), embedder.images(train), train.labels().tolist(), 3, 10, 0.07)
    right = torch.tensor([row.index(max(row)) for row in shares]) == test.labels()
    recall = [float(right[test.labels() == c].double().mean()) for c in range(3)]
    assert values["knn/colour/top1"] == float(right.double().mean())
    assert values["knn/colour/mean_per_class"] == pytest.approx(sum(recall) / 3)
    assert values["knn/colour/top1"] > 0.6, "a third is chance"
    sure = evaluator.outcome[3].exp()
    torch.testing.assert_close(sure, torch.tensor([max(row) for row in shares]), rtol=1e-4, atol=0)
    note = evaluator.panels()[0].note
    assert "38 pictures, 3 classes, by vote of the nearest 10 of 59 other pictures." in note
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())
    assert dict(evaluator.run(embedder)) == values


def test_a_layer_on_the_way_is_read(embedder: Embedder) -> None:
    train, test = Coloured(60), Coloured(40, first=100)
    evaluator = KNN(train, test, k=7, layer=0)
    values = dict(evaluator.run(embedder))
    shares = naive(embedder.images(test, 0), embedder.images(train, 0), train.labels().tolist(), 3, 7, 0.1)
    right = torch.tensor([row.index(max(row)) for row in shares]) == test.labels()
    assert values["knn/top1"] == float(right.double().mean())
    assert "nearest 7 in layer 0 of 60" in evaluator.panels()[0].note


def test_where_there_are_fewer_than_k_all_of_them_vote(embedder: Embedder) -> None:
    train, test = Coloured(30), Coloured(20, first=100)
    evaluator = KNN(train, test, k=200)
    values = dict(evaluator.run(embedder))
    assert values == dict(KNN(train, test, k=30).run(embedder))
    assert "the nearest 30 of 30 other pictures" in evaluator.panels()[0].note


def test_classes_in_another_order_change_nothing(embedder: Embedder) -> None:
    same = KNN(Coloured(60), Coloured(40, first=100), k=9)
    other = KNN(Coloured(60), Coloured(40, first=100, names=("blue", "red", "green")), k=9)
    assert dict(same.run(embedder)) == dict(other.run(embedder))
    assert torch.equal(same.confusion(), other.confusion())


def test_top5_is_there_where_there_are_more_classes_than_five(embedder: Embedder) -> None:
    source = Made(30, labels=[i % 6 for i in range(30)])
    values = dict(KNN(source, source, k=1).run(embedder))
    assert list(values) == ["knn/top1", "knn/top5", "knn/mean_per_class"]
    assert set(values.values()) == {1.0}, "each is its own neighbour"


@pytest.mark.parametrize("k", [1, 4, 20, 30, 200])
def test_a_collapsed_or_broken_model_is_never_right(
    embedder: Embedder, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the order: the first k of all these that tie would be of one class."""
    source = Made(30, labels=[i // 10 for i in range(30)])
    for value in (torch.nan, 1.0):
        monkeypatch.setattr(embedder.model, "encode_image", lambda image, v=value: torch.full((len(image), 24), v))
        values = dict(KNN(source, source, k=k).run(embedder))
        assert values == {"knn/top1": 0, "knn/mean_per_class": 0}


def test_what_differs_by_rounding_only_is_collapsed_too() -> None:
    random = torch.Generator().manual_seed(0)
    x = F.normalize(1 + 1e-5 * torch.randn(3000, 512, generator=random), dim=1)
    label = torch.arange(3000) // 1000
    scores = votes(x[::100], x, label, 3, 200, 0.07)
    assert (scores.max(1).values - scores.min(1).values).max() < TIE


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (Made(2), Made(2, labels=[0, 1]), "^knn: train: the data has no label"),
        (Made(2, labels=[0, 1]), Made(2), "^knn: the data has no label"),
        (Made(0, labels=[]), Made(2, labels=[0, 1]), "^knn: train: the data has no usable picture"),
        (Coloured(9), Made(2, labels=[0, 1], names=("red", "dog")), "^knn: test has 2 classes and train 3.*'dog'"),
        (Made(2, labels=[0, 3], names=NAMES), Coloured(9), "^knn: train: label 3 in the data, but there are 3"),
    ],
)
def test_mistakes_are_named(embedder: Embedder, train: Source, test: Source, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dict(KNN(train, test).run(embedder))


def test_a_recipe_names_it_by_kind() -> None:
    scenes = {"kind": "scenes", "gives": ["image", "label"], "objects": [1, 1], "count": 6, "label_of": "shape"}
    words = {"kind": "knn", "train": scenes, "test": scenes | {"split": "fresh"}, "k": 20, "layer": -1}
    config = load(EvaluatorConfig, words)
    assert isinstance(config, KNNConfig)
    built = config.build()
    assert (built.k, built.temperature, built.layer, built.title) == (20, 0.1, -1, "knn")
    for key, value in (("k", 0), ("temperature", 0), ("temperature", -1), ("temperature", math.inf)):
        with pytest.raises(ValueError, match=f"{key}: "):
            load(EvaluatorConfig, words | {key: value})
