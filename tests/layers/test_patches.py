import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.layers.patches import PatchEmbed, drop_patches, patchify


@settings(deadline=None, max_examples=25)
@given(b=st.integers(1, 2), c=st.integers(1, 3), patch=st.integers(1, 4), y=st.integers(1, 3), x=st.integers(1, 3))
def test_patchify_against_a_naive_loop(b: int, c: int, patch: int, y: int, x: int) -> None:
    image = torch.randn(b, c, y * patch, x * patch)
    found = patchify(image, patch)
    assert found.shape == (b, y * x, c * patch * patch)
    for i in range(y):
        for j in range(x):
            square = image[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
            assert torch.equal(found[:, i * x + j], square.reshape(b, -1))


def test_patchify_of_a_view() -> None:
    image = torch.randn(2, 8, 8, 3).permute(0, 3, 1, 2)  # as decoded: channels last
    assert torch.equal(patchify(image, 4), patchify(image.contiguous(), 4))


@pytest.mark.parametrize("size", [(30, 32), (32, 30)])
def test_sides_that_do_not_fit(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"picture of {size[0]} x {size[1]} pixels: both sides .* patch_size 16"):
        patchify(torch.zeros(1, 3, *size), 16)


@pytest.mark.parametrize("bias", [True, False])
def test_embedding_is_a_convolution(bias: bool) -> None:
    torch.manual_seed(0)
    layer, image = PatchEmbed(4, 10, bias=bias), torch.randn(2, 3, 8, 12)
    expected = F.conv2d(image, layer.proj.weight, layer.proj.bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(layer(image), expected)
    assert (layer.proj.bias is not None) == bias


def test_dropped_patches() -> None:
    torch.manual_seed(0)
    x = torch.arange(600 * 8).view(600, 8, 1).float() + 1
    kept = drop_patches(x, 0.75)
    assert kept.shape == (600, 2, 1)
    columns = kept.squeeze(-1).long() - 1
    assert (columns // 8 == torch.arange(600)[:, None]).all(), "a patch of another example"
    assert (columns[:, 0] != columns[:, 1]).all(), "a patch twice"
    share = torch.bincount((columns % 8).flatten(), minlength=8) / 600
    assert (share - 0.25).abs().max() < 0.07, "some places are kept more often than others"
    assert len(set(map(tuple, (columns % 8).sort(1).values.tolist()))) == 28, "examples do not choose their own"


@pytest.mark.parametrize(
    ("n", "rate", "keep"), [(10, 0.0, 10), (10, 0.5, 5), (3, 0.99, 1), (1, 0.5, 1), (196, 0.3, 137)]
)
def test_how_many_patches_stay(n: int, rate: float, keep: int) -> None:
    assert drop_patches(torch.zeros(2, n, 3), rate).shape == (2, keep, 3)


def test_gradients_reach_the_kept_patches_only() -> None:
    x = torch.randn(2, 6, 3, requires_grad=True)
    drop_patches(x, 0.5).sum().backward()
    assert x.grad.sum((1, 2)).tolist() == [9, 9]
    assert set(x.grad.flatten().tolist()) == {0.0, 1.0}
