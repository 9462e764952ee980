"""A 3x3 convolution that is quick in bf16 on a CPU where maps are small; elsewhere it is torch's own.

oneDNN's kernels go along rows, and in maps of seven pixels' width or less most of a row's lanes are empty: the last
stage of a ResNet took the largest part of a training step. Gathered into rows of 3x3xc numbers, the same maps are one
dense product forward and two backward. `python -m benchmarks simclr_step` shows it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.layers.linear import runs_here

WIDEST = 7  # pixels of a map's row
# Channels that oneDNN takes together. Of fewer, where a CPU has AVX2 and no more, version 3.12 writes past the end of
# its memory when it finds the weights' gradient of a 1x1 convolution with a stride: here the stride comes first.
BLOCK = 8


class Conv2d(nn.Conv2d):
    """[b c y x] -> [b out y x], by torch's names and numbers."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight
        if self._strided_1x1 and input.shape[1] % BLOCK and input.device.type == "cpu":
            step_y, step_x = self.stride
            return F.conv2d(input[:, :, ::step_y, ::step_x], weight, self.bias, groups=self.groups)
        plain = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups) == PLAIN and self.bias is None
        if (
            plain
            and input.shape[-1] <= WIDEST
            and input.device.type == "cpu"
            and input.dtype is weight.dtype is torch.bfloat16
            and not torch.compiler.is_compiling()
            and runs_here()
        ):
            out: Tensor = _Conv.apply(input, weight)
            return out
        return super().forward(input)

    @property
    def _strided_1x1(self) -> bool:
        return self.kernel_size == (1, 1) and self.stride != (1, 1) and self.padding == (0, 0)


PLAIN = ((3, 3), (1, 1), (1, 1), (1, 1), 1)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return maps(gathered(x) @ weight.permute(0, 2, 3, 1).reshape(len(weight), -1).T, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        out, c = weight.shape[:2]
        by_x = by_weight = None
        if ctx.needs_input_grad[0]:  # a convolution with the weights turned round
            turned = weight.flip(2, 3).permute(2, 3, 0, 1).reshape(9 * out, c)
            by_x = maps(gathered(grad) @ turned, x)
        if ctx.needs_input_grad[1]:
            rows = grad.permute(0, 2, 3, 1).reshape(-1, out)
            by_weight = (rows.T @ gathered(x)).view(out, 3, 3, c).permute(0, 3, 1, 2)
        return by_x, by_weight


def gathered(x: Tensor) -> Tensor:
    """[b c y x] -> [b*y*x 9c]: each pixel with its neighbours, zeros beyond the edges."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    return padded.unfold(1, 3, 1).unfold(2, 3, 1).permute(0, 1, 2, 4, 5, 3).reshape(-1, 9 * x.shape[1])


def maps(rows: Tensor, like: Tensor) -> Tensor:
    """[b*y*x c] -> [b c y x], in memory [b y x c], with the b, y and x of `like`."""
    b, _, y, x = like.shape
    return rows.view(b, y, x, -1).permute(0, 3, 1, 2)


def quick_(module: nn.Module) -> None:
    """Every convolution inside becomes one of these, whoever holds it."""
    for part in module.modules():
        if type(part) is nn.Conv2d:
            part.__class__ = Conv2d
