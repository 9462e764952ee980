import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.layers import linear as module
from pictura.layers.linear import Linear, linear


def parts(dtype: torch.dtype, bias: bool = True) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    torch.manual_seed(0)
    x, weight, shift = torch.randn(3, 5, 16), torch.randn(24, 16) / 4, torch.randn(24)
    return x.to(dtype), weight.to(dtype), shift.to(dtype) if bias else None


def exact(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, gelu: str | None) -> torch.Tensor:
    out = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    return out if gelu is None else F.gelu(out, approximate=gelu)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gelu", [None, "none", "tanh"])
@pytest.mark.parametrize("grad", [True, False])
def test_values(dtype: torch.dtype, bias: bool, gelu: str | None, grad: bool) -> None:
    x, weight, shift = parts(dtype, bias)
    out = linear(x, weight.requires_grad_(grad), shift, gelu=gelu)
    assert out.dtype == dtype
    assert out.requires_grad == grad
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(out.double(), exact(x, weight, shift, gelu), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("wanted", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1)])
@pytest.mark.parametrize("gelu", [None, "none", "tanh"])
def test_gradients_in_bf16(wanted: tuple[int, int, int], gelu: str | None) -> None:
    given_ = [x.requires_grad_(bool(want)) for x, want in zip(parts(torch.bfloat16), wanted, strict=True)]
    doubles = [x.detach().double().requires_grad_(bool(want)) for x, want in zip(given_, wanted, strict=True)]
    expected = F.linear(*doubles)
    (expected if gelu is None else F.gelu(expected, approximate=gelu)).square().sum().backward()
    linear(*given_, gelu=gelu).square().sum().backward()
    for x, double in zip(given_, doubles, strict=True):
        assert (x.grad is None) == (double.grad is None)
        if x.grad is not None:
            assert x.grad.dtype == torch.bfloat16
            error = (x.grad.double() - double.grad).norm() / double.grad.norm()
            assert error < 0.02


def test_gradients_without_a_bias() -> None:
    x, weight, _ = parts(torch.bfloat16, bias=False)
    linear(x, weight.requires_grad_(), None).sum().backward()
    torch.testing.assert_close(weight.grad.float(), x.float().sum((0, 1)).expand(24, 16), rtol=0.02, atol=0.02)


@settings(deadline=None, max_examples=25)
@given(shape=st.lists(st.integers(0, 4), min_size=0, max_size=3), grad=st.booleans())
def test_any_leading_axes(shape: list[int], grad: bool) -> None:
    _, weight, bias = parts(torch.bfloat16)
    x = torch.randn(*shape, 16).bfloat16().requires_grad_(grad)
    out = linear(x, weight, bias)
    assert out.shape == (*shape, 24)
    torch.testing.assert_close(out.double(), exact(x, weight, bias, None), rtol=2**-7, atol=2**-7)
    if grad:
        out.sum().backward()
        assert x.grad.shape == x.shape


def test_inputs_that_are_not_contiguous() -> None:
    _, weight, bias = parts(torch.bfloat16)
    x = torch.randn(16, 5, 3).bfloat16().permute(2, 1, 0)
    for grad in (False, True):
        leaf = x.detach().requires_grad_(grad)
        out = linear(leaf, weight, bias)
        torch.testing.assert_close(out, linear(x.contiguous(), weight, bias), rtol=2**-7, atol=2**-7)
        if grad:
            out.sum().backward()
            torch.testing.assert_close(leaf.grad.float(), weight.float().sum(0).expand(3, 5, 16), rtol=0.02, atol=0.02)


def test_the_module_is_torchs_with_a_gelu() -> None:
    torch.manual_seed(0)
    layer = Linear(16, 24)
    peer = torch.nn.Linear(16, 24)
    peer.load_state_dict(layer.state_dict())
    x = torch.randn(3, 16)
    torch.testing.assert_close(layer(x), peer(x))
    torch.testing.assert_close(layer(x, gelu="none"), F.gelu(peer(x)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast(dtype: torch.dtype) -> None:
    layer, x = Linear(16, 24).to(dtype), torch.randn(3, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x.to(dtype))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert layer.weight.grad.dtype == dtype


@pytest.mark.parametrize("gelu", [None, "none", "tanh"])
@pytest.mark.parametrize("grad", [True, False])
def test_a_cpu_without_bf16_products_never_sees_the_kernel(
    gelu: str | None, grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: object) -> torch.Tensor:
        raise AssertionError("the kernel was called")

    x, weight, bias = parts(torch.bfloat16)
    monkeypatch.setattr(module, "runs_here", lambda: False)
    monkeypatch.setattr(module, "_fused", refused)
    out = linear(x, weight.requires_grad_(grad), bias, gelu=gelu)
    torch.testing.assert_close(out.double(), exact(x, weight, bias, gelu), rtol=2**-7, atol=2**-7)


def test_the_cpu_is_asked_on_first_use_and_only_for_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(module, "runs_here", lambda: bool(asked.append(True)))
    linear(*parts(torch.float32))
    assert not asked
    linear(*parts(torch.bfloat16))
    assert asked


def test_in_inference_mode() -> None:
    x, weight, bias = parts(torch.bfloat16)
    with torch.inference_mode():
        torch.testing.assert_close(
            linear(x, weight, bias, gelu="none"), F.gelu(F.linear(x, weight, bias)), rtol=0.02, atol=0.02
        )
