import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pictura.losses.sigmoid import sigmoid_loss
from tests.losses.test_contrastive import largest

Case = tuple[Tensor, Tensor, Tensor, Tensor]


def case(n: int, d: int = 5, scale: float = 7.0, bias: float = -3.0, dtype: torch.dtype = torch.float32) -> Case:
    torch.manual_seed(n)
    image, text = (F.normalize(torch.randn(n, d), dim=1).to(dtype).requires_grad_() for _ in range(2))
    return image, text, torch.tensor(scale, requires_grad=True), torch.tensor(bias, requires_grad=True)


def naive(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, rows: range) -> Tensor:
    """Pair by pair, in float64: -log sigmoid of the logit, with its sign turned where the pair is none."""
    total = torch.zeros((), dtype=torch.float64)
    for i in rows:
        for j in range(len(text)):
            logit = scale.double() * (image[i].double() @ text[j].double()) + bias.double()
            total = total - F.logsigmoid(logit if i == j else -logit)
    return total / len(rows)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), n=st.integers(1, 12), block=st.integers(1, 60), scale=st.sampled_from([0.5, 10.0, 100.0]))
def test_against_a_naive_loop(data: st.DataObject, n: int, block: int, scale: float) -> None:
    start = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(start + 1, n))
    inputs = case(n, scale=scale, bias=data.draw(st.sampled_from([0.0, -10.0, 4.0])))
    loss, _ = sigmoid_loss(*inputs, rows=slice(start, stop), block=block)
    expected = naive(*inputs, range(start, stop))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    wanted = torch.autograd.grad(expected, inputs)
    for found, grad in zip(torch.autograd.grad(loss, inputs), wanted, strict=True):
        torch.testing.assert_close(found, grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shares", [[4, 4], [1] * 8])
def test_the_mean_over_processes_is_the_whole_batch(shares: list[int]) -> None:
    inputs = case(8)
    whole, hits = sigmoid_loss(*inputs)
    starts = [sum(shares[:i]) for i in range(len(shares))]
    parts = [sigmoid_loss(*inputs, rows=slice(a, a + n), block=9) for a, n in zip(starts, shares, strict=True)]
    mean = torch.stack([loss for loss, _ in parts]).mean()
    torch.testing.assert_close(mean, whole)
    torch.testing.assert_close(torch.stack([hit for _, hit in parts]).mean(), hits)
    found, expected = torch.autograd.grad(mean, inputs), torch.autograd.grad(whole, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_closed_forms() -> None:
    n, scale, bias = 6, 9.0, -2.0
    apart, given_ = torch.eye(n), (torch.tensor(scale), torch.tensor(bias))
    loss, hits = sigmoid_loss(apart, apart, *given_)
    expected = math.log1p(math.exp(-(scale + bias))) + (n - 1) * math.log1p(math.exp(bias))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert hits.item() == 1
    assert sigmoid_loss(apart, apart.roll(1, 0), *given_)[1].item() == 0
    lonely, _ = sigmoid_loss(torch.ones(1, 1), torch.ones(1, 1), *given_)
    assert lonely.item() == pytest.approx(math.log1p(math.exp(-7)), rel=1e-5)


def test_hits() -> None:
    image, text, scale, bias = case(60, 3)
    right = ((image @ text.T).argmax(1) == torch.arange(60)).float()
    for rows in (None, slice(10, 41)):
        for block in (1, 130, 2**22):
            _, hits = sigmoid_loss(image, text, scale, bias, rows=rows, block=block)
            assert hits.item() == pytest.approx(right[rows or slice(None)].mean().item())
            assert not hits.requires_grad


def test_half_precision_features_are_compared_in_float32() -> None:
    half = case(16, 8, 100.0, -10.0, dtype=torch.bfloat16)
    single = tuple(x.detach().float().requires_grad_() for x in half)
    loss, expected = sigmoid_loss(*half)[0], sigmoid_loss(*single)[0]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    found = torch.autograd.grad(loss, half)
    assert [grad.dtype for grad in found] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    for grad, wanted in zip(found, torch.autograd.grad(expected, single), strict=True):
        torch.testing.assert_close(grad.float(), wanted, rtol=0.02, atol=0.02)


def test_extreme_logits_stay_finite() -> None:
    inputs = case(6, scale=1e4, bias=-1e3)
    loss, _ = sigmoid_loss(*inputs)
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, inputs))


def test_each_input_alone_may_want_a_gradient() -> None:
    inputs = case(6)
    expected = torch.autograd.grad(sigmoid_loss(*inputs)[0], inputs)
    for i in range(4):
        given_ = [x.detach().requires_grad_(i == j) for j, x in enumerate(inputs)]
        (2 * sigmoid_loss(*given_)[0]).backward()
        torch.testing.assert_close(given_[i].grad, 2 * expected[i])
        assert all(x.grad is None for j, x in enumerate(given_) if j != i)
    with torch.no_grad():
        assert not sigmoid_loss(*inputs)[0].requires_grad


def test_the_matrix_is_never_there_as_a_whole() -> None:
    n, d, block = 400, 8, 4000
    inputs = case(n, d)
    with largest() as sizes:
        sigmoid_loss(*inputs, block=block)[0].backward()
    assert block // 2 <= max(sizes) <= max(block, n * d)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"must have one shape, \[n d\]"):
        sigmoid_loss(torch.ones(4, 3), torch.ones(5, 3), torch.tensor(1.0), torch.tensor(0.0))
