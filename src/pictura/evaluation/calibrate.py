"""Probabilities to be believed: their temperature, the chance of being any of the classes, how far off they are."""

import torch
from torch import Tensor

HALVINGS = 50
COLDEST, HOTTEST = 1e-4, 1e2


def temperature_of(scores: Tensor, label: Tensor) -> float:
    """scores: [n k], label: [n] -> the T for which softmax(scores / T) has the least cross-entropy (Guo et al. 2017,
    section 4.2), within 1e-4 and 100. It is convex in 1 / T, so halving finds where its slope changes sign."""
    wide = scores.double()
    right = wide.gather(1, label[:, None]).mean()
    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        slope = ((middle * wide).softmax(1) * wide).sum(1).mean() - right
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(1 / (low * high) ** 0.5)


def known_curve(seen: Tensor, unseen: Tensor) -> tuple[float, float]:
    """Scores of pictures of the classes, [n], and of others, [m] -> (slope, offset): 1 / (1 + exp(-slope s - offset))
    is the chance that a picture with score s is one of the first, where both kinds are as frequent.

    Logistic regression by Newton's method, on standardised scores, with a penalty that keeps the slope finite where
    they do not overlap.
    """
    score = torch.cat([seen, unseen]).double()
    mean, spread = score.mean(), score.std().clamp(min=1e-9)
    x = torch.stack([(score - mean) / spread, torch.ones_like(score)], 1)
    y = torch.cat([torch.ones(len(seen)), torch.zeros(len(unseen))]).double()
    weight = torch.cat([torch.full((len(part),), 0.5 / max(1, len(part))) for part in (seen, unseen)]).double()
    penalty = torch.diag(torch.tensor([1e-5, 0.0], dtype=torch.float64))
    found = torch.zeros(2, dtype=torch.float64)
    for _ in range(HALVINGS):
        p = (x @ found).sigmoid()
        gradient = x.T @ (weight * (p - y)) + penalty @ found
        curvature = x.T @ ((weight * p * (1 - p))[:, None] * x) + penalty + 1e-12 * torch.eye(2).double()
        found -= torch.linalg.solve(curvature, gradient).clamp(-4, 4)
    slope = float(found[0] / spread)
    return slope, float(found[1] - slope * mean)


def separation(seen: Tensor, unseen: Tensor) -> float:
    """The chance that a score of the first, [n], is above one of the second, [m]; a tie is half a chance (AUROC). A NaN
    counts as wrong: a diverged model must not look good."""
    seen, order = seen.nan_to_num(-torch.inf), unseen.nan_to_num(torch.inf).sort().values
    below = torch.searchsorted(order, seen, right=False) + torch.searchsorted(order, seen, right=True)
    return float(below.double().mean() / (2 * len(unseen)))


def average_precision(found: Tensor, others: Tensor) -> float:
    """The area under precision over recall, in steps, where those with scores `found`, [n], are to be found among
    `others`, [m], the highest first; equal scores are found together, and a NaN counts as wrong (AUPR, as Hendrycks et
    al. 2021 score ImageNet-O, arXiv:1907.07174)."""
    every = torch.cat([found.nan_to_num(-torch.inf), others.nan_to_num(torch.inf)])
    scores, order = every.sort(descending=True)
    right = (order < len(found)).cumsum(0)
    last = torch.cat([scores[1:] != scores[:-1], torch.ones(1, dtype=torch.bool)]).nonzero()[:, 0]  # of equal ones
    precision = right[last].double() / (last + 1)
    return float((precision * right[last].diff(prepend=torch.zeros(1, dtype=right.dtype))).sum() / len(found))


def calibration_error(probability: Tensor, right: Tensor, bins: int = 15) -> float:
    """probability: [n] of the answers, right: [n] bool -> the gap between how sure and how right they are, averaged
    over bins of equal width, each with its share of answers (Guo et al. 2017, equation 3)."""
    place = (probability * bins).ceil().long().clamp(1, bins) - 1
    sure = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, probability.double())
    hits = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, right.double())
    return float((sure - hits).abs().sum() / len(probability))
