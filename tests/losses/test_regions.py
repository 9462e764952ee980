"""The losses of a detector against naive loops."""

import math

import pytest
import torch
from torchvision.models.detection.roi_heads import fastrcnn_loss

from pictura.losses.regions import box_loss, distillation_loss, mask_loss, named, naming_loss, per_picture


def test_names_against_a_loop() -> None:
    torch.manual_seed(0)
    regions, classes, background = torch.randn(6, 8), torch.randn(4, 8) * 3, torch.randn(8) * 0.01
    target, scale = torch.tensor([0, 3, -1, 2, -1, 1]), torch.tensor(12.5)
    loss = naming_loss(regions, classes, background, scale, target)
    for i, region in enumerate(regions.double()):
        scores = []
        for word in [background.double(), *classes.double()]:
            scores.append(12.5 * float(region @ word) / float(region.norm() * word.norm()))
        total = math.log(sum(math.exp(score) for score in scores))
        assert loss[i].item() == pytest.approx(total - scores[int(target[i]) + 1], abs=1e-5)
    assert named(regions, classes, background, scale).shape == (6, 5)


def test_distillation_against_a_loop() -> None:
    torch.manual_seed(0)
    regions, taught = torch.randn(5, 8), torch.randn(5, 8) * 2
    loss = distillation_loss(regions, taught)
    for i in range(5):
        a, b = regions[i].double(), taught[i].double()
        wanted = sum(abs(float(x / a.norm() - y / b.norm())) for x, y in zip(a, b, strict=True))
        assert loss[i].item() == pytest.approx(wanted, abs=1e-6)
    assert distillation_loss(taught * 7, taught).max() < 1e-6


def test_a_vector_of_zeros_is_no_nan() -> None:
    zeros = torch.zeros(2, 8, requires_grad=True)
    loss = (
        distillation_loss(zeros, torch.randn(2, 8)).sum()
        + naming_loss(zeros, torch.randn(3, 8), torch.zeros(8), torch.tensor(100.0), torch.tensor([0, -1])).sum()
    )
    loss.backward()
    assert loss.isfinite()
    assert zeros.grad is not None and zeros.grad.isfinite().all()


def test_boxes_are_torchvisions_for_one_class() -> None:
    torch.manual_seed(0)
    deltas, target = torch.randn(6, 4), torch.randn(6, 4)
    labels = torch.tensor([1, 1, 0, 1, 0, 0])
    _, theirs = fastrcnn_loss(torch.zeros(6, 2), torch.cat([torch.zeros(6, 4), deltas], 1), [labels], [target])
    own = box_loss(deltas, target, 1 / 9) * (labels > 0)
    assert own.sum().item() / 6 == pytest.approx(theirs.item(), abs=1e-6)


def test_masks_against_a_loop() -> None:
    torch.manual_seed(0)
    masks, target = torch.randn(3, 4, 5), torch.rand(3, 4, 5)
    for i, loss in enumerate(mask_loss(masks, target).tolist()):
        pairs = zip(masks[i].flatten().tolist(), target[i].flatten().tolist(), strict=True)
        wanted = [math.log(1 + math.exp(score)) - score * truth for score, truth in pairs]
        assert loss == pytest.approx(sum(wanted) / 20, abs=1e-6)


def test_means_of_pictures_against_a_loop() -> None:
    values, picture = torch.tensor([1.0, 2, 3, 4]), torch.tensor([2, 0, 2, 2])
    assert per_picture(values, picture, 4).tolist() == pytest.approx([2.0, 0.0, 8 / 3, 0.0])
