"""Linear classifiers on frozen features, ridge and logistic regression, with the strength of their penalty chosen.

Features are centred and divided by one number, the root of their mean variance, so that a strength means the same for
every model: z = (x - mean) / scale. Weights W [d k] and biases b [k] minimise, over n pictures with labels l,

    ridge:     mean ||z W + b - onehot(l)||^2  +  l2 ||W||^2          in closed form, from z^T z [d d]
    logistic:  mean cross-entropy(z W + b, l)  +  l2 / 2 ||W||^2      by L-BFGS on all pictures at once

The strength is sought as by Radford et al. (2021, appendix A.3): every second power of ten, then half as far around the
best, and half of that, two steps to a power of ten; what counts is top-1 on a fifth of the pictures, held out. Then all
of them are fitted. Sums are float64, in blocks, so that only the features themselves (float32) are held.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Solver = Literal["ridge", "logistic"]
BLOCK = 8192  # pictures at once
POWERS = (2.0, 0.0, -2.0, -4.0, -6.0)  # of ten: the strengths tried first, strongest first
HELD_OUT = 5  # one of so many pictures of a class
ITERATIONS = 1000  # Radford et al. 2021, appendix A.3
STEEP = 1e-6  # the largest derivative left at the end; scikit-learn leaves 1e-4
SHARPEST = 10  # powers of two tried as the scale of ridge regression's scores


@dataclass(frozen=True)
class Linear:
    """x: [b d] -> scores [b k], float32. weight: [d k] and bias: [k], float64, take x as it is.

    scale: what scores are multiplied by before a softmax.
    """

    weight: Tensor
    bias: Tensor
    scale: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        rows = (rows.to(self.weight).matmul(self.weight) + self.bias for rows in x.split(BLOCK))
        return torch.cat([row.float() for row in rows])


class Fit(ABC):
    """Features x: [n d] with labels [n] of k classes, ready to be fitted at any strength."""

    def __init__(self, x: Tensor, label: Tensor, k: int) -> None:
        self.x, self.label, self.k = x, label, k
        self.mean = x.new_zeros(x.shape[1], dtype=torch.float64)
        for rows in x.split(BLOCK):
            self.mean += rows.double().sum(0) / len(x)
        variance = sum(float(rows.square().sum()) for rows, _ in self.blocks()) / x.numel()
        self.scale = max(variance**0.5, 1e-12)  # of features that are all the same, whatever

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Centred features, float64, and labels, a part at a time."""
        for rows, label in zip(self.x.split(BLOCK), self.label.split(BLOCK), strict=True):
            yield rows.double() - self.mean, label

    def linear(self, weight: Tensor, bias: Tensor) -> Linear:
        """Weights and biases for z -> the same for x."""
        weight = weight / self.scale
        return Linear(weight, bias - self.mean @ weight)

    @abstractmethod
    def at(self, l2: float) -> Linear:
        """The minimum for one strength."""


class Ridge(Fit):
    """One decomposition serves all strengths: with z^T z / n = V E V^T, W = V (E + l2)^-1 V^T z^T onehot / n.

    Of fewer pictures than features, that of z z^T / n = U E U^T: W = z^T U (E + l2)^-1 U^T onehot / n.
    """

    def __init__(self, x: Tensor, label: Tensor, k: int) -> None:
        super().__init__(x, label, k)
        n, d = x.shape
        if n < d:
            z = torch.cat([rows for rows, _ in self.blocks()]) / self.scale
            self.values, vectors = torch.linalg.eigh(z @ z.T / n)
            self.basis, self.moment = z.T @ vectors, vectors.T @ F.one_hot(label, k).double() / n
        else:
            gram, by_class = (x.new_zeros(rows, d, dtype=torch.float64) for rows in (d, k))
            for rows, of in self.blocks():
                gram += rows.T @ rows
                by_class.index_add_(0, of, rows)
            self.values, self.basis = torch.linalg.eigh(gram / (n * self.scale**2))
            self.moment = self.basis.T @ by_class.T / (n * self.scale)
        self.prior = label.bincount(minlength=k).double() / n

    def at(self, l2: float) -> Linear:
        return self.linear(self.basis @ (self.moment / (self.values.clamp(min=0) + l2)[:, None]), self.prior)


class Logistic(Fit):
    """L-BFGS begins at the nearest strength that was solved."""

    def __init__(self, x: Tensor, label: Tensor, k: int) -> None:
        super().__init__(x, label, k)
        self.solved: dict[float, tuple[Tensor, Tensor]] = {}  # strength -> W, b

    def loss(self, weight: Tensor, bias: Tensor, l2: float) -> tuple[Tensor, Tensor, Tensor]:
        """-> what is minimised [], and its gradients by weight [d k] and by bias [k]."""
        total, by_weight, by_bias = weight.new_zeros(()), torch.zeros_like(weight), torch.zeros_like(bias)
        for rows, label in self.blocks():
            z = rows / self.scale
            logs = (z @ weight + bias).log_softmax(1)
            total += F.nll_loss(logs, label, reduction="sum")
            off = logs.exp() - F.one_hot(label, self.k)
            by_weight += z.T @ off
            by_bias += off.sum(0)
        n = len(self.x)
        return total / n + l2 / 2 * weight.square().sum(), by_weight / n + l2 * weight, by_bias / n

    @torch.no_grad()
    def at(self, l2: float) -> Linear:
        fresh = self.mean.new_zeros(len(self.mean), self.k), self.mean.new_zeros(self.k)
        nearest = min(self.solved, key=lambda other: abs(math.log(other / l2)), default=None)
        weight, bias = fresh if nearest is None else [tensor.clone() for tensor in self.solved[nearest]]
        descent = torch.optim.LBFGS(
            [weight, bias],
            max_iter=ITERATIONS,
            tolerance_grad=STEEP,
            tolerance_change=1e-14,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            loss, weight.grad, bias.grad = self.loss(weight, bias, l2)
            return loss

        descent.step(closure)
        self.solved[l2] = weight, bias
        return self.linear(weight, bias)


SOLVERS: dict[Solver, type[Fit]] = {"ridge": Ridge, "logistic": Logistic}


def held_out(label: Tensor) -> Tensor:
    """label: [n] -> [n bool], the second picture of each five of a class: of every class that has two, at least one."""
    order = label.argsort(stable=True)
    count = label.bincount()
    place = torch.empty_like(label)
    place[order] = torch.arange(len(label), device=label.device) - (count.cumsum(0) - count)[label[order]]
    return place % HELD_OUT == 1


def fit(solver: Solver, x: Tensor, label: Tensor, k: int, l2: float | None = None) -> tuple[Linear, float]:
    """x: [n d], label: [n] -> the classifier, and its l2: as given, or the best on pictures held out; of equals the
    strongest.

    ValueError where l2 is sought and no class has two pictures. Features that are not finite give a classifier that is
    never right.
    """
    held = held_out(label)
    if l2 is None and not held.any():
        raise ValueError("there must be a class with two pictures, of which one is held out to choose l2")
    if not x.isfinite().all():
        nothing = x.new_full((x.shape[1] + 1, k), torch.nan, dtype=torch.float64)
        return Linear(nothing[1:], nothing[0]), l2 or 10 ** POWERS[0]
    if l2 is not None:
        return SOLVERS[solver](x, label, k).at(l2), l2
    part, x_held, of_held = SOLVERS[solver](x[~held], label[~held], k), x[held], label[held]
    hits: dict[float, int] = {}

    def attempt(power: float) -> None:
        if power not in hits and POWERS[-1] <= power <= POWERS[0]:
            hits[power] = int((part.at(10**power)(x_held).argmax(1) == of_held).sum())

    def best() -> float:
        return max(hits, key=lambda power: (hits[power], power))

    for power in POWERS:
        attempt(power)
    for step in (1.0, 0.5):
        middle = best()
        attempt(middle + step)
        attempt(middle - step)
    l2 = 10 ** best()
    scale = sharpness(part.at(l2)(x_held), of_held) if solver == "ridge" else 1.0
    whole = SOLVERS[solver](x, label, k).at(l2)
    return Linear(whole.weight, whole.bias, scale), l2


def sharpness(scores: Tensor, label: Tensor) -> float:
    """The power of two by which scores, multiplied, have the least cross-entropy: ridge regression's are near 0 and 1,
    no logarithms of probabilities."""
    scales = [2.0**power for power in range(SHARPEST)]
    return min(scales, key=lambda scale: float(F.cross_entropy(scale * scores, label)))
