"""How far figures can be trusted: intervals of shares, and of differences of models that saw the same examples."""

import math
import statistics
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pictura.data.randomness import random_generator

Z = 1.959963984540054  # standard deviations on either side that hold 95 % of a normal distribution
DRAWS = 2000
AT_ONCE = 1 << 24  # numbers drawn at a time


def wilson(hits: float, of: int) -> tuple[float, float]:
    """The 95 % interval of a share of `hits` in `of`, from 0 to 1 also where there are few (Wilson 1927)."""
    if of == 0:
        return 0.0, 1.0
    share, spread = hits / of, Z**2 / of
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return 0.0 if hits == 0 else middle - half, 1.0 if hits == of else middle + half


def bootstrap(values: Tensor, seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """values: [n], one for each example, or [n] differences of two models on the same examples (a paired bootstrap) ->
    the 95 % interval of their mean: 2.5 % and 97.5 % of the means of `draws` draws with replacement (Efron 1979)."""
    return between(resampled(values, seed, draws))


def resampled(values: Tensor, seed: int, draws: int, number: int = 0) -> npt.NDArray[np.float64]:
    """values: [n] -> the means of [draws] draws of n with replacement; another `number` draws independently."""
    n = len(values)
    assert n > 0
    rng, wide = random_generator(seed, 0, number, "bootstrap"), values.double().numpy()
    means, block = [], max(1, AT_ONCE // n)
    for begin in range(0, draws, block):
        means.append(wide[rng.integers(n, size=(min(block, draws - begin), n))].mean(1))
    return np.concatenate(means)


def between(means: npt.NDArray[np.float64]) -> tuple[float, float]:
    """What 95 % of them lie between."""
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def paired(one: Tensor, other: Tensor, seed: int = 0) -> tuple[float, float, float]:
    """one, other: [n] of two models on the same examples -> the mean difference, and its 95 % interval."""
    difference = one.double() - other.double()
    return float(torch.mean(difference)), *bootstrap(difference, seed)


def unpaired(one: Tensor, other: Tensor, seed: int = 0, draws: int = DRAWS) -> tuple[float, float, float]:
    """one: [n], other: [m] of different examples -> the difference of their means, and its 95 % interval; each is drawn
    anew by itself (Efron and Tibshirani 1993, section 8.3)."""
    difference = float(one.double().mean() - other.double().mean())
    return difference, *between(resampled(one, seed, draws) - resampled(other, seed, draws, number=1))


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean of two or more values, by Student's t."""
    return student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def student(freedom: int, share: float = 0.95) -> float:
    """Between minus and plus this number lies a `share` of Student's t with so many degrees of freedom."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < share else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def within(angle: float, freedom: int) -> float:
    """P(|t| < sqrt(freedom) tan(angle)), closed for whole degrees (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    odd, cosine = freedom % 2, math.cos(angle)
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for power in range(2 + odd, freedom - 1, 2):
        term *= (power - 1) / power * cosine**2
        total += term
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total
