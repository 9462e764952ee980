from collections.abc import Callable

import pytest
import torch
from timm.layers import HybridEmbed, StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from torch import nn

from pictura.config import load
from pictura.layers.resnet_stem import ResNetStemConfig, StdConv
from pictura.layers.stems import StemConfig


def stirred(layers: tuple[int, ...], patch_size: int, width: int = 12) -> nn.Module:
    """A stem no tensor of which is zero or one throughout."""
    torch.manual_seed(0)
    stem = ResNetStemConfig(layers=layers).build(patch_size, width)
    with torch.no_grad():
        for parameter in stem.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return stem


def test_kind() -> None:
    assert load(StemConfig, {"kind": "resnet", "layers": [2, 2]}) == ResNetStemConfig(layers=(2, 2))
    assert load(StemConfig, {"kind": "resnet", "layers": []}) == ResNetStemConfig(layers=())
    assert ResNetStemConfig().layers == (3, 4, 9)


@pytest.mark.parametrize(
    ("layers", "patch_size"), [((), 4), ((), 32), ((1,), 4), ((2,), 12), ((1, 1), 8), ((1, 1), 24), ((1, 1, 1), 16)]
)
def test_one_token_for_each_patch(layers: tuple[int, ...], patch_size: int) -> None:
    stem = ResNetStemConfig(layers=layers).build(patch_size, 12)
    assert stem(torch.randn(2, 3, 2 * patch_size, 3 * patch_size)).shape == (2, 6, 12)


@pytest.mark.parametrize("patch_size", [8, 16])
def test_against_timm_on_pictures_that_are_not_square(patch_size: int) -> None:
    stem = stirred((1, 2), patch_size)

    def convolution(*sizes: int, **how: int) -> nn.Module:
        return StdConv2dSame(*sizes, **how, eps=1e-8)  # as timm's hybrids have it

    backbone = ResNetV2((1, 2), num_classes=0, global_pool="", preact=False, stem_type="same", conv_layer=convolution)
    peer = HybridEmbed(backbone, img_size=(32, 80), patch_size=patch_size // 8, embed_dim=12)
    peer.load_state_dict(stem.state_dict())
    image = torch.randn(2, 3, 32, 80)
    torch.testing.assert_close(stem(image), peer.eval()(image), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 2), (3, 1), (1, 2), (1, 1)])
def test_weights_are_standardised_and_maps_padded_as_xla_does(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    conv, x = StdConv(4, 5, kernel, stride), torch.randn(2, 4, 8, 12)
    flat = conv.weight.flatten(1)
    weight = ((flat - flat.mean(1, keepdim=True)) / flat.std(1, correction=0, keepdim=True)).view_as(conv.weight)
    expected = torch.zeros(2, 5, 8 // stride, 12 // stride)
    near = max(0, kernel - stride) // 2
    wide = torch.zeros(2, 4, 24, 28)
    wide[:, :, 8:16, 8:20] = x
    for i in range(8 // stride):
        for j in range(12 // stride):
            y, z = 8 + i * stride - near, 8 + j * stride - near
            expected[:, :, i, j] = torch.einsum("bcyx,ocyx->bo", wide[:, :, y : y + kernel, z : z + kernel], weight)
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-4)


def test_examples_do_not_see_each_other() -> None:
    stem, image = stirred((1, 1), 8).train(), torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(stem(image)[1:2], stem(image[1:2]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(33, 32), (32, 24), (8, 16)])
def test_pictures_that_are_no_whole_number_of_patches(height: int, width: int) -> None:
    stem = ResNetStemConfig(layers=(1, 1)).build(16, 12)
    with pytest.raises(
        ValueError, match=rf"^picture of {height} x {width} pixels: both sides must be multiples of patch_size 16$"
    ):
        stem(torch.zeros(1, 3, height, width))


@pytest.mark.parametrize(
    ("layers", "patch_size", "complaint"),
    [
        ((3, 4, 9), 14, r"14 is no multiple of 16, the stride of a ResNet stem with layers \[3, 4, 9\]; try 16$"),
        ((2, 2, 2, 2), 16, r"16 is no multiple of 32, the stride of a ResNet stem with layers \[2, 2, 2, 2\]; try 32$"),
        ((1, 1), 28, r"28 is no multiple of 8, .*; try 32$"),
        ((), 14, r"14 is no multiple of 4, the stride of a ResNet stem with layers \[\]; try 16$"),
        ((), 0, r"0 is no multiple of 4, .*; try 4$"),
    ],
)
def test_patches_that_it_cannot_cut(layers: tuple[int, ...], patch_size: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^patch_size: {complaint}"):
        ResNetStemConfig(layers=layers).build(patch_size, 12)


@pytest.mark.parametrize("layers", [[0], [3, -1]])
def test_a_stage_without_blocks(layers: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^layers: \[.*\] must be at least 1 each; \[\] has no stages at all$"):
        load(StemConfig, {"kind": "resnet", "layers": layers})


@pytest.mark.parametrize("layers", [(), (1, 2)])
def test_every_parameter_gets_a_gradient(layers: tuple[int, ...]) -> None:
    stem = stirred(layers, 8)
    stem(torch.randn(2, 3, 16, 16)).square().sum().backward()
    for name, parameter in stem.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("layers", [(), (1, 2)])
def test_every_parameter_is_initialised_by_the_stem(layers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory begins as NaN, and torch's layers leave it so: what the stem does not fill itself would show."""
    given: Callable[..., torch.Tensor] = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: given(*a, **k).fill_(torch.nan))
    for layer in (nn.Conv2d, nn.GroupNorm):
        monkeypatch.setattr(layer, "reset_parameters", lambda self: None)
    stem = ResNetStemConfig(layers=layers).build(8, 12)
    for name, parameter in stem.named_parameters():
        assert parameter.isfinite().all(), name


@torch.no_grad()
def test_a_fresh_bottleneck_is_its_shortcut() -> None:
    """So a stage of three is, at the beginning, a stage of one (google-research/vision_transformer)."""
    torch.manual_seed(0)
    stem, image = ResNetStemConfig(layers=(3,)).build(4, 12), torch.randn(2, 3, 16, 16)
    block, x = stem.backbone.stages[0].blocks[0], stem.backbone.stem(image)
    found = stem.backbone.stages(x)
    torch.testing.assert_close(found, block.downsample(x).relu())
    assert float(found.std()) > 0.1


@torch.no_grad()
def test_fresh_tokens_are_neither_tiny_nor_huge() -> None:
    torch.manual_seed(0)
    for config, patch_size in ((ResNetStemConfig(layers=()), 32), (ResNetStemConfig(layers=(2, 2, 2, 2)), 32)):
        out = config.build(patch_size, 256)(torch.randn(2, 3, 64, 64))
        assert 0.1 < float(out.std()) < 2


@torch.no_grad()
def test_bf16_weights() -> None:
    """Weights are standardised in float32, whatever they are kept in."""
    stem, image = stirred((1, 2), 8), torch.randn(2, 3, 32, 32)
    expected = stem(image)
    found = stem.to(torch.bfloat16)(image.bfloat16())
    assert found.dtype == torch.bfloat16
    assert float((found.float() - expected).norm() / expected.norm()) < 0.03
