"""The study of limits: what is made of captions and photographs, and what the page says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import limits, limits_page
from pictura.config import load
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.comparison import Measured


class Backwards:
    """Draws the last of what there is."""

    def integers(self, n: int) -> int:
        return n - 1

    def permutation(self, n: int) -> Any:
        return torch.arange(n).flip(0).numpy()


def edits(caption: str) -> dict[str, str]:
    return {kind: " ".join(words) for kind, words in limits.changed(caption.split(), Backwards())}


def test_captions_are_changed_by_rule() -> None:
    assert edits("two dogs in red and a cat on blue grass") == {
        "binding": "two dogs in blue and a cat on red grass",
        "count": "five dogs in red and a cat on blue grass",
        "relation": "two dogs in red and a cat under blue grass",
        "order": "grass blue on cat a and red in dogs two",
    }
    assert set(edits("a black and white dog")) == {"order"}  # the same dog, white and black
    assert edits("five dogs")["count"] == "four dogs"
    assert edits("dog") == {}


@pytest.mark.parametrize("motion", limits.MOTIONS)
def test_the_camera_stays_within_the_picture_and_goes_where_it_should(motion: str) -> None:
    boxes = torch.tensor([limits.seen(motion, t / 7, 200, 150) for t in range(8)])
    assert float(boxes.min()) >= 0 and float(boxes[:, 2].max()) <= 200 and float(boxes[:, 3].max()) <= 150
    side, left = boxes[:, 2] - boxes[:, 0], boxes[:, 0]
    step = side.diff() if motion.startswith("zooming") else left.diff()
    rises = motion in ("moving right", "zooming out")
    assert bool((step > 0).all() if rises else (step < 0).all())


def test_what_is_asked_of_scenes_are_measurements() -> None:
    for given in limits.of_scenes(Path()).values():
        assert load(EvaluatorConfig, given).kind == given["kind"]


def test_gains_are_of_all_templates_over_their_mean() -> None:
    each = {"zeroshot/a_0/top1": [1, 0, 0, 0], "zeroshot/a_1/top1": [1, 1, 0, 0], "zeroshot/a/top1": [1, 1, 1, 0]}
    found = Measured("m", {}, {metric: torch.tensor(rows) > 0 for metric, rows in each.items()})
    low, mean, high, together, gain, *interval = limits.gains(found)["a"]
    assert (low, mean, high, together) == (0.25, 0.375, 0.5, 0.75)
    assert gain == pytest.approx(0.375) and interval[0] <= gain <= interval[1]


def test_the_page_tells_what_was_measured(tmp_path: Path) -> None:
    shots = {
        f"few_shot/{method}/{n}/{what}": 0.01 * n
        for method in limits_page.METHODS
        for n in limits_page.SHOTS
        for what in ("top1", "half_width")
    }
    dips = {f"few_shot/{method}/dip": 0.2 for method in limits_page.METHODS}
    metrics = shots | dips | {"few_shot/zeroshot/top1": 0.5, "robustness/clean/top1": 0.9, "robustness/mean/top1": 0.4}
    metrics |= {"robustness/fog/top1": 0.4, "choices/accuracy": 0.5, "choices/order/accuracy": 0.625}
    metrics |= {"choices/order/chance": 0.5, "actions/top1": 0.25}
    stamp = {"machine": "two cores", "seconds": 90.0, "date": "2026-11-22T00:00:00"}
    curves = {"fog": {str(severity): 0.9 - 0.1 * severity for severity in range(1, 6)}}
    scenes = stamp | {"metrics": metrics, "curves": curves, "gains": {"shape": [0.5, 0.6, 0.7, 0.8, 0.2, 0.1, 0.3]}}
    told = {f"captions/{name}": 0.5 for name in ("CIDEr", "BLEU-1", "BLEU-4", "ROUGE-L")}
    done = {"scenes": scenes, "captions of scenes": stamp | {"metrics": told, "curves": {}, "gains": {}}}
    text = limits_page.tables(done)
    assert "| scenes, shapes | 50.0 % | 60.0 % | 70.0 % | 80.0 % | +20.0 (+10.0 to +30.0) |" in text
    assert "| `ridge` | 1.0 % ± 1.0 |" in text and "| fog | 40.0 % |" in text
    assert "| scenes |  | 62.5 % (50 %) |" in text
    assert "| scenes | 0.500 | 0.500 | 0.500 | 0.500 |" in text
    assert "Measured in 3 minutes; two cores, 2026-11-22." in text
    for block in text.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block
    limits_page.plot(done, tmp_path / "limits.svg")
    assert (tmp_path / "limits.svg").read_text().count("<svg") == 1
