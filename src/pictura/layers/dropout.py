"""Dropout (Srivastava et al. 2014) that is quick on a CPU; elsewhere it is torch's own.

torch draws one random number after another on one core there, 32 bits for each element, which is a large part of a
small ViT's training step. 16 bits an element, four elements a number, are as good a coin. `python -m benchmarks
rdrop_cost` trains with it.
"""

import torch
from torch import Tensor, nn

SIDES = 2**16  # of the coin: p is rounded to a multiple of 1/SIDES, and what is kept is scaled by that
AT_ONCE = 2**19  # elements, so that what is written in between stays in cache


class Dropout(nn.Dropout):
    """[…] -> [… the same]: elements are zero with probability p in training, the others scaled by 1 / (1 - p)."""

    def forward(self, input: Tensor) -> Tensor:
        drop = round(self.p * SIDES)
        plain = input.device.type != "cpu" or drop == SIDES or torch.compiler.is_compiling()
        if plain or not self.training or self.p == 0:
            return super().forward(input)
        return input * coins(input, drop)


def coins(like: Tensor, drop: int) -> Tensor:
    """Shaped as `like`: zero with probability drop / SIDES, else SIDES / (SIDES - drop). Moves torch's generator."""
    kept = torch.empty(like.shape, dtype=like.dtype)
    flat = kept.view(-1)
    words = torch.empty(-(-min(len(flat), AT_ONCE) // 4), dtype=torch.int64)
    bits = words.view(torch.int16)
    for part in flat.split(AT_ONCE):
        words.random_(-(2**63), None)
        torch.ge(bits[: len(part)], drop - SIDES // 2, out=part)
        part.mul_(SIDES / (SIDES - drop))
    return kept
