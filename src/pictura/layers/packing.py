"""Examples of different lengths side by side, without the padding between them: work follows the number of real tokens.

What treats every token alone (norms, linear layers) takes them packed, [n d]; attention, which mixes the tokens of an
example, takes the padded grid, [b t d].
"""

from typing import Any, cast

import torch
from torch import Tensor


class Packing:
    """The first `lengths[i]` places of row i of a grid [b t] are real tokens; lengths: [b]."""

    def __init__(self, lengths: Tensor, width: int) -> None:
        inside = torch.arange(width, device=lengths.device) < lengths[:, None]
        self.shape = inside.shape
        self.place = inside.flatten().nonzero().squeeze(1)
        """[n]: where each packed token lies in the flattened grid."""
        self.row = torch.full((inside.numel(),), len(self.place), device=lengths.device)
        self.row[self.place] = torch.arange(len(self.place), device=lengths.device)
        """[b·t]: which packed token lies at each place; n where there is none."""
        self.start = lengths.cumsum(0) - lengths
        """[b]: where each example begins among the packed tokens."""

    def pack(self, x: Tensor) -> Tensor:
        """[b t d] -> [n d]."""
        return cast(Tensor, _Pack.apply(x, self))

    def unpack(self, x: Tensor) -> Tensor:
        """[n d] -> [b t d], zeros where no token is."""
        return cast(Tensor, _Unpack.apply(x, self))


def _pack(x: Tensor, packing: Packing) -> Tensor:
    return x.flatten(0, 1).index_select(0, packing.place)


def _unpack(x: Tensor, packing: Packing) -> Tensor:
    # Selecting rows, one of them zeros, is several times quicker on a CPU than writing rows into zeros.
    padded = torch.cat([x, x.new_zeros(1, x.shape[1])])
    return padded.index_select(0, packing.row).view(*packing.shape, x.shape[1])


class _Pack(torch.autograd.Function):
    """Each is the other's backward; autograd's own would add rows one by one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return _pack(x, packing)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _unpack(grad, ctx.packing), None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return _unpack(x, packing)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _pack(grad, ctx.packing), None
