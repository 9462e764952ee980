"""Examples of different lengths side by side, without the padding between them: work follows the number of real tokens.

What treats every token alone (norms, linear layers) takes them packed, [n d]; attention, which mixes the tokens of an
example, takes the padded grid, [b t d].
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor


class Packing:
    """Tokens of b examples, each made of one segment or of several: all first segments lie side by side, then all
    second ones. In row i of a grid [b t] the segments of example i stand one after the other, from the left.

    lengths: [b] of each segment, none of the first zero; width: t, by default the longest row's.
    """

    def __init__(self, *lengths: Tensor, width: int | None = None) -> None:
        total, device = torch.stack(lengths).sum(0), lengths[0].device
        width = int(total.max()) if width is None else width
        self.shape = b, width = len(total), width
        places: list[Tensor] = []
        first = torch.zeros_like(total)
        for length in lengths:
            at = torch.arange(width, device=device)
            here = (at >= first[:, None]) & (at < (first + length)[:, None])
            places.append(here.flatten().nonzero().squeeze(1))
            first = first + length
        self.place = torch.cat(places)
        """[n]: where each packed token lies in the flattened grid."""
        self.row = torch.full((b * width,), len(self.place), device=device)
        self.row[self.place] = torch.arange(len(self.place), device=device)
        """[b·t]: which packed token lies at each place; n where there is none."""
        self.start = lengths[0].cumsum(0) - lengths[0]
        """[b]: where the first segment of each example begins among the packed tokens."""

    @cached_property
    def lengths(self) -> list[int]:
        """Of each example, as numbers, which a GPU would be waited for."""
        return self.example.bincount(minlength=self.shape[0]).tolist()

    @cached_property
    def mask(self) -> Tensor | None:
        """[b 1 1 t], where tokens are; None where they fill the grid."""
        n, (b, t) = len(self.place), self.shape
        return None if n == b * t else (self.row < n).view(b, 1, 1, t)

    @property
    def example(self) -> Tensor:
        """[n]: which example each packed token is of."""
        return self.place // self.shape[1]

    def pack(self, x: Tensor) -> Tensor:
        """[b t d] -> [n d]."""
        return cast(Tensor, _Pack.apply(x, self))

    def unpack(self, x: Tensor) -> Tensor:
        """[n d] -> [b t d], zeros where no token is."""
        return cast(Tensor, _Unpack.apply(x, self))


def places_of(chosen: Sequence[Tensor], extra: int = 0) -> Tensor:
    """b of [n] bool -> [m]: where the chosen lie when all pieces lie side by side, `extra` tokens before each."""
    return torch.cat([F.pad(some, (extra, 0)) for some in chosen]).nonzero().squeeze(1)


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
