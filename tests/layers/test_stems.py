import pytest
import torch

from pictura.config import load
from pictura.layers.patches import PatchEmbed
from pictura.layers.stems import ConvStemConfig, PatchStemConfig, StemConfig, groups


def test_kinds() -> None:
    assert load(StemConfig, {"kind": "conv", "channels": 8}) == ConvStemConfig(channels=8)
    assert load(StemConfig, {"kind": "patch"}) == PatchStemConfig(bias=True)


@pytest.mark.parametrize("bias", [True, False])
def test_the_plain_stem_is_a_patch_embedding(bias: bool) -> None:
    stem = PatchStemConfig(bias=bias).build(8, 12)
    assert isinstance(stem, PatchEmbed)
    assert (stem.proj.bias is not None) == bias
    assert stem(torch.zeros(2, 3, 16, 24)).shape == (2, 6, 12)


@pytest.mark.parametrize("patch_size", [2, 4, 8, 16])
def test_one_token_for_each_patch(patch_size: int) -> None:
    stem = ConvStemConfig(channels=8).build(patch_size, 12)
    assert stem(torch.randn(2, 3, 2 * patch_size, 3 * patch_size)).shape == (2, 6, 12)


def test_tokens_stand_in_reading_order() -> None:
    """A token looks hardest at the first corner of its patch, where its convolutions are centred."""
    torch.manual_seed(0)
    stem = ConvStemConfig(channels=16).build(8, 32)
    image = torch.randn(1, 3, 24, 32)
    for y in range(3):
        for x in range(4):
            other = image.clone()
            other[:, :, max(0, y * 8 - 2) : y * 8 + 3, max(0, x * 8 - 2) : x * 8 + 3] += 3
            change = (stem(other) - stem(image)).norm(dim=-1)[0]
            assert int(change.argmax()) == y * 4 + x


def test_it_sees_across_patches() -> None:
    torch.manual_seed(0)
    conv, plain = ConvStemConfig(channels=16).build(4, 8), PatchStemConfig().build(4, 8)
    image = torch.randn(1, 3, 8, 8)
    other = image.clone()
    other[..., :4] += 1
    for stem, sees in ((conv, True), (plain, False)):
        assert bool((stem(other) - stem(image))[0, 1].abs().max() > 1e-4) == sees


def test_examples_do_not_see_each_other() -> None:
    stem, image = ConvStemConfig(channels=16).build(8, 12).train(), torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(stem(image)[1:2], stem(image[1:2]))


@pytest.mark.parametrize("patch_size", [1, 6, 14])
def test_patches_of_other_sizes(patch_size: int) -> None:
    with pytest.raises(ValueError, match=rf"^patch_size: {patch_size} is no power of two"):
        ConvStemConfig().build(patch_size, 12)


@pytest.mark.parametrize("channels", [1, 4, 20, 33, 37, 50])
def test_any_number_of_channels(channels: int) -> None:
    assert ConvStemConfig(channels=channels).build(4, 12)(torch.randn(2, 3, 8, 8)).isfinite().all()


def test_groups() -> None:
    assert [groups(n) for n in (1, 15, 16, 24, 32, 33, 37, 50, 512)] == [1, 1, 1, 1, 2, 1, 1, 2, 32]


@pytest.mark.parametrize("channels", [0, -4])
def test_no_channels(channels: int) -> None:
    with pytest.raises(ValueError, match=rf"^channels: {channels} must be at least 1$"):
        load(StemConfig, {"kind": "conv", "channels": channels})


def test_every_parameter_gets_a_gradient() -> None:
    stem = ConvStemConfig(channels=8).build(8, 12)
    stem(torch.randn(2, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stem.parameters())


def test_the_variance_is_kept() -> None:
    torch.manual_seed(0)
    out = ConvStemConfig().build(16, 256)(torch.randn(4, 3, 64, 64))
    assert 0.1 < float(out.detach().std()) < 2
