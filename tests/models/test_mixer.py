from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import nn

from pictura.config import load, sized
from pictura.models.base import ImageTowerConfig
from pictura.models.mixer import Mixer, MixerConfig

TINY = MixerConfig(image_size=32, patch_size=8, width=24, depth=3, tokens=10, channels=40)


def stirred(config: MixerConfig) -> Mixer:
    """A model no tensor of which is zero or one throughout."""
    torch.manual_seed(0)
    model = config.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


@pytest.mark.parametrize(("activation", "act"), [("gelu", "gelu"), ("gelu_tanh", "gelu_tanh")])
def test_against_timm_by_its_own_names(activation: Any, act: str) -> None:
    model = stirred(replace(TINY, activation=activation))
    peer = timm.models.MlpMixer(
        img_size=32,
        patch_size=8,
        embed_dim=24,
        num_blocks=3,
        num_classes=0,
        mlp_ratio=(10 / 24, 40 / 24),
        act_layer=timm.layers.get_act_layer(act),
    )
    peer.load_state_dict(model.state_dict())
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(image), peer.eval()(image))


@pytest.mark.parametrize("size", ["S/32", "S/16", "B/32", "B/16", "L/32", "L/16"])
def test_published_sizes(size: str) -> None:
    with torch.device("meta"):
        peer = timm.create_model(f"mixer_{size.lower().replace('/', '')}_224", num_classes=0)
        model = sized(MixerConfig, size).build()
    found = {name: p.shape for name, p in model.named_parameters()}
    assert found == {name: p.shape for name, p in peer.named_parameters()}


# table 1, in millions, with the head of 1,000 classes that our tower leaves to its objective
PUBLISHED = {"S/32": 19, "S/16": 18, "B/32": 60, "B/16": 59, "L/32": 206, "L/16": 207, "H/14": 431}


@pytest.mark.parametrize("size", MixerConfig.sizes)
def test_parameters_are_as_many_as_published(size: str) -> None:
    config = load(ImageTowerConfig, {"kind": "mixer", "size": size, "image_size": 224})
    with torch.device("meta"):
        held = sum(p.numel() for p in config.build().parameters()) + 1000 * (config.width + 1)
    assert held == pytest.approx(1e6 * PUBLISHED[size], rel=0.03)


def test_only_pictures_of_its_size() -> None:
    with pytest.raises(ValueError, match=r"picture of 32 x 48 pixels: .* this one reads 32 x 32 only"):
        TINY.build()(torch.zeros(1, 3, 32, 48))


def test_whole_examples_are_dropped_in_training_only() -> None:
    model, image = stirred(replace(TINY, drop_path=0.9)), torch.randn(1, 3, 32, 32).expand(40, -1, -1, -1)
    assert len(model(image).unique(dim=0)) == 1
    torch.manual_seed(0)
    seen = len(model.train()(image).round(decimals=4).unique(dim=0))
    assert 1 < seen <= 16, "two of three blocks drop two parts each"


def test_every_parameter_gets_a_gradient() -> None:
    model = stirred(TINY).train()
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_fresh_weights() -> None:
    torch.manual_seed(0)
    block = replace(TINY, width=256, channels=1024).build().blocks[0]
    for module in block.modules():
        if isinstance(module, nn.Linear):
            bound = (6 / sum(module.weight.shape)) ** 0.5
            assert module.weight.abs().max() <= bound
            assert float(module.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1)
            assert not module.bias.any()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tokens": 0}, "^tokens: 0 must be above zero$"),
        ({"channels": -1}, "^channels: -1 must be above zero$"),
        ({"depth": 0}, "^depth: 0 must be above zero$"),
        ({"drop_path": 1.0}, "^drop_path: 1.0 must be at least 0 and below 1$"),
        ({"image_size": 30}, "^image_size: 30 is no multiple of patch_size 16; try 32$"),
    ],
)
def test_mistakes_are_named(change: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(ImageTowerConfig, {"kind": "mixer"} | change)
