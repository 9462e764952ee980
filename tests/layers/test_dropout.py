import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pictura.layers import dropout
from pictura.layers.dropout import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
def test_drops_a_share_p_and_scales_the_rest(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    out = Dropout(p)(torch.ones(1000, 1001, dtype=dtype))
    dropped = (out == 0).double()
    assert dropped.mean() == pytest.approx(p, abs=4 * (p * (1 - p) / out.numel()) ** 0.5)
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-2 if dtype == torch.bfloat16 else 2e-4)
    assert float(dropped.mean(0).std()) == pytest.approx((p * (1 - p) / 1000) ** 0.5, rel=0.1)


def test_neighbours_are_independent() -> None:
    """Four elements share a random number: none says anything about another."""
    torch.manual_seed(0)
    dropped = (Dropout(0.3)(torch.ones(250_000, 4)) == 0).double()
    correlation = torch.corrcoef(dropped.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / 250_000**0.5


def test_pieces_of_a_large_tensor_are_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Dropout(0.4), torch.randn(70, 33)
    found = []
    for size in (2**19, 512):
        monkeypatch.setattr(dropout, "AT_ONCE", size)
        torch.manual_seed(5)
        found.append(layer(x))
    assert torch.equal(found[0][:31], found[1][:31])
    rows = (found[1] == 0).float().mean(1)
    assert rows.min() > 0.05 and rows.max() < 0.8 and len((found[1] == 0).unique(dim=0)) == 70


def test_the_gradient_goes_where_the_numbers_went() -> None:
    x = torch.randn(7, 13, requires_grad=True)
    out = Dropout(0.4)(x)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), out.detach())


def test_same_seed_same_mask_and_a_checkpoint_draws_it_again() -> None:
    layer, x = Dropout(0.5), torch.randn(64, 65, requires_grad=True)
    torch.manual_seed(3)
    first = layer(x)
    second = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first) and not torch.equal(first, second)
    again = checkpoint(layer, x, use_reentrant=False)
    (grad,) = torch.autograd.grad(again.sum(), x)
    assert torch.equal(grad != 0, again != 0)


def test_all_else_is_torchs_own() -> None:
    x = torch.randn(3, 5)
    assert torch.equal(Dropout(0.5).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()
    for layer in (Dropout(0.2), nn.Dropout(0.2)):
        torch.manual_seed(0)
        compiled = torch.compile(layer, backend="eager")(torch.ones(40))
        assert set(compiled.tolist()) == {0.0, 1.25}
    assert Dropout(0.5)(torch.empty(0, 3)).shape == (0, 3)
