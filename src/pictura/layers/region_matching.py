"""Which true box an anchor or a proposal stands for, and which of them are trained on (Faster R-CNN, Ren et al. 2015,
section 3.1.2 and 3.1.3).

Chance is a function of the example's own seed, so that the boxes of a picture do not depend on its batch.
"""

import torch
from torch import Tensor

BACKGROUND, NEITHER = -1, -2  # instead of the number of a true box


def match(boxes: Tensor, true: Tensor, crowd: Tensor, high: float, low: float, *, best: bool = False) -> Tensor:
    """boxes: [n 4], true: [k 4], crowd: [k] -> [n], the true box of each: the one that overlaps it most, by `high` at
    least; BACKGROUND where none does by `low`; else NEITHER.

    What lies in a crowd, by half of its area at least, is not background. best: a true box gets those that overlap it
    most, however little (paper: condition i).
    """
    from torchvision.ops import box_iou

    found = torch.full((len(boxes),), BACKGROUND, device=boxes.device)
    if (alone := ~crowd).any():
        overlap = box_iou(true[alone], boxes)
        most, which = overlap.max(0)
        found[most >= low] = NEITHER
        kept = most >= high
        if best:
            top = overlap.max(1, keepdim=True).values
            kept |= ((overlap == top) & (top > 0)).any(0)
        found[kept] = alone.nonzero().squeeze(1)[which[kept]]
    if crowd.any():
        found[(found == BACKGROUND) & (inside(boxes, true[crowd]).max(1).values >= 0.5)] = NEITHER
    return found


def inside(boxes: Tensor, regions: Tensor) -> Tensor:
    """boxes: [n 4], regions: [m 4] -> [n m], how much of each box's area lies in each region."""
    corner = torch.maximum(boxes[:, None, :2], regions[:, :2])
    other = torch.minimum(boxes[:, None, 2:], regions[:, 2:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-6)
    return (other - corner).clamp(min=0).prod(2) / area[:, None]


def sample(found: Tensor, size: int, share: float, seed: int) -> Tensor:
    """found: [n], by `match` -> [m <= size], places drawn from it: at most `share` of `size` of things, first, then
    background."""
    chance = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(found), generator=chance).to(found.device)
    drawn = found[order]
    things = order[drawn >= 0][: int(size * share)]
    return torch.cat([things, order[drawn == BACKGROUND][: size - len(things)]])
