"""ViTs behind a ResNet: the same weights as timm's, the same numbers."""

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from pictura.config import load, sized
from pictura.models.base import ImageTowerConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.vit import ViTConfig


def stirred(name: str, **how: Any) -> nn.Module:
    """timm's model, no tensor of which is zero or one throughout."""
    torch.manual_seed(0)
    peer = timm.create_model(name, num_classes=0, **how)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return peer.eval()


def apart(found: Tensor, expected: Tensor) -> float:
    """The length of the difference, as a share of the length of what is expected."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("size", "name", "depth", "image_size"),
    [
        ("R+Ti/16", "vit_tiny_r_s16_p8_224", 12, 224),
        ("R26+S/32", "vit_small_r26_s32_224", 3, 224),
        ("R50+B/16", "vit_base_r50_s16_224", 2, 96),
        ("R50+L/32", "vit_large_r50_s32_224", 1, 64),
    ],
)
@torch.no_grad()
def test_against_timm_by_its_own_names(size: str, name: str, depth: int, image_size: int) -> None:
    peer = stirred(name, depth=depth, img_size=image_size)
    model = sized(ViTConfig, size, depth=depth, image_size=image_size).build().eval()
    model.load_state_dict(peer.state_dict())
    image = torch.randn(2, 3, image_size, image_size)
    expected = peer(image)
    assert apart(model(image), expected) < 1e-5
    assert apart(expected[:1], expected[1:]) > 1e-2  # two pictures are told apart by more than that


def test_the_position_of_each_patch_of_a_larger_picture() -> None:
    """Positions are resized on the way; a hybrid adapted to that size before gives the same."""
    config = sized(ViTConfig, "R+Ti/16", depth=2, image_size=96)
    torch.manual_seed(0)
    model = config.build().eval()
    larger = config.at(160).build().eval()
    larger.load_state_dict(config.at(160).adapted(model.state_dict(), config))
    image = torch.randn(1, 3, 160, 160)
    assert larger.pos_embed.shape == (1, 1 + 5 * 5, 192)
    torch.testing.assert_close(model(image), larger(image))


def test_it_learns_as_any_tower() -> None:
    tower = replace(sized(ViTConfig, "R+Ti/16"), depth=1, image_size=64)
    torch.manual_seed(0)
    model = ClassifierConfig(image=tower, classes=2).build()
    image, label = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(10):
        loss = nn.functional.cross_entropy(model.classify(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3  # it began at log 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"patch_size": 16}, r"^patch_size: 16 is no multiple of 32, the stride of a ResNet stem with layers"),
        ({"stem": {"layers": [3, 4, 9]}, "patch_size": 24}, r"^patch_size: 24 is no multiple of 16, .*; try 32$"),
    ],
)
def test_patches_that_do_not_fit_the_stem(change: dict[str, Any], complaint: str) -> None:
    config = load(ImageTowerConfig, {"kind": "vit", "size": "R26+S/32", "image_size": 96} | change)
    with pytest.raises(ValueError, match=complaint):
        config.build()
