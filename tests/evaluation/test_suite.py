from typing import Any

import pytest

from pictura.data.scenes import ScenesConfig
from pictura.data.source import SourceConfig
from pictura.evaluation.audit import findings
from pictura.evaluation.base import measure
from pictura.evaluation.embed import Embedder
from pictura.evaluation.suite import drawn_limits, suite
from tests.models.small import BY_KIND, built

LABELLED: dict[str, Any] = {"objects": (1, 1), "gives": ("image", "label"), "label_of": "shape", "image_size": 32}


def scenes(**more: Any) -> SourceConfig:
    return ScenesConfig(**({"count": 20, "image_size": 32} | more))


def test_what_is_measured_follows_the_data(embedder: Embedder) -> None:
    labelled, train = scenes(**LABELLED), scenes(**LABELLED, seed=1)
    assert list(suite(embedder.model, labelled)) == ["zeroshot", "calibration", "throughput"]
    some = ["zeroshot", "calibration", "probe", "knn", "few_shot", "throughput"]
    assert list(suite(embedder.model, labelled, train)) == some
    assert list(suite(embedder.model, scenes())) == ["retrieval", "throughput"]
    assert list(suite(embedder.model, scenes(gives=("image", "choices")))) == ["choices", "throughput"]


def test_and_the_model() -> None:
    classifier = built(BY_KIND["classifier"])
    assert list(suite(classifier, scenes(**LABELLED))) == ["accuracy", "throughput"]
    with pytest.raises(ValueError, match=r"nothing of this data \(captions, image\).*\(classifier\)"):
        suite(classifier, scenes())


def test_train_needs_labels(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="--train: it has no labels"):
        suite(embedder.model, scenes(**LABELLED), scenes())


def test_shifted_pictures_are_compared_by_names(embedder: Embedder) -> None:
    labelled, shifted = scenes(**LABELLED), scenes(**LABELLED, split="style")
    assert list(suite(embedder.model, labelled, shifted=shifted))[:3] == ["zeroshot", "calibration", "shift"]
    with pytest.raises(ValueError, match=r"--shifted: .*--on has no labels"):
        suite(embedder.model, scenes(), shifted=shifted)
    with pytest.raises(ValueError, match=r"--shifted: .*\(classifier\) reads no texts"):
        suite(built(BY_KIND["classifier"]), labelled, shifted=shifted)


def test_the_limits_of_a_model_that_knows_nothing(embedder: Embedder) -> None:
    """All of an audit on drawn scenes, of very few."""
    chosen = drawn_limits(24)
    del chosen["few_shot"]  # which needs 16 pictures of each class
    metrics = measure({name: config.build() for name, config in chosen.items()}, embedder)
    found = {one.what: one.verdict for one in findings(metrics)}
    assert {"fine", "new combinations", "new shapes", "new style", "binding", "count", "negation"} <= set(found)
    assert found["count"] != "fine"
