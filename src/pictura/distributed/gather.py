"""Features of every process as one batch, with exact gradients.

Each process computes the mean loss over its own rows of the whole batch. A feature then has gradients in every
process; backward sums them and gives each process those of its own examples. Averaged over processes, as DDP and FSDP
do, that is the gradient of the whole batch's loss, for towers and temperature alike. (The default flags of open_clip
scale one and not the other.)
"""

import zlib
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from pictura.distributed.ranks import rank, world


def gather(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors [b …] of any dtypes -> [world*b …], in order of rank: one collective forward, one backward.

    Raises ValueError in every process when they do not bring the same names, shapes and dtypes.
    """
    if world() == 1 or not features:
        return dict(features)
    # Not as a decorator: that would import the compiler for everybody who imports this module.
    whole: dict[str, Tensor] = torch.compiler.disable(_gathered)(features)
    return whole


def _gathered(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Uncompiled: collectives, and numbers that are read from the device, would break a graph in several places."""
    sizes = {name: len(x) for name, x in features.items()}
    assert len(set(sizes.values())) == 1, f"gather: features of one batch have different lengths: {sizes}"
    _agree(features)
    return dict(zip(features, _Gather.apply(*features.values()), strict=True))


def shared_mean(rows: Tensor) -> Tensor:
    """[m], of which each process may have another number, or none -> []: averaged over processes, as DDP and FSDP do,
    it is the mean over the rows of all."""
    count = torch.tensor(float(len(rows)), device=rows.device)
    if world() > 1:
        dist.all_reduce(count)
        count = count / world()
    return rows.sum() / count.clamp(min=1e-6)


def _agree(features: Mapping[str, Tensor]) -> None:
    """A collective over unequal sizes hangs or returns rubbish, so four numbers are compared before, on the CPU."""
    b = len(next(iter(features.values())))
    form = zlib.crc32(repr([(name, x.shape[1:], x.dtype) for name, x in features.items()]).encode())
    extremes = torch.tensor([b, -b, form, -form])
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
    most, least, high, low = extremes.tolist()
    if most != -least:
        raise ValueError(
            f"gather: processes bring between {-least} and {most} examples (process {rank()}: {b}); "
            "every process must bring equally many"
        )
    if high != -low:
        shapes = {name: (tuple(x.shape), x.dtype) for name, x in features.items()}
        raise ValueError(f"gather: processes bring different features; process {rank()} brings {shapes}")


class _Gather(torch.autograd.Function):
    """Forward, the bytes of each example's features travel side by side, whatever their dtypes. Backward, gradients do,
    in float32: a sum of many processes' bf16 gradients would lose digits."""

    @staticmethod
    def forward(ctx: Any, *features: Tensor) -> tuple[Tensor, ...]:
        b = len(features[0])
        rows = [x.reshape(b, -1).contiguous().view(torch.uint8) for x in features]
        own = torch.cat(rows, 1)
        everyone = own.new_empty(world() * b, own.shape[1])
        _all_gather(everyone, own)
        parts = torch.split(everyone, [row.shape[1] for row in rows], 1)
        out = tuple(
            part.clone(memory_format=torch.contiguous_format).view(x.dtype).view(-1, *x.shape[1:])
            for part, x in zip(parts, features, strict=True)
        )
        ctx.forms = [(x.shape, x.dtype) for x in features]
        ctx.mark_non_differentiable(*(x for x in out if not x.is_floating_point()))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wide = torch.float64 if any(dtype is torch.float64 for _, dtype in ctx.forms) else torch.float32
        rows = [
            grad.reshape(len(grad), -1).to(wide)
            for grad, (_, dtype) in zip(grads, ctx.forms, strict=True)
            if dtype.is_floating_point
        ]
        everyone = torch.cat(rows, 1)
        own = everyone.new_empty(len(everyone) // world(), everyone.shape[1])
        _reduce_scatter(own, everyone)
        parts = iter(torch.split(own, [row.shape[1] for row in rows], 1))
        return tuple(
            next(parts).reshape(shape).to(dtype) if dtype.is_floating_point else None for shape, dtype in ctx.forms
        )


def _all_gather(out: Tensor, x: Tensor) -> None:
    # the second name is the older one; torch renamed both collectives between 2.11 and 2.14
    (getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor)(out, x)


def _reduce_scatter(out: Tensor, x: Tensor) -> None:
    (getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor)(out, x)
