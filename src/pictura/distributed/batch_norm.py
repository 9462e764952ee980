"""Batch norm over the examples of all processes (Ioffe and Szegedy, Batch Normalization, 2015).

Statistics of a process alone would change with the number of processes, and a contrastive loss can be solved by what
the norms of one process let its examples know of each other (Chen et al., SimCLR, 2020, section 2.1).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm


def batch_norms(module: nn.Module) -> Iterator[tuple[str, BatchNorm]]:
    """Every batch norm inside, of any dimensions, with its name."""
    return ((name, part) for name, part in module.named_modules() if isinstance(part, BatchNorm))


def statistics(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Running means and variances inside, by their names in the state dict."""
    for name, norm in batch_norms(module):
        for key in ("running_mean", "running_var"):
            if (running := getattr(norm, key)) is not None:
                yield f"{name}.{key}".removeprefix("."), running


@contextmanager
def still(module: nn.Module) -> Iterator[None]:
    """Inside, the running statistics do not move: for a pass that repeats another, as recomputed activations do."""
    norms = [norm for _, norm in batch_norms(module)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked


def synchronise(module: nn.Module) -> None:
    """From now on, each batch norm inside counts the examples of all processes. Changed in place, whoever holds it.

    On a GPU it becomes torch's own, which refuses a CPU.
    """
    on_cpu = next(chain(module.parameters(), module.buffers())).device.type == "cpu"
    for _, norm in batch_norms(module):
        norm.__class__ = SyncBatchNorm if on_cpu else nn.SyncBatchNorm
        setattr(norm, "process_group", None)  # noqa: B010  of all; torch sets it where it builds one


class SyncBatchNorm(BatchNorm):
    """torch's for a CPU: two sums over processes, one forward and one backward."""

    def forward(self, input: Tensor) -> Tensor:
        """[b c …] -> [b c …]; in training, all processes call it together."""
        out: Tensor
        if not self.training:
            out = super().forward(input)
            return out
        out, mean, var, count = _normalise(input, self.weight, self.bias, self.eps)
        moves = self.track_running_stats and float(count) > 0  # a head that reads regions may have none in all of them
        if moves and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_((var * count / (count - 1)).to(self.running_var.dtype), share)
        return out

    def _check_input_dim(self, input: Tensor) -> None:
        """Any that has channels."""


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x: [b c …] -> normalised, [b c …]; mean and biased variance, [c] float64; examples times places, [] float64."""
    out: tuple[Tensor, Tensor, Tensor, Tensor] = _Normalise.apply(x, weight, bias, eps)
    return out


class _Normalise(torch.autograd.Function):
    """Sums travel in float64, where a variance is a difference of squares without loss."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.axes = [0, *range(2, x.dim())]
        ctx.shape = [1, -1, *[1] * (x.dim() - 2)]
        wide = _wide(x)
        own_var, own_mean = (s.double() for s in torch.var_mean(wide, ctx.axes, correction=0))
        own = own_mean.new_tensor([x.numel() // x.shape[1]])
        sums = torch.cat([own_mean * own, (own_var + own_mean**2) * own, own])
        if not x.numel():  # whose mean is no number
            sums.zero_()
        dist.all_reduce(sums)
        count = sums[-1]
        if 0 < count < 2:
            raise ValueError("batch norm: one value for each channel in all processes together has no variance")
        mean, square = (sums[:-1] / count.clamp(min=1)).chunk(2)
        var = (square - mean**2).clamp(min=0)
        scale = (var + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.mark_non_differentiable(mean, var, count)
        if weight is not None:
            scale = scale * weight
        out = (wide - _cast(mean, wide, ctx.shape)) * _cast(scale, wide, ctx.shape)
        if bias is not None:
            out += _cast(bias, wide, ctx.shape)
        return out.to(x.dtype), mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gains and biases keep this process's sums, which are averaged later as all gradients are."""
        x, weight, mean, scale, count = ctx.saved_tensors
        wide, up = _wide(x), _wide(grad)
        unit = (wide - _cast(mean, wide, ctx.shape)) * _cast(scale, wide, ctx.shape)
        own = torch.cat([up.sum(ctx.axes), (up * unit).sum(ctx.axes)]).double()
        sums = own.clone()
        dist.all_reduce(sums)
        straight, along = (sums / count.clamp(min=1)).chunk(2)
        down = up - _cast(straight, wide, ctx.shape) - unit * _cast(along, wide, ctx.shape)
        down *= _cast(scale if weight is None else scale * weight, wide, ctx.shape)
        for_bias, for_weight = own.to(wide.dtype).chunk(2)
        asked = ctx.needs_input_grad
        return down.to(x.dtype), for_weight if asked[1] else None, for_bias if asked[2] else None, None


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _cast(of_channels: Tensor, like: Tensor, shape: list[int]) -> Tensor:
    return of_channels.to(like.dtype).view(shape)
