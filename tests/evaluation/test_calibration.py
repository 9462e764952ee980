from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pictura.evaluation.calibrate import calibration_error, separation
from pictura.evaluation.calibration import Calibration
from pictura.evaluation.embed import Embedder
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
