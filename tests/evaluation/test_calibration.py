from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.evaluation.calibrate import average_precision, calibration_error, separation
from pictura.evaluation.calibration import Calibration
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery
from pictura.evaluation.report import write_report
from pictura.evaluation.zeroshot import classifier
from tests.evaluation.conftest import Made

NAMES = ("dog", "cat", "house", "tree")
LABELS = [i * 3 % 4 for i in range(30)]


def test_numbers_are_those_of_a_plain_loop(embedder: Embedder, tmp_path: Path) -> None:
    source = Made(30, labels=LABELS, names=NAMES, broken=[4])
    evaluator = Calibration(source, ("a {}", "the {}"), name="made")
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))
    weights = classifier(embedder, NAMES, ("a {}", "the {}"))
    kept = [i for i in range(30) if i != 4]
    cosines = torch.cat([embedder.images([source[i]["image"]]) for i in kept]) @ weights
    label = torch.tensor([LABELS[i] for i in kept])
    share = (embedder.scale * cosines).softmax(1)
    truth = F.one_hot(label, 4)
    others = [[float(row[c]) for c in range(4) if c != own] for row, own in zip(cosines, label.tolist(), strict=True)]
    assert values == {
        "calibration/made/error": pytest.approx(calibration_error(share.amax(1), share.argmax(1) == label), abs=1e-6),
        "calibration/made/cross_entropy": pytest.approx(float(-share[range(29), label].log().mean()), rel=1e-5),
        "calibration/made/brier": pytest.approx(float((share - truth).square().sum(1).mean()), rel=1e-4),
        "calibration/made/separation": pytest.approx(
            separation(cosines.amax(1), torch.tensor(others).amax(1)), abs=1e-6
        ),
    }
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())


def test_data_that_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="calibration: the data has no label"):
        Calibration(Made(3))


def test_pictures_of_no_class_are_looked_at_beside(embedder: Embedder, tmp_path: Path) -> None:
    source, strange = Made(30, labels=LABELS, names=NAMES), Made(45)
    evaluator = Calibration(source, ("a {}",), name="made", outside=strange)
    values = dict(evaluator.run(embedder))
    weights = classifier(embedder, NAMES, ("a {}",))
    cosines = [
        torch.cat([embedder.images([one[i]["image"]]) for i in some]) @ weights
        for one, some in ((source, range(30)), (strange, range(45)))
    ]
    sure = [(embedder.scale * some).softmax(1).amax(1) for some in cosines]
    apart = separation(*(some.amax(1) for some in cosines))
    assert values["calibration/made/outside/separation"] == pytest.approx(apart, abs=2e-3)
    aupr = naive_precision((1 - sure[1]).tolist(), (1 - sure[0]).tolist())
    assert values["calibration/made/outside/aupr"] == pytest.approx(aupr, abs=0.02)
    gallery = evaluator.panels()[-1]
    assert isinstance(gallery, Gallery)
    ((_, pictures),) = gallery.rows
    assert len(pictures) == 12 and pictures[0].lines[0].value == f"{100 * float(sure[1].max()):.0f} %"
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())
    again = Calibration(source, ("a {}",), name="made")
    inside = dict(again.run(embedder))
    assert inside == {name: value for name, value in values.items() if "outside" not in name}
    with pytest.raises(ValueError, match="outside: the data has no usable picture"):
        dict(Calibration(source, outside=Made(0)).run(embedder))


def naive_precision(found: list[float], others: list[float]) -> float:
    """For each threshold: the precision there, times how much recall rose."""
    total, before = 0.0, 0
    for threshold in sorted({*found, *others}, reverse=True):
        right = sum(score >= threshold for score in found)
        taken = right + sum(score >= threshold for score in others)
        total, before = total + right / taken * (right - before) / len(found), right
    return total


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_average_precision_is_that_of_a_plain_loop(levels: int) -> None:
    """With many, few, and only equal scores."""
    generator = torch.Generator().manual_seed(levels)
    found, others = (
        torch.randint(levels, (n,), generator=generator).double() + shift for n, shift in ((40, 1), (90, 0))
    )
    assert average_precision(found, others) == pytest.approx(naive_precision(found.tolist(), others.tolist()))
    assert average_precision(torch.tensor([2.0, 3.0]), torch.tensor([1.0])) == 1
    assert average_precision(torch.tensor([0.0]), torch.tensor([1.0, 2.0, 3.0])) == 0.25


@pytest.mark.parametrize("measured", [separation, average_precision])
def test_a_diverged_model_does_not_look_good(measured: Callable[[Tensor, Tensor], float]) -> None:
    nan, some = torch.full((3,), torch.nan), torch.rand(3)
    assert max(measured(nan, nan), measured(nan, some), measured(some, nan)) <= 0.5
