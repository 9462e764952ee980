from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pictura.layers.draws import has_chance, two_draws
from pictura.models.base import ImageTowerConfig
from pictura.models.mixer import MixerConfig
from pictura.models.resnet import ResNetConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig

VIT = ViTConfig(width=32, depth=3, heads=2, patch_size=8, image_size=16)
MIXER = MixerConfig(width=16, depth=3, tokens=8, channels=32, patch_size=8, image_size=16)
RESNET = ResNetConfig(block="basic", layers=(1, 1, 1, 1), stem="cifar", width=8, image_size=16)
IMAGE = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def passes(tower: nn.Module, run: list[int]) -> None:
    """Notes in `run` how many examples each block is given."""
    for block in tower.blocks:  # type: ignore[union-attr]
        block.register_forward_pre_hook(lambda _, given: run.append(len(given[0])))


@pytest.mark.parametrize(
    ("config", "examples"),
    [
        (replace(VIT, dropout=0.5), [5, 10, 10]),  # the first block's attention is there before any dropout
        (replace(VIT, drop_path=0.5), [5, 5, 10]),  # and the first block drops no path
        (replace(VIT, patch_dropout=0.5), [10, 10, 10]),
        (replace(VIT, drop_path=0.5, pool="average"), [5, 5, 10]),
        (replace(MIXER, drop_path=0.5), [5, 10, 10]),
        (replace(MIXER, dropout=0.1), [10, 10, 10]),
    ],
)
def test_two_draws_begin_where_chance_does(config: ImageTowerConfig, examples: list[int]) -> None:
    torch.manual_seed(0)
    tower, run = config.build().train(), list[int]()
    passes(tower, run)
    with two_draws(tower):
        out = tower(IMAGE)
    assert out.shape == (10, config.features) and run == examples
    assert (out[:5] - out[5:]).abs().amax(1).gt(1e-4).float().mean() > 0.5, "each has a draw of its own"
    assert tower(IMAGE).shape == (5, config.features), "outside, one draw"


@pytest.mark.parametrize("config", [VIT, MIXER, RESNET])
def test_without_chance_there_is_one(config: ImageTowerConfig) -> None:
    tower = config.build().train()
    assert not has_chance(tower)
    with two_draws(tower):
        assert len(tower(IMAGE)) == 5


def test_in_evaluation_there_is_one() -> None:
    tower = replace(VIT, dropout=0.5, patch_dropout=0.5).build().eval()
    with two_draws(tower):
        assert torch.equal(tower(IMAGE), tower(IMAGE)) and len(tower(IMAGE)) == 5


def test_each_half_is_a_pass_of_its_own() -> None:
    """With masks that only depend on the row, both halves are what two passes give."""
    tower = replace(VIT, dropout=0.5).build().train()
    masks = {n: (torch.rand(2, n, 1, 32, generator=torch.Generator().manual_seed(n)) > 0.5).float() for n in (1, 5)}

    def drop(half: slice) -> None:
        for module in tower.modules():
            if isinstance(module, nn.Dropout):
                module.forward = lambda x: x * masks[5][half].flatten(0, 1)[..., :1]  # type: ignore[method-assign]

    drop(slice(0, 2))
    with two_draws(tower):
        both = tower(IMAGE)
    for half in (0, 1):
        drop(slice(half, half + 1))
        torch.testing.assert_close(both[5 * half : 5 * half + 5], tower(IMAGE))


def test_a_text_tower_with_dropout_reads_each_text_twice() -> None:
    config = TextTransformerConfig(width=16, depth=2, heads=2, vocab_size=30, context_length=6, dropout=0.5)
    text = torch.tensor([[3, 4, 29, 0, 0, 0], [5, 6, 7, 8, 9, 29]])
    tower = config.build().train()
    with two_draws(tower):
        out: Tensor = tower(text)
    assert out.shape == (4, 16) and not torch.equal(out[:2], out[2:])
    with two_draws(tower):
        assert len(replace(config, dropout=0.0).build().train()(text)) == 2
