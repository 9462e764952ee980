import csv
import io

import pytest
import torch

from pictura.evaluation.comparison import Measured, as_csv, heads, panel, rows
from pictura.evaluation.embed import Embedder
from pictura.evaluation.retrieval import Retrieval
from pictura.evaluation.zeroshot import ZeroShot
from tests.evaluation.conftest import Made

NAMES = ("dog", "cat", "house", "tree", "old house", "small tree")


def test_what_each_example_counts_has_the_metrics_mean(embedder: Embedder) -> None:
    labelled = Made(20, labels=[i % 6 for i in range(20)], names=NAMES, broken=[3])
    captioned = Made(12, captions=[[f"a dog {i}", "a cat"] for i in range(12)])
    found = Measured.by("m", {"z": ZeroShot(labelled, "plain"), "r": Retrieval(captioned)}, embedder)
    assert set(found.each) == {
        "zeroshot/top1", "zeroshot/top5",
        *(f"retrieval/{way}/R@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)),
    }  # fmt: skip
    for metric, each in found.each.items():
        assert found.metrics[metric] == pytest.approx(float(each.double().mean()))


def two() -> list[Measured]:
    better, worse = torch.arange(200) < 150, torch.arange(200) < 120
    one = Measured("one", {"a/top1": 0.6, "a/loss": 2.5}, {"a/top1": worse})
    return [one, Measured("two", {"a/top1": 0.75, "a/loss": 2.0, "b": 1.0}, {"a/top1": better})]


def test_differences_come_with_their_interval() -> None:
    models = two()
    mean, low, high = models[1].less(models[0])["a/top1"]
    assert mean == pytest.approx(0.15) and 0.09 < low < 0.11 < 0.19 < high < 0.21
    assert heads(models) == ("metric", "one", "two", "two - one")
    table = rows(models)
    assert (
        table[0][:3] == ("a/top1", "60.0 %", "75.0 %") and table[0][3].startswith("+15.0 (") and table[0][3][-1] == "*"
    )
    assert table[1] == ("a/loss", "2.5", "2", "") and table[2][1] == ""
    assert "two - one" in panel(models).html()


def test_of_other_examples_there_is_no_difference() -> None:
    models = two()
    other = Measured("three", {"a/top1": 0.5}, {"a/top1": torch.ones(5)})
    assert other.less(models[0]) == {}


def test_as_csv() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(two()))))
    assert [(line["model"], line["metric"]) for line in lines][:3] == [
        ("one", "a/top1"),
        ("one", "a/loss"),
        ("two", "a/top1"),
    ]
    assert lines[0]["difference"] == "" and float(lines[2]["difference"]) == pytest.approx(0.15)
    assert float(lines[2]["low"]) < 0.15 < float(lines[2]["high"])
