"""Losses of a detector that names regions by words. Each is the mean over one picture's own, so that a picture weighs
the same in any batch and on any number of processes."""

import torch
import torch.nn.functional as F
from torch import Tensor


def per_picture(values: Tensor, picture: Tensor, pictures: int) -> Tensor:
    """values: [n], picture: [n], which one each is of -> [pictures], the mean of each one's values, 0 where it has
    none."""
    total = values.new_zeros(pictures).index_add(0, picture, values)
    return total / picture.bincount(minlength=pictures).clamp(min=1)


def naming_loss(regions: Tensor, classes: Tensor, background: Tensor, scale: Tensor, target: Tensor) -> Tensor:
    """regions: [n e], classes: [k e], background: [e], each of any length, target: [n], a class or -1 -> [n]: cross
    entropy of the cosines with the background and with all classes (ViLD, Gu et al. 2022, section 3.3, equation 2)."""
    return F.cross_entropy(named(regions, classes, background, scale), target + 1, reduction="none")


def named(regions: Tensor, classes: Tensor, background: Tensor, scale: Tensor) -> Tensor:
    """As `naming_loss` -> [n 1+k] float32: the scaled cosines, the background's first."""
    words = torch.cat([background[None].float(), classes.float()])
    return scale.float() * F.normalize(regions.float(), dim=1) @ F.normalize(words, dim=1).T


def distillation_loss(regions: Tensor, taught: Tensor) -> Tensor:
    """regions: [n e], taught: [n e], each of any length -> [n]: the distance of their directions, the sum over e of
    absolute differences (ViLD, section 3.3, equation 3; released code: summed over e, mean over regions)."""
    return (F.normalize(regions.float(), dim=1) - F.normalize(taught.float(), dim=1)).abs().sum(1)


def box_loss(deltas: Tensor, target: Tensor, beta: float) -> Tensor:
    """deltas, target: [n 4] -> [n], smooth L1 (Fast R-CNN, Girshick 2015, equation 3), straight from `beta` on."""
    return F.smooth_l1_loss(deltas.float(), target.float(), beta=beta, reduction="none").sum(1)


def mask_loss(masks: Tensor, target: Tensor) -> Tensor:
    """masks: [n y x], scores before the sigmoid, target: [n y x], 0 to 1 -> [n] (Mask R-CNN, He et al. 2017, section
    3)."""
    return F.binary_cross_entropy_with_logits(masks.float(), target.float(), reduction="none").mean((1, 2))
