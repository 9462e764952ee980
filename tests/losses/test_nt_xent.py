import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.losses.nt_xent import nt_xent


def views(n: int, d: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    one, two = (F.normalize(torch.randn(n, d, generator=generator, dtype=dtype), dim=1) for _ in range(2))
    return one.requires_grad_(), two.requires_grad_()


def naive(one: Tensor, two: Tensor, temperature: float) -> Tensor:
    """Equation 1 of the paper, term by term."""
    z, n = torch.cat([one, two]), len(one)
    terms = []
    for i in range(2 * n):
        twin = (i + n) % (2 * n)
        others = [torch.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i]
        terms.append(-torch.log(torch.exp(z[i] @ z[twin] / temperature) / torch.stack(others).sum()))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("block", [1, 40, 2**22])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_it_is_a_double_loop(block: int, temperature: float) -> None:
    given = views(7)
    expected = naive(*given, temperature)
    wanted = torch.autograd.grad(expected, given)
    single = [x.detach().float().requires_grad_() for x in given]
    loss, _ = nt_xent(*single, temperature, block=block)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    for found, right in zip(torch.autograd.grad(loss, single), wanted, strict=True):
        torch.testing.assert_close(found.double(), right, rtol=1e-5, atol=1e-6)


def test_equal_features_give_the_logarithm_of_the_others() -> None:
    same = F.normalize(torch.ones(5, 4), dim=1)
    loss, hits = nt_xent(same, same.clone(), 0.1)
    assert float(loss) == pytest.approx(math.log(9), rel=1e-6) and float(hits) == 0


def test_perfect_views_at_a_low_temperature_cost_nothing() -> None:
    loss, hits = nt_xent(torch.eye(6), torch.eye(6), 0.01)
    assert float(loss) < 1e-6 and float(hits) == 1


def test_parts_of_the_rows_are_parts_of_the_loss_and_of_its_gradient() -> None:
    given = [x.detach().float().requires_grad_() for x in views(8)]
    whole, hits = nt_xent(*given, 0.2)
    wanted = torch.autograd.grad(whole, given)
    parts = [nt_xent(*given, 0.2, rows=rows, block=48) for rows in (slice(0, 4), slice(4, 8))]
    mean = (parts[0][0] + parts[1][0]) / 2
    torch.testing.assert_close(mean, whole)
    torch.testing.assert_close((parts[0][1] + parts[1][1]) / 2, hits)
    for found, right in zip(torch.autograd.grad(mean, given), wanted, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-7)


def test_hits_are_the_views_nearest_to_their_twin() -> None:
    one, two = (x.detach().float() for x in views(40, d=3))
    z = torch.cat([one, two])
    similar = (z @ z.T).fill_diagonal_(-2)
    twin = (torch.arange(80) + 40) % 80
    assert float(nt_xent(one, two, 0.5)[1]) == pytest.approx(float((similar.argmax(1) == twin).float().mean()))


def test_what_no_gradient_is_asked_of_costs_none() -> None:
    one, two = (x.detach() for x in views(4))
    assert not nt_xent(one, two, 0.5)[0].requires_grad


@pytest.mark.parametrize(
    ("shapes", "temperature", "message"),
    [
        (((1, 4), (1, 4)), 0.1, "at least two pictures"),
        (((3, 4), (2, 4)), 0.1, r"views \(3, 4\) and \(2, 4\) must have one shape"),
        (((3, 4), (3, 4)), 0.0, "temperature: 0.0 must be above 0"),
    ],
)
def test_what_cannot_be_compared(shapes: tuple[tuple[int, int], ...], temperature: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nt_xent(*(torch.ones(shape) for shape in shapes), temperature)
