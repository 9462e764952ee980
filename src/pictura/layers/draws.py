"""Two draws of dropout in one pass: each example goes through a model twice, side by side in one batch, from the first
part on in which chance plays a role. What comes before, without chance, would be equal, and is computed once.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def has_chance(module: nn.Module) -> bool:
    """Whether two passes through it in training would differ: dropout, stochastic depth, or patches left out."""
    return any(
        (isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0)
        or getattr(part, "drop_path", 0.0) > 0
        or getattr(part, "patch_dropout", 0.0) > 0
        for part in module.modules()
        if part.training
    )


@contextmanager
def two_draws(model: nn.Module) -> Iterator[None]:
    """Inside, a tower of `model` that has chance in it gives two rows for each example: all first draws, then all
    second ones, [2b …]. One without gives [b …], as ever."""
    towers = [module for module in model.modules() if isinstance(module, Drawing)]
    for tower in towers:
        tower.drawing = True
    try:
        yield
    finally:
        for tower in towers:
            tower.drawing = False


class Drawing(nn.Module):
    """A tower that `two_draws` knows. Its `forward` asks `drawn` before each part that may be the first with chance."""

    drawing = False

    def drawn(self, x: Tensor, part: nn.Module, examples: int) -> Tensor:
        """x: [b …], before `part` -> [2b …] where two draws are wanted and begin here, else x."""
        return torch.cat([x, x]) if self.begins(x, part, examples) else x

    def begins(self, x: Tensor, part: nn.Module, examples: int) -> bool:
        """Whether two draws are wanted and begin in `part`, the first one with chance in it."""
        return self.drawing and len(x) == examples and has_chance(part)
