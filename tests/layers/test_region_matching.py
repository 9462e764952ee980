"""Matching and drawing against plain loops, and against torchvision's own matcher."""

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from pictura.layers.region_matching import BACKGROUND, NEITHER, inside, match, sample


def some_boxes(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * 80
    return torch.cat([corner, corner + 5 + 40 * torch.rand(n, 2, generator=generator)], 1)


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize(("high", "low"), [(0.7, 0.3), (0.5, 0.5)])
def test_matches_are_torchvisions(high: float, low: float, best: bool) -> None:
    for seed in range(20):
        boxes, true = some_boxes(60, seed), some_boxes(4, seed + 100)
        found = match(boxes, true, torch.zeros(4, dtype=torch.bool), high, low, best=best)
        theirs = Matcher(high, low, allow_low_quality_matches=best)(box_iou(true, boxes))
        assert found.tolist() == theirs.tolist()
    assert (Matcher.BELOW_LOW_THRESHOLD, Matcher.BETWEEN_THRESHOLDS) == (BACKGROUND, NEITHER)


def test_what_lies_in_a_crowd_is_neither_thing_nor_background() -> None:
    true = torch.tensor([[0.0, 0, 10, 10], [50, 50, 100, 100]])
    crowd = torch.tensor([False, True])
    boxes = torch.tensor([[0.0, 0, 10, 10], [60, 60, 70, 70], [50, 50, 100, 100], [20, 20, 30, 30], [45, 60, 55, 70.1]])
    assert match(boxes, true, crowd, 0.5, 0.5).tolist() == [0, NEITHER, NEITHER, BACKGROUND, NEITHER]
    assert match(boxes, true, crowd.flip(0), 0.5, 0.5).tolist() == [NEITHER, BACKGROUND, 1, BACKGROUND, BACKGROUND]


def test_the_number_of_a_true_box_counts_crowds() -> None:
    true = torch.tensor([[50.0, 50, 100, 100], [0, 0, 10, 10]])
    assert match(true, true, torch.tensor([True, False]), 0.5, 0.5).tolist() == [NEITHER, 1]


def test_a_picture_without_boxes_is_background() -> None:
    nothing = torch.zeros(0, 4)
    assert match(some_boxes(3, 0), nothing, torch.zeros(0, dtype=torch.bool), 0.7, 0.3, best=True).tolist() == [-1] * 3


def test_shares_of_area_against_a_loop() -> None:
    boxes, regions = some_boxes(7, 1), some_boxes(5, 2)
    for i, a in enumerate(boxes.tolist()):
        for j, b in enumerate(regions.tolist()):
            common = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            share = common / ((a[2] - a[0]) * (a[3] - a[1]))
            assert inside(boxes, regions)[i, j].item() == pytest.approx(share, abs=1e-5)


def test_a_draw_has_its_share_of_things_and_fills_up_with_background() -> None:
    found = torch.tensor([0] * 30 + [BACKGROUND] * 100 + [NEITHER] * 50)
    drawn = sample(found, 40, 0.25, 7)
    assert len(drawn.unique()) == len(drawn) == 40
    assert found[drawn].tolist() == [0] * 10 + [BACKGROUND] * 30
    assert torch.equal(drawn, sample(found, 40, 0.25, 7))
    assert not torch.equal(drawn, sample(found, 40, 0.25, 8))
    few = sample(found[25:40], 40, 0.25, 7)
    assert sorted(few.tolist()) == list(range(15)), "all that there is"
    assert len(sample(found[130:], 40, 0.25, 7)) == 0


def test_every_place_is_drawn_equally_often() -> None:
    found = torch.tensor([0] * 8 + [BACKGROUND] * 8)
    times = torch.zeros(16)
    for seed in range(2000):
        times[sample(found, 8, 0.5, seed)] += 1
    assert (times / 2000 - 0.5).abs().max() < 0.06
