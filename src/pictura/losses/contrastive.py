"""The symmetric contrastive loss of CLIP, in blocks: the N x N matrix of similarities is never stored.

Radford et al. 2021, figure 3 (N positives, N^2 - N negatives); the softmax of a row is accumulated block by block
as in Rabe and Staats, Self-attention Does Not Need O(n^2) Memory, 2021. The gradient is computed together with the
loss, for both directions from the same products, so the backward pass only scales it.
"""

from typing import Any, cast

import torch
from torch import Tensor

from pictura.losses.hits import count_hits

BLOCK = 2**22
"""Similarities held at once: 16 MiB in float32."""


def contrastive_loss(
    image: Tensor, text: Tensor, scale: Tensor, *, rows: slice | None = None, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """image, text: [n d] of unit length, pair i at row i; scale: [] -> (loss [], hits []).

    The loss is the mean over `rows` (all, if None) of ½ (cross-entropy of image i against all texts + of text i
    against all images). With the rows dealt out over processes, its mean over processes is that of the whole batch.
    `hits` is the share of `rows` whose picture is nearer to its own text than to any other. Logits and sums are
    float32.
    """
    if image.shape != text.shape or image.dim() != 2:
        raise ValueError(f"image {tuple(image.shape)} and text {tuple(text.shape)} must have one shape, [n d]")
    if image.shape[0] < 2:
        raise ValueError("a contrastive loss needs at least two pairs: with one there is nothing to tell apart")
    start, stop, _ = (rows or slice(None)).indices(image.shape[0])
    return cast(tuple[Tensor, Tensor], _Contrastive.apply(image, text, scale, start, stop, block))


class _Contrastive(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, text: Tensor, scale: Tensor, start: int, stop: int, block: int
    ) -> tuple[Tensor, Tensor]:
        a, b, s = image.float(), text.float(), scale.float()
        grads = (torch.zeros_like(a), torch.zeros_like(b), torch.zeros_like(s)) if any(ctx.needs_input_grad) else None
        if stop - start == len(a):
            loss, hits = _both(a, b, s, block, grads)
        else:
            flipped = None if grads is None else (grads[1], grads[0], grads[2])
            loss, hits = _one(a, b, s, start, stop, block, grads)
            loss = loss + _one(b, a, s, start, stop, block, flipped)[0]
        ctx.mark_non_differentiable(hits)
        if grads is not None:
            ctx.save_for_backward(*(g.to(x.dtype) for g, x in zip(grads, (image, text, scale), strict=True)))
        return loss, hits

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return *(g * grad.to(g.dtype) for g in ctx.saved_tensors), None, None, None


Grads = tuple[Tensor, Tensor, Tensor]


def _both(a: Tensor, b: Tensor, s: Tensor, block: int, grads: Grads | None) -> tuple[Tensor, Tensor]:
    """All rows: both directions from one pass over the similarities, and one more for the gradient."""
    n, step = len(a), max(1, block // len(a))
    sa = a * s
    lse_row, diagonal = a.new_empty(n), a.new_empty(n)
    top, total = a.new_full((n,), float("-inf")), a.new_zeros(n)
    hits, logits = a.new_zeros(()), a.new_empty(min(step, n), n)
    for i in range(0, n, step):
        own = slice(i, min(i + step, n))
        z = torch.mm(sa[own], b.T, out=logits[: own.stop - i])
        diagonal[own] = z.diagonal(i)
        hits += count_hits(z, i, s)
        column = torch.maximum(top, z.amax(0))
        total *= (top - column).exp_()
        top = column
        lse_row[own] = torch.logsumexp(z, 1)
        total += (z - top).exp_().sum(0)
    lse_column = total.log() + top
    if grads is not None:
        da, db, ds = grads
        share = 0.5 / n  # applied after the products: probabilities divided by n would be subnormal, and those are slow
        for i in range(0, n, step):
            own = slice(i, min(i + step, n))
            z = logits[: own.stop - i]
            if step < n:
                torch.mm(sa[own], b.T, out=z)
            g = (z - lse_row[own, None]).exp_()
            g += z.sub_(lse_column).exp_()
            g.diagonal(i).sub_(2)
            torch.mm(g, b, out=da[own])
            db.addmm_(g.T, sa[own], alpha=share)
        da *= share
        ds += (da * a).sum()
        da *= s
    return (0.5 * (lse_row + lse_column) - diagonal).mean(), hits / n


def _one(
    a: Tensor, b: Tensor, s: Tensor, start: int, stop: int, block: int, grads: Grads | None
) -> tuple[Tensor, Tensor]:
    """Rows start..stop of `a` against all of `b`: half the cross-entropy, its gradient added into `grads`."""
    step, rows = max(1, block // len(b)), stop - start
    share = 0.5 / rows
    loss, hits = a.new_zeros(()), a.new_zeros(())
    for i in range(start, stop, step):
        own = slice(i, min(i + step, stop))
        z = (a[own] * s) @ b.T
        hits += count_hits(z, i, s)
        lse = torch.logsumexp(z, 1)
        loss += (lse - z.diagonal(i)).sum()
        if grads is not None:
            g = z.sub_(lse[:, None]).exp_()
            g.diagonal(i).sub_(1)
            da = (g @ b) * share
            grads[0][own] += da * s
            grads[1].addmm_(g.T, a[own] * s, alpha=share)
            grads[2].add_((da * a[own]).sum())
    return share * loss, hits / rows
