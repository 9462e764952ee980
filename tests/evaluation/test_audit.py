from dataclasses import replace
from typing import Any

import pytest

from pictura.data.scenes import ScenesConfig
from pictura.evaluation.audit import findings, graded, panel
from pictura.evaluation.base import measure
from pictura.evaluation.embed import Embedder
from pictura.evaluation.suite import limits

METRICS = {
    "zeroshot/top1": 0.9,
    "zeroshot/fine/top1": 0.85,
    "zeroshot/new_shapes/top1": 0.2,
    "choices/accuracy": 0.6,
    "choices/chance": 0.4,
    "choices/binding/accuracy": 0.51,
    "choices/binding/chance": 0.5,
    "choices/colour/accuracy": 0.97,
    "choices/colour/chance": 0.25,
    "choices/count/accuracy": 0.5,
    "choices/count/chance": 0.25,
    "typographic/clean/top1": 0.9,
    "typographic/covered/top1": 0.8,
    "typographic/covered/fooled": 0.05,
    "calibration/outside/separation": 0.6,
    "typographic/inscribed/top1": 0.3,
    "typographic/fooled": 0.6,
    "robustness/clean/top1": 0.9,
    "robustness/fog/top1": 0.5,
    "robustness/contrast/top1": 0.8,
    "robustness/mean/top1": 0.65,
    "few_shot/ridge/dip": 0.25,
    "few_shot/prompt_logistic/dip": 0.0,
    "calibration/error": 0.02,
    "calibration/separation": 0.95,
}


def test_each_limit_has_its_verdict() -> None:
    found = {one.what: one.verdict for one in findings(METRICS)}
    assert found == {
        "fine": "fine", "new shapes": "no", "binding": "no", "colour": "fine", "count": "weak", "written words": "no",
        "corrupted pictures": "weak", "few examples": "no", "probabilities": "fine", "none of these": "fine",
        "something else": "no",
    }  # fmt: skip


def test_the_worst_come_first_and_say_what_helps() -> None:
    found = findings(METRICS)
    page = panel(found).html()
    assert page.index("new shapes") < page.index("count") < page.index("colour")
    assert "a linear probe falls 25.0 points below zero-shot; begun at the names, 0.0" in page
    assert "worst: fog 50.0%, contrast 80.0%" in page


def test_what_was_not_looked_at_is_not_told() -> None:
    assert findings({}) == []
    assert [one.what for one in findings({"zeroshot/fine/top1": 0.5})] == ["fine"]


def test_evaluators_yield_what_is_judged(embedder: Embedder) -> None:
    """Names that an evaluator changes would be passed over in silence. (`test_suite` has the other limits.)"""
    kind: dict[str, Any] = {"objects": (1, 1), "gives": ("image", "label"), "label_of": "shape", "image_size": 32}
    outside = ScenesConfig(**kind, split="shapes", count=20)
    train = ScenesConfig(**kind, count=150, seed=1)
    chosen: dict[str, Any] = limits(ScenesConfig(**kind, count=60), train, "drawn", outside)
    chosen["few_shot"] = replace(chosen["few_shot"], shots=(1,), draws=1)
    chosen["robustness"] = replace(chosen["robustness"], corruptions=("contrast",))
    metrics = measure({name: config.build() for name, config in chosen.items()}, embedder)
    assert "zeroshot/top1" in metrics
    found = findings(metrics | {"zeroshot/top1": 0.5})  # none is right at all: corruptions would not be told of
    assert [one.what for one in found] == [
        "written words", "corrupted pictures", "few examples", "probabilities", "none of these",
        "something else",
    ]  # fmt: skip
    (few,) = (one.found for one in found if one.what == "few examples")
    assert few.endswith(f"begun at the names, {100 * metrics['few_shot/prompt_logistic/dip']:.1f}")


@pytest.mark.parametrize(
    ("value", "said"), [(0.9, "fine"), (0.899, "weak"), (0.6, "weak"), (0.59, "no"), (float("nan"), "no")]
)
def test_grades(value: float, said: str) -> None:
    assert graded(value, 0.9, 0.6) == said
