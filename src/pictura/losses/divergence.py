"""How far two predictions for the same example are apart: KL one way plus KL the other, as R-Drop needs it.

J(p, q) = KL(p||q) + KL(q||p) = sum (p - q)(log p - log q) = sum (p - q)(a - b) for logits a, b: what softmax subtracts
is the same in all classes and falls out. So small a divergence as that of two dropout masks keeps its digits in this
form, and it cannot become negative; float32, whatever the logits come in.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

BLOCK = 2**22
"""Similarities held at once: 16 MiB in float32."""


def symmetric_divergence(a: Tensor, b: Tensor) -> Tensor:
    """Logits a, b: [n k] of two softmaxes -> J [n], float32. Classes that are -inf in both do not count."""
    return cast(Tensor, _Symmetric.apply(a, b))


class _Symmetric(torch.autograd.Function):
    """By a: (p - q) + p (d - sum p d), with d = a - b; by b: the same with p and q exchanged, negative."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        wide = [x.float() for x in (a, b)]
        p, q = (x.softmax(-1) for x in wide)
        d = torch.where(wide[0] == wide[1], 0.0, wide[0] - wide[1])  # -inf less -inf would be no number
        off = p - q
        by_a = torch.addcmul(off, p, d - (p * d).sum(-1, keepdim=True))
        by_b = -torch.addcmul(off, q, d - (q * d).sum(-1, keepdim=True))
        ctx.save_for_backward(by_a.to(a.dtype), by_b.to(b.dtype))
        return (off * d).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        by_a, by_b = ctx.saved_tensors
        grad = grad[..., None]
        return by_a * grad.to(by_a.dtype), by_b * grad.to(by_b.dtype)


def bernoulli_divergence(a: Tensor, b: Tensor) -> Tensor:
    """Logits a, b: [n k] of k answers yes or no each -> J [n], float32, summed over the k."""
    a, b = a.float(), b.float()
    return ((a.sigmoid() - b.sigmoid()) * (a - b)).sum(-1)


def pair_divergence(
    one: tuple[Tensor, Tensor],
    two: tuple[Tensor, Tensor],
    scale: Tensor,
    *,
    rows: slice,
    bias: Tensor | None = None,
    block: int = BLOCK,
) -> Tensor:
    """(image, text), [n d] each, of two draws -> J [] of what each picture in `rows` says of all texts and each text of
    all pictures: their mean, as in CLIP's loss; with a `bias`, J of SigLIP's yes or no, of each pair once.

    In blocks of rows, computed again in the backward pass: no [n n] matrix is kept.
    """
    start, stop, _ = rows.indices(len(one[0]))
    step = max(1, block // len(one[0]))

    def part(own: slice, x: Tensor, all_x: Tensor, y: Tensor, all_y: Tensor, scale: Tensor) -> Tensor:
        a, b = (scale * z[own] @ every.T for z, every in ((x, all_x), (y, all_y)))
        return (symmetric_divergence(a, b) if bias is None else bernoulli_divergence(a + bias, b + bias)).sum()

    total = one[0].new_zeros((), dtype=torch.float32)
    for query, key in ((0, 1), (1, 0)) if bias is None else ((0, 1),):
        for i in range(start, stop, step):
            own = slice(i, min(i + step, stop))
            given = one[query], one[key], two[query], two[key], scale
            total = total + checkpoint(part, own, *given, use_reentrant=False)
    return total / ((stop - start) * (2 if bias is None else 1))
