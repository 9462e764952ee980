import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pictura.losses.contrastive import contrastive_loss

Case = tuple[Tensor, Tensor, Tensor]


def case(n: int, d: int = 5, scale: float = 7.0, seed: int = 0, dtype: torch.dtype = torch.float32) -> Case:
    torch.manual_seed(seed)
    image, text = (F.normalize(torch.randn(n, d), dim=1).to(dtype).requires_grad_() for _ in range(2))
    return image, text, torch.tensor(scale, requires_grad=True)


def naive(image: Tensor, text: Tensor, scale: Tensor, rows: range) -> Tensor:
    """One picture and one text at a time, in float64: each against all of the other kind."""
    total = torch.zeros((), dtype=torch.float64)
    image, text, scale = image.double(), text.double(), scale.double()
    for i in rows:
        for own, others in ((image[i], text), (text[i], image)):
            logits = torch.stack([scale * (own @ other) for other in others])
            total = total + 0.5 * (logits.exp().sum().log() - logits[i])
    return total / len(rows)


def gradients(loss: Tensor, given_: Case) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, given_, retain_graph=True)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), n=st.integers(2, 12), block=st.integers(1, 60), scale=st.sampled_from([0.5, 14.3, 100.0]))
def test_against_a_naive_loop(data: st.DataObject, n: int, block: int, scale: float) -> None:
    start = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(start + 1, n))
    inputs = case(n, scale=scale, seed=n)
    loss, _ = contrastive_loss(*inputs, rows=slice(start, stop), block=block)
    expected = naive(*inputs, range(start, stop))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(gradients(loss, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6 * max(10.0, scale))


@pytest.mark.parametrize("block", [1, 50, 700, 2**22])
def test_against_torchs_cross_entropy(block: int) -> None:
    inputs = image, text, scale = case(100, 16)
    logits = scale * image @ text.T
    target = torch.arange(100)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    for rows in (None, slice(None), slice(0, 100)):
        loss, hits = contrastive_loss(*inputs, rows=rows, block=block)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradients(loss, inputs), gradients(expected, inputs), rtol=1e-4, atol=1e-6)
        assert hits.item() == pytest.approx((logits.argmax(1) == target).float().mean().item())


@pytest.mark.parametrize("shares", [[4, 4], [2, 2, 2, 2], [1] * 8])
def test_the_mean_over_processes_is_the_whole_batch(shares: list[int]) -> None:
    """Losses, hits and gradients, summed over shares as the gather's backward does and divided by their number."""
    inputs = case(8)
    whole, hits = contrastive_loss(*inputs)
    starts = [sum(shares[:i]) for i in range(len(shares))]
    parts = [contrastive_loss(*inputs, rows=slice(a, a + n), block=9) for a, n in zip(starts, shares, strict=True)]
    mean = torch.stack([loss for loss, _ in parts]).mean()
    torch.testing.assert_close(mean, whole)
    torch.testing.assert_close(torch.stack([hit for _, hit in parts]).mean(), hits)
    torch.testing.assert_close(gradients(mean, inputs), gradients(whole, inputs), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [None, slice(0, 3)])
def test_closed_forms(rows: slice | None) -> None:
    alike, scale = torch.ones(6, 1), torch.tensor(9.0)
    assert contrastive_loss(alike, alike, scale, rows=rows)[0].item() == pytest.approx(math.log(6), rel=1e-6)
    apart = torch.eye(6)
    expected = math.log(1 + 5 * math.exp(-9))
    loss, hits = contrastive_loss(apart, apart, scale, rows=rows)
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    assert hits.item() == 1
    loss, hits = contrastive_loss(apart, apart.roll(1, 0), scale, rows=rows)
    assert loss.item() == pytest.approx(9 + math.log(1 + 5 * math.exp(-9)), rel=1e-6)
    assert hits.item() == 0


@pytest.mark.parametrize("rows", [None, slice(3, 7)])
def test_large_scales_do_not_overflow(rows: slice | None) -> None:
    inputs = case(10, scale=1e4)
    loss, _ = contrastive_loss(*inputs, rows=rows, block=20)
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in gradients(loss, inputs))


def test_hits_in_both_forms() -> None:
    image, text, scale = case(60, 3)
    right = ((image @ text.T).argmax(1) == torch.arange(60)).float()
    for rows in (slice(0, 60), slice(10, 41), slice(59, 60)):
        for block in (1, 130, 2**22):
            _, hits = contrastive_loss(image, text, scale, rows=rows, block=block)
            assert hits.item() == pytest.approx(right[rows].mean().item())
            assert not hits.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [None, slice(2, 9)])
def test_half_precision_features_are_compared_in_float32(dtype: torch.dtype, rows: slice | None) -> None:
    half = case(16, 8, 100.0, dtype=dtype)
    single = tuple(x.detach().float().requires_grad_() for x in half)
    loss, _ = contrastive_loss(*half, rows=rows)
    expected, _ = contrastive_loss(*single, rows=rows)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    found = gradients(loss, half)
    assert [grad.dtype for grad in found] == [dtype, dtype, torch.float32]
    for grad, wanted in zip(found, gradients(expected, single), strict=True):
        torch.testing.assert_close(grad.float(), wanted, rtol=0.02, atol=0.02)


def test_the_gradient_scales_with_what_comes_back() -> None:
    inputs = case(6)
    once = gradients(contrastive_loss(*inputs)[0], inputs)
    thrice = gradients(3 * contrastive_loss(*inputs)[0], inputs)
    torch.testing.assert_close(thrice, tuple(3 * grad for grad in once))


def test_each_input_alone_may_want_a_gradient() -> None:
    inputs = case(6)
    expected = gradients(contrastive_loss(*inputs)[0], inputs)
    for i in range(3):
        given_ = [x.detach().requires_grad_(i == j) for j, x in enumerate(inputs)]
        contrastive_loss(*given_)[0].backward()
        torch.testing.assert_close(given_[i].grad, expected[i])
        assert all(x.grad is None for j, x in enumerate(given_) if j != i)
    with torch.no_grad():
        assert not contrastive_loss(*inputs)[0].requires_grad


def test_the_inputs_are_left_alone() -> None:
    inputs = case(9)
    before = [x.detach().clone() for x in inputs]
    for rows in (None, slice(0, 4)):
        contrastive_loss(*inputs, rows=rows, block=20)[0].backward()
    assert all(torch.equal(x, kept) for x, kept in zip(inputs, before, strict=True))


@contextmanager
def largest() -> Iterator[list[int]]:
    """The numbers that each result of an operation holds."""
    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.extend(
                x.untyped_storage().nbytes() // x.element_size() for x in tree_leaves(out) if isinstance(x, Tensor)
            )
            return out

    with Watch():
        yield sizes


@pytest.mark.parametrize("rows", [None, slice(0, 100)])
def test_the_matrix_is_never_there_as_a_whole(rows: slice | None) -> None:
    n, d, block = 400, 8, 4000
    inputs = case(n, d)
    with largest() as sizes:
        contrastive_loss(*inputs, rows=rows, block=block)[0].backward()
    assert max(sizes) <= max(block, n * d)
    assert max(sizes) >= block // 2, "nothing was watched"


def test_mistakes() -> None:
    scale = torch.tensor(1.0)
    with pytest.raises(ValueError, match="at least two pairs"):
        contrastive_loss(torch.ones(1, 3), torch.ones(1, 3), scale)
    for image, text in ((torch.ones(4, 3), torch.ones(5, 3)), (torch.ones(4), torch.ones(4))):
        with pytest.raises(ValueError, match=r"must have one shape, \[n d\]"):
            contrastive_loss(image, text, scale)
