"""A linear layer that is quick in bf16 on a CPU; elsewhere it is torch's own.

torch adds the bias of a bf16 product by copying it over the whole result first. oneDNN adds it, and an activation too,
while it writes the result; `torch.compile` calls the same kernel. `python -m benchmarks clip_embed_images` shows it.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this build of torch has the kernel; whether this CPU runs it is asked on first use, `runs_here`."""


@cache
def runs_here() -> bool:
    """Whether oneDNN has bf16 products on this CPU: the question that `F.linear` asks before it calls oneDNN."""
    return FUSED and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Linear(nn.Linear):
    """[… d] -> [… out]. `gelu` applies that form of GELU to the result: `none`, the exact one, or `tanh`."""

    def forward(self, x: Tensor, *, gelu: str | None = None) -> Tensor:
        return linear(x, self.weight, self.bias, gelu=gelu)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: str | None = None) -> Tensor:
    """x: [… d], weight: [out d], bias: [out] -> [… out]; `gelu` is what torch calls `approximate`, None for none."""
    fits = x.device.type == "cpu" and x.dtype is weight.dtype is torch.bfloat16 and x.numel() > 0
    if not fits or torch.compiler.is_compiling() or not runs_here():
        out = F.linear(x, weight, bias)
        return out if gelu is None else F.gelu(out, approximate=gelu)
    wanted = x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    if torch.is_grad_enabled() and wanted:
        out = _Linear.apply(x, weight, bias)
        return out if gelu is None else F.gelu(out, approximate=gelu)
    return _fused(x, weight, bias, gelu)


def _fused(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: str | None) -> Tensor:
    then = ("none", "none") if gelu is None else ("gelu", gelu)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then[0], [], then[1])
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _fused(x, weight, bias, None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows, wanted = grad.reshape(-1, grad.shape[-1]), ctx.needs_input_grad
        return (
            (rows @ weight).view_as(x) if wanted[0] else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if wanted[1] else None,
            rows.sum(0) if wanted[2] else None,
        )
