"""SimCLR's NT-Xent: each view finds the other view of its picture among all views of all others, in blocks.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020, equation 1 and algorithm 1,
with the paper's mean over the 2N views (its released code has the sum of two means, twice as much). The 2N x 2N matrix
of similarities is never stored; the gradient is computed together with the loss, so the backward pass only scales it.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor

from pictura.losses.contrastive import BLOCK
from pictura.losses.hits import count_hits


def nt_xent(
    one: Tensor, two: Tensor, temperature: float, *, rows: slice | None = None, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """one, two: [n d] of unit length, the two views of picture i at row i -> (loss [], hits []).

    The loss is the mean over both views of the pictures in `rows` (all, if None) of the cross-entropy of a view's
    similarities / temperature to the 2n - 1 others, the right answer being its twin. With the rows dealt out over
    processes, its mean over processes is that of the whole batch. `hits` is the share of those views that are nearer
    to their twin than to any other. Logits and sums are float32.
    """
    if one.shape != two.shape or one.dim() != 2:
        raise ValueError(f"views {tuple(one.shape)} and {tuple(two.shape)} must have one shape, [n d]")
    if len(one) < 2:
        raise ValueError("a contrastive loss needs at least two pictures: with one there is nothing to tell apart")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature: {temperature} must be above 0; the paper has 0.1, and 0.5 for CIFAR-10")
    start, stop, _ = (rows or slice(None)).indices(len(one))
    return cast(tuple[Tensor, Tensor], _NTXent.apply(one, two, temperature, start, stop, block))


class _NTXent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, one: Tensor, two: Tensor, temperature: float, start: int, stop: int, block: int
    ) -> tuple[Tensor, Tensor]:
        n, z = len(one), torch.cat([one, two]).float()
        step, scale, share = max(1, block // (2 * n)), z.new_tensor(1 / temperature), 0.5 / (stop - start)
        grad = torch.zeros_like(z) if any(ctx.needs_input_grad) else None
        loss, hits = z.new_zeros(()), z.new_zeros(())
        room = z.new_empty(min(step, stop - start), 2 * n)
        for first, twin in ((start, n), (n + start, -n)):
            for i in range(first, first + stop - start, step):
                own = slice(i, min(i + step, first + stop - start))
                anchors = z[own] * scale
                logits = torch.mm(anchors, z.T, out=room[: own.stop - i])
                logits.diagonal(i).fill_(-math.inf)  # a view is not compared with itself
                hits += count_hits(logits, i + twin, scale)
                lse = torch.logsumexp(logits, 1)
                positive = logits.diagonal(i + twin)
                loss += (lse - positive).sum()
                if grad is not None:
                    g = logits.sub_(lse[:, None]).exp_()
                    positive -= 1
                    grad[own].addmm_(g, z, alpha=share / temperature)  # shares apart from g: none may be subnormal
                    grad.addmm_(g.T, anchors, alpha=share)
        ctx.mark_non_differentiable(hits)
        if grad is not None:
            ctx.save_for_backward(*(g.to(x.dtype) for g, x in zip(grad.split(n), (one, two), strict=True)))
        return share * loss, share * hits

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return *(g * grad.to(g.dtype) for g in ctx.saved_tensors), None, None, None, None
