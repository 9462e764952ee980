import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.losses.divergence import bernoulli_divergence, pair_divergence, symmetric_divergence


def logits(n: int = 5, k: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = (2 * torch.randn(n, k, generator=generator, dtype=dtype) for _ in range(2))
    return a.requires_grad_(), b.requires_grad_()


def naive(a: Tensor, b: Tensor) -> Tensor:
    """Both Kullback-Leibler divergences by their definition, [n]."""
    rows = []
    for x, y in zip(a, b, strict=True):
        p, q = x.softmax(0), y.softmax(0)
        rows.append(sum(p[i] * (p[i] / q[i]).log() + q[i] * (q[i] / p[i]).log() for i in range(len(p))))
    return torch.stack(rows)  # type: ignore[arg-type]


def test_it_is_both_divergences_by_their_definition() -> None:
    given = logits()
    expected = naive(*given)
    weight = torch.arange(1.0, 6, dtype=torch.float64)
    wanted = torch.autograd.grad((weight * expected).sum(), given)
    single = [x.detach().float().requires_grad_() for x in given]
    found = symmetric_divergence(*single)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    for ours, right in zip(torch.autograd.grad((weight.float() * found).sum(), single), wanted, strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=1e-5, atol=1e-6)


def test_of_nearly_equal_predictions_it_keeps_its_digits_and_stays_above_zero() -> None:
    a, _ = (x.detach() for x in logits(64, 100))
    b = a + 1e-3 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1), dtype=a.dtype)
    exact = naive(a, b)
    torch.testing.assert_close(symmetric_divergence(a.float(), b.float()).double(), exact, rtol=2e-3, atol=0)
    assert (symmetric_divergence(a.bfloat16(), b.bfloat16()) >= 0).all()
    assert symmetric_divergence(a.float(), a.float()).eq(0).all()


def test_masked_classes_do_not_count() -> None:
    given = [x.detach().float() for x in logits()]
    masked = [torch.cat([x, torch.full((5, 2), float("-inf"))], 1).requires_grad_() for x in given]
    found = symmetric_divergence(*masked)
    torch.testing.assert_close(found, symmetric_divergence(*given))
    for grad in torch.autograd.grad(found.sum(), masked):
        assert grad.isfinite().all() and grad[:, -2:].eq(0).all()


def test_yes_or_no_is_a_softmax_of_two() -> None:
    a, b = (x.detach().float() for x in logits())
    pairs = [torch.stack([x, torch.zeros_like(x)], 2).flatten(0, 1) for x in (a, b)]
    torch.testing.assert_close(bernoulli_divergence(a, b), symmetric_divergence(*pairs).view(5, 7).sum(1))


@pytest.mark.parametrize("bias", [None, -3.0])
@pytest.mark.parametrize("block", [1, 14, 2**20])
def test_that_of_pairs_is_that_of_their_matrix(bias: float | None, block: int) -> None:
    generator = torch.Generator().manual_seed(0)
    given = [F.normalize(torch.randn(6, 4, generator=generator), dim=1).requires_grad_() for _ in range(4)]
    scale = torch.tensor(5.0, requires_grad=True)
    shift = None if bias is None else torch.tensor(bias, requires_grad=True)
    found = pair_divergence(
        (given[0], given[1]), (given[2], given[3]), scale, rows=slice(1, 5), bias=shift, block=block
    )
    a, b = (scale * given[i] @ given[i + 1].T for i in (0, 2))
    if shift is None:
        wanted = (symmetric_divergence(a, b)[1:5].mean() + symmetric_divergence(a.T, b.T)[1:5].mean()) / 2
    else:
        wanted = bernoulli_divergence(a + shift, b + shift)[1:5].mean()
    torch.testing.assert_close(found, wanted)
    asked = [*given, scale] + ([] if shift is None else [shift])
    grads = [torch.autograd.grad(x, asked, allow_unused=True) for x in (found, wanted)]
    for ours, right in zip(*grads, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-6)
