import pytest
import torch
from torch import nn

from pictura.layers import convolution
from pictura.layers.convolution import Conv2d, quick_
from pictura.layers.linear import runs_here

needs_bf16 = pytest.mark.skipif(not runs_here(), reason="this CPU has no bf16 products")


@needs_bf16
@pytest.mark.parametrize(("side", "c", "out"), [(1, 8, 8), (4, 16, 24), (7, 8, 3)])
def test_small_maps_give_what_torch_gives(side: int, c: int, out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    ours, plain = Conv2d(c, out, 3, padding=1, bias=False), nn.Conv2d(c, out, 3, padding=1, bias=False)
    plain.load_state_dict(ours.state_dict())
    exact = plain.double()
    ours = ours.bfloat16()
    exact.load_state_dict(ours.state_dict())
    calls: list[int] = []
    gathered = convolution.gathered
    monkeypatch.setattr(convolution, "gathered", lambda x: (calls.append(1), gathered(x))[1])
    image = torch.randn(5, c, side, side).bfloat16().requires_grad_()
    wide = image.detach().double().requires_grad_()
    weight = torch.randn(5, out, side, side).bfloat16()
    (ours(image) * weight).sum().backward()
    (exact(wide) * weight.double()).sum().backward()
    assert len(calls) == 3
    with torch.no_grad():
        pairs = [(ours(image), exact(wide)), (image.grad, wide.grad), (ours.weight.grad, exact.weight.grad)]
    for found, right in pairs:
        assert found is not None and right is not None
        torch.testing.assert_close(found.double(), right, rtol=0.02, atol=0.02 * float(right.abs().max()))


@pytest.mark.parametrize("c", [2, 4, 12, 16])
def test_a_stride_of_one_pixel_wide_kernels(c: int) -> None:
    torch.manual_seed(0)
    ours = Conv2d(c, 8, 1, stride=2, bias=False)
    image = torch.randn(8, c, 7, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = image.detach()[:, :, ::2, ::2].double().requires_grad_()
    wide = ours.weight.detach().double().requires_grad_()
    ours(image).square().sum().backward()
    found = torch.einsum("bcyx,oc->boyx", exact, wide[:, :, 0, 0])
    found.square().sum().backward()
    torch.testing.assert_close(ours(image).double(), found, rtol=1e-5, atol=1e-5)
    assert image.grad is not None and exact.grad is not None and ours.weight.grad is not None and wide.grad is not None
    torch.testing.assert_close(image.grad[:, :, ::2, ::2].double(), exact.grad, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(ours.weight.grad.double(), wide.grad, rtol=1e-5, atol=1e-4)


@needs_bf16
def test_a_locked_weight_and_a_picture_without_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Conv2d(4, 4, 3, padding=1, bias=False).bfloat16()
    image = torch.randn(2, 4, 3, 3).bfloat16()
    ours(image).sum().backward()
    assert ours.weight.grad is not None
    ours.requires_grad_(False)
    image.requires_grad_()
    ours(image).sum().backward()
    assert image.grad is not None and ours(image.detach()).grad_fn is None


@pytest.mark.parametrize(
    ("given", "options", "dtype"),
    [
        ((2, 4, 9, 9), {}, torch.bfloat16),
        ((2, 4, 4, 4), {}, torch.float32),
        ((2, 4, 4, 4), {"stride": 2}, torch.bfloat16),
        ((2, 4, 4, 4), {"groups": 2}, torch.bfloat16),
        ((2, 4, 4, 4), {"bias": True}, torch.bfloat16),
    ],
)
def test_all_else_is_torchs_own(
    given: tuple[int, ...], options: dict[str, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "gathered", None)
    ours = Conv2d(4, 4, 3, padding=1, **({"bias": False} | options)).to(dtype)  # type: ignore[arg-type]
    plain = nn.Conv2d(4, 4, 3, padding=1, **({"bias": False} | options)).to(dtype)  # type: ignore[arg-type]
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(given).to(dtype)
    assert torch.equal(ours(x), plain(x))


def test_convolutions_inside_become_quick_and_keep_their_names() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 1)))
    names = list(module.state_dict())
    quick_(module)
    assert all(type(part) is Conv2d for part in (module[0], module[1][0])) and list(module.state_dict()) == names
