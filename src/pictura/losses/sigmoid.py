"""The pairwise sigmoid loss of SigLIP, in blocks (Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023)."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.losses.hits import count_hits

BLOCK = 2**22
"""Similarities held at once: 16 MiB in float32."""


def sigmoid_loss(
    image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, *, rows: slice | None = None, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """image, text: [n d] of unit length, pair i at row i; scale, bias: [] -> (loss [], hits []).

    The loss is the sum over pairs of -log sigmoid(±(scale x·y + bias)), divided by the number of `rows` (all, if
    None) of pictures; each is held against every text. `hits`: the share of pictures nearer to their own text than to
    any other.
    """
    if image.shape != text.shape or image.dim() != 2:
        raise ValueError(f"image {tuple(image.shape)} and text {tuple(text.shape)} must have one shape, [n d]")
    start, stop, _ = (rows or slice(None)).indices(image.shape[0])
    return cast(tuple[Tensor, Tensor], _Sigmoid.apply(image, text, scale, bias, start, stop, block))


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, start: int, stop: int, block: int
    ) -> tuple[Tensor, Tensor]:
        a, b, s = image.float(), text.float(), scale.float()
        step, rows = max(1, block // len(b)), stop - start
        loss, hits = a.new_zeros(()), a.new_zeros(())
        da, db, ds, dbias = torch.zeros_like(a), torch.zeros_like(b), torch.zeros_like(s), torch.zeros_like(s)
        for i in range(start, stop, step):
            own = slice(i, min(i + step, stop))
            z = torch.addmm(bias.float(), a[own] * s, b.T)
            hits += count_hits(z, i, s)
            z.diagonal(i).neg_()  # now z is what every softplus takes: negatives as they are, positives negated
            loss += F.softplus(z).sum()
            if any(ctx.needs_input_grad):
                g = z.sigmoid_()
                g.diagonal(i).neg_()
                mixed = (g @ b) / rows  # divided after the product, as small numbers in it would be subnormal and slow
                ds += (mixed * a[own]).sum()
                dbias += g.sum() / rows
                da[own] = mixed * s
                db.addmm_(g.T, a[own] * s, alpha=1 / rows)
        hits /= rows
        ctx.mark_non_differentiable(hits)
        inputs = (image, text, scale, bias)
        ctx.save_for_backward(*(g.to(x.dtype) for g, x in zip((da, db, ds, dbias), inputs, strict=True)))
        return loss / rows, hits

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return *(g * grad.to(g.dtype) for g in ctx.saved_tensors), None, None, None
