"""Learned positions, resized in two dimensions when the picture is not of the size they were learned at."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """[1 extra+y*x d] of an old (y, x) grid -> [1 extra+y'*x' d]; leading extra tokens (class token) stay as they are.

    Bicubic with antialiasing (ViT section 3.2 for higher resolution; open_clip's `resize_pos_embed`).
    """
    if old == new:
        return positions
    extra = positions.shape[1] - old[0] * old[1]
    head, grid = positions[:, :extra], positions[:, extra:]
    grid = grid.float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, new, mode="bicubic", antialias=True, align_corners=False)
    grid = grid.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1).to(positions.dtype)
    return grid if extra == 0 else torch.cat([head, grid], 1)


def stretch_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """[y*x d] of an old (y, x) grid -> [y'*x' d], corners on corners: bilinear, as ViLT's released code has it."""
    if old == new:
        return positions
    grid = positions.float().T.reshape(1, -1, *old)
    grid = F.interpolate(grid, new, mode="bilinear", align_corners=True)
    return grid.flatten(2)[0].T.to(positions.dtype)
