from collections.abc import Iterator

import pytest
import torch

from pictura.config import kinds
from pictura.evaluation.base import Evaluator, EvaluatorConfig, exact_products, measure, outranked, thumbnail
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Line, Panel
from tests.evaluation.conftest import Made


class Fixed(Evaluator):
    def __init__(self, **values: float) -> None:
        self.values = values

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        yield from self.values.items()

    def panels(self) -> list[Panel]:
        return []


def test_kinds_are_found() -> None:
    assert {"zeroshot", "retrieval"} <= set(kinds(EvaluatorConfig))


def test_measure_collects_and_refuses_one_name_twice(embedder: Embedder) -> None:
    assert measure({"x": Fixed(a=1.0), "y": Fixed(b=2.0)}, embedder) == {"a": 1.0, "b": 2.0}
    with pytest.raises(ValueError, match=r"evaluation\.y: a is measured by evaluation\.x too"):
        measure({"x": Fixed(a=1.0), "y": Fixed(a=2.0)}, embedder)


def test_ties_and_nan_stand_before_the_right_one() -> None:
    scores = torch.tensor([[0.5, 0.5, 0.1], [0.2, 0.9, torch.nan], [torch.nan, 0.0, 0.0], [0.3, 0.1, 0.2]])
    own = torch.tensor([0, 1, 0, 0])
    assert outranked(scores, own).sum(1).tolist() == [1, 1, 2, 0]


def test_products_are_exact_inside_and_as_set_outside() -> None:
    settings = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = [setting.fp32_precision for setting in settings]
    try:
        torch.set_float32_matmul_precision("medium")
        with exact_products():
            assert [setting.fp32_precision for setting in settings] == ["ieee", "ieee"]
        assert torch.get_float32_matmul_precision() == "medium"
        assert [setting.fp32_precision for setting in settings] == ["tf32", "bf16"]
    finally:
        torch.set_float32_matmul_precision("highest")
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def test_a_thumbnail_is_small_and_a_lost_picture_is_a_gap() -> None:
    picture = thumbnail(Made(2, broken=[1]), 0, (Line("x"),), True)
    assert picture.image is not None and max(picture.image.size) <= 160
    assert picture.lines == (Line("x"),) and picture.good
    gap = thumbnail(Made(2, broken=[1]), 1, (Line("x"),))
    assert gap.image is None
    assert "made to be broken" in gap.lines[0].text
