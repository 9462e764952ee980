"""Classifiers that begin at the names of classes and learn from a few pictures: remedies for the few-shot dip of CLIP.

With one or two pictures of a class, a linear classifier that begins at nothing is worse than zero-shot classification
by names (Radford et al. 2021, section 3.1.5 and figure 6). These keep the names. Everywhere x: [n e] are features of
unit length with labels [n], w: [e k] is the classifier made of names (`zeroshot.classifier`), columns of unit length,
and scale is the inverse temperature of the model. No strength needs other pictures than those that are learnt from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.evaluation.base import exact_products, outranked
from pictura.evaluation.linear_fit import BLOCK, ITERATIONS, STEEP, Linear, fit

Method = Literal["zeroshot", "ridge", "logistic", "prompt_ridge", "prompt_logistic", "cache"]
Words = tuple[Tensor, float]  # w, scale

STRENGTHS = (1e4, 3e3, 1e3, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
"""Of `prompt_ridge`, in pictures: the first leaves the names as they are, the last fits the pictures as it likes."""
HOLDS = (1e3, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)  # the same of `prompt_logistic`, in halves of a nat
FLATTER = 100.0  # of cross-entropy, beside squares: what logistic regression takes of the strength that ridge has
TINY = 1e-12


def worded(methods: Sequence[Method]) -> bool:
    """Whether any of them needs the classes' names."""
    return not set(methods) <= {"ridge", "logistic"}


def learnt(
    method: Method, x: Tensor, label: Tensor, k: int, l2: float, words: Words | None
) -> Callable[[Tensor], Tensor]:
    """x: [n d], label: [n] -> what gives scores [m k] of features [m d]."""
    if method == "ridge" or method == "logistic":
        return fit(method, x, label, k, l2 if method == "ridge" else l2 / FLATTER)[0]
    assert words is not None, f"{method} begins at words"
    w, scale = words
    if method == "prompt_ridge":
        return prompt_ridge(x, label, w)
    return prompt_logistic(x, label, w, scale) if method == "prompt_logistic" else Cache(x, label, w, scale)


def zero_shot(w: Tensor) -> Linear:
    """The names alone: cosines."""
    return Linear(w.double(), w.new_zeros(w.shape[1], dtype=torch.float64))


def prompt_ridge(x: Tensor, label: Tensor, w: Tensor, l2: float | None = None) -> Linear:
    """Ridge regression of the one-hot answers that begins at the names (Bendou et al. 2025, with a linear kernel).

    z = (x - mean) / length, `length` such that the mean square length of z is 1. W [e k] and b [k] minimise

        sum ||a x w' + z W + b - (onehot(label) - 1/k)||^2  +  l2 (||W||^2 + ||b||^2),

    where w' are the columns of w less their mean, and a is the best by least squares with neither W nor b; below zero,
    where names are worse than chance, it is 0, and this is ridge regression. l2 counts pictures: of so many, the names
    have the weight. None takes of `STRENGTHS` the one by which most pictures are told rightly when each is left out in
    turn, in closed form, and of equal ones the strongest: the names are left only for something better. With one
    picture of a class that is mostly the strongest, since no other shows its class.
    """
    n, k = len(x), w.shape[1]
    if not usable(x, w):
        return broken(w)
    x, w = x.double(), w.double()
    target = F.one_hot(label, k).double() - 1 / k
    w = w - w.mean(1, keepdim=True)
    cosine = x @ w
    best = float((target * cosine).sum() / cosine.square().sum().clamp(min=TINY))
    begin = max(best, 0.0) * w
    left = target - x @ begin
    mean = x.mean(0)
    z = x - mean
    length = max(float(z.square().sum(1).mean()) ** 0.5, TINY)
    u, s, v = torch.linalg.svd(z / length, full_matrices=False)
    told, energy, offset = u.T @ left, s.square(), left.sum(0)

    def left_out(l2: float) -> int:
        kept = energy / (energy + l2)
        fitted = u @ (kept[:, None] * told) + offset / (n + l2)
        lever = u.square() @ kept + 1 / (n + l2)  # what a picture's own answer weighs in its fit
        scores = target - (left - fitted) / (1 - lever)[:, None]
        return int((~outranked(scores, label).any(1)).sum())

    if l2 is None:
        l2 = max(STRENGTHS, key=left_out)
    learnt = v.T @ ((s / (energy + l2))[:, None] * told) / length
    return Linear(begin + learnt, offset / (n + l2) - mean @ learnt)


def prompt_logistic(x: Tensor, label: Tensor, w: Tensor, scale: float, l2: float | None = None) -> Linear:
    """Softmax regression whose weights are the texts' vectors, moved as little as the pictures ask for.

    w' [e k] minimises  sum cross-entropy(scale x w', label) + l2 / 2 ||w' - w||^2,  by L-BFGS from w' = w: the linear
    probe of Silva-Rodriguez et al. (2024), which begins at zero-shot and is held near it. The sum grows with the
    pictures, and the penalty does not, so that the more there are, the less the names count.

    How far names can be trusted differs from model to model, so None takes of `HOLDS` the l2 with the least
    cross-entropy of pictures that were not learnt from: each half is asked about after the other. A class that one half
    does not show stays near its name there, so that this works from one picture of a class on.
    """
    if not usable(x, w):
        return broken(w)
    x, w = x.double(), w.double()
    if l2 is None:
        half = torch.empty_like(label)
        half[label.argsort(stable=True)] = torch.arange(len(label), device=label.device) % 2
        surprise = torch.zeros(len(HOLDS), dtype=torch.float64)
        for asked in (half == 0, half == 1):
            moved = torch.zeros_like(w)
            for i, hold in enumerate(HOLDS):
                moved = shifted(x[~asked], label[~asked], w, scale, hold, moved)
                logs = (scale * x[asked] @ (w + moved)).log_softmax(1)
                surprise[i] += float(F.nll_loss(logs, label[asked], reduction="sum"))
        l2 = HOLDS[int(surprise.argmin())]
    return Linear(scale * (w + shifted(x, label, w, scale, l2, torch.zeros_like(w))), w.new_zeros(w.shape[1]))


@torch.no_grad()
def shifted(x: Tensor, label: Tensor, w: Tensor, scale: float, l2: float, begin: Tensor) -> Tensor:
    """[e k] float64, what the texts' vectors w are moved by; sought from `begin` on."""
    n, target, moved = max(len(x), 1), F.one_hot(label, w.shape[1]), begin.clone()
    descent = torch.optim.LBFGS(
        [moved],
        max_iter=ITERATIONS,
        tolerance_grad=STEEP,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        logs = (scale * x @ (w + moved)).log_softmax(1)
        moved.grad = (scale * x.T @ (logs.exp() - target) + l2 * moved) / n
        return (F.nll_loss(logs, label, reduction="sum") + l2 / 2 * moved.square().sum()) / n

    descent.step(closure)
    return moved


@dataclass(frozen=True)
class Cache:
    """asked: [m e] -> scores [m k], float32: scale × cosine with the names + alpha × what the pictures x: [n e] say.

    Each picture speaks for its class with exp(-beta (1 - cosine)). Tip-Adapter without training (Zhang et al. 2022,
    equations 4 to 6; alpha and beta as published). Nothing is fitted, so that with one picture little changes, and with
    many it learns less than the others do.
    """

    x: Tensor
    label: Tensor
    w: Tensor
    scale: float
    alpha: float = 1.0
    beta: float = 5.5

    @exact_products()
    def __call__(self, asked: Tensor) -> Tensor:
        says = F.one_hot(self.label, self.w.shape[1]).to(self.x)
        near = (torch.exp(-self.beta * (1 - rows @ self.x.T)) @ says for rows in asked.split(BLOCK))
        return self.scale * asked @ self.w + self.alpha * torch.cat(list(near))


def usable(x: Tensor, w: Tensor) -> bool:
    """x: [n e], w: [e k] -> whether all of both is finite. A diverged model's features are not, and no fit would end
    with them."""
    return bool(x.isfinite().all() and w.isfinite().all())


def broken(w: Tensor) -> Linear:
    """A classifier that is never right, for features that are not finite."""
    nothing = torch.full_like(w, torch.nan, dtype=torch.float64)
    return Linear(nothing, nothing[0])
