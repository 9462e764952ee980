import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.evaluation import adapters
from pictura.evaluation.adapters import (
    HOLDS,
    STRENGTHS,
    Cache,
    Method,
    learnt,
    prompt_logistic,
    prompt_ridge,
    zero_shot,
)

NEVER = 1e12  # a penalty that lets nothing be learnt


def world(
    k: int, each: int, d: int = 64, rank: int = 10, noise: float = 1.5, seed: int = 0, asked: int = 600
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> x, label, asked, wanted, w: classes in few of the dimensions, pictures around them and far from the origin,
    texts around them and far from the pictures (Liang et al. 2022, the modality gap)."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    directions = torch.linalg.qr(normal(d, rank))[0].T / rank**0.5
    centres, pictures, texts = (
        normal(k, rank) @ directions,
        F.normalize(normal(d), dim=0),
        F.normalize(normal(d), dim=0),
    )
    label, wanted = torch.arange(k * each) % k, torch.randint(0, k, (asked,), generator=random)
    x, other = (F.normalize(pictures + centres[of] + noise * normal(len(of), d) / d**0.5) for of in (label, wanted))
    return x, label, other, wanted, F.normalize(texts + centres + normal(k, d) / d**0.5).T


def shares(x: Tensor, label: Tensor, asked: Tensor, wanted: Tensor, w: Tensor, scale: float) -> dict[str, float]:
    methods: tuple[Method, ...] = ("ridge", "logistic", "prompt_ridge", "prompt_logistic", "cache")
    scores = {method: learnt(method, x, label, w.shape[1], 1.0, (w, scale))(asked) for method in methods}
    return {name: float((s.argmax(1) == wanted).double().mean()) for name, s in scores.items()}


# The dip and its remedies


def test_names_help_where_pictures_are_few_and_do_no_harm_where_they_are_many() -> None:
    """Means over a few worlds, whose single values differ by some points; the differences looked for are larger."""
    mean: dict[tuple[str, int], float] = {}
    worlds = 4
    for seed in range(worlds):
        x, label, asked, wanted, w = world(20, 16, seed=seed)
        zero = float((zero_shot(w)(asked).argmax(1) == wanted).double().mean())
        for n in (1, 2, 4, 16):
            found = shares(x[: 20 * n], label[: 20 * n], asked, wanted, w, 30.0) | {"zeroshot": zero}
            for name, share in found.items():
                mean[name, n] = mean.get((name, n), 0.0) + share / worlds
    for name in ("ridge", "logistic"):
        assert mean[name, 1] < mean["zeroshot", 1] - 0.05, "the dip"
        assert mean[name, 16] > mean["zeroshot", 1] + 0.05
    for name in ("prompt_ridge", "prompt_logistic"):
        for n in (1, 2):
            assert mean[name, n] > max(mean["zeroshot", n], mean["ridge", n]) - 0.01, (name, n)
        assert mean[name, 4] > max(mean["zeroshot", 4], mean["ridge", 4]) + 0.02, name
        assert mean[name, 16] > mean["ridge", 16] - 0.03, name
    assert mean["cache", 1] > mean["zeroshot", 1] - 0.01 and mean["cache", 16] > mean["zeroshot", 16]


def test_names_that_mean_nothing_are_overcome() -> None:
    x, label, asked, wanted, w = world(5, 32)
    found = shares(x, label, asked, wanted, w.roll(1, 1), 30.0)  # each is its neighbour's
    assert float((zero_shot(w.roll(1, 1))(asked).argmax(1) == wanted).double().mean()) < 0.2
    assert found["prompt_ridge"] > found["ridge"] - 0.02
    assert found["prompt_logistic"] > 0.9 * found["ridge"]


# Ridge regression


def objective(x: Tensor, label: Tensor, w: Tensor, weight: Tensor, bias: Tensor, l2: float) -> Tensor:
    """What is minimised, by what is added to the names, as the docstring has it; a by its own least squares."""
    x, w, k = x.double(), w.double(), w.shape[1]
    target = F.one_hot(label, k).double() - 1 / k
    start = x @ (w - w.mean(1, keepdim=True))
    a = torch.linalg.lstsq(start.reshape(-1, 1), target.reshape(-1, 1)).solution.clamp(min=0)
    z = x - x.mean(0)
    z = z / z.square().sum(1).mean().sqrt()
    left = a * start + z @ weight + bias - target
    return left.square().sum() + l2 * (weight.square().sum() + bias.square().sum())


def least(x: Tensor, label: Tensor, w: Tensor, l2: float, asked: Tensor) -> Tensor:
    """Scores by a minimum that autograd finds: the objective is a parabola, so one Newton step from anywhere."""
    e, k = w.shape
    flat = torch.zeros(e * k + k, dtype=torch.float64)

    def of(flat: Tensor) -> Tensor:
        return objective(x, label, w, flat[: e * k].view(e, k), flat[e * k :], l2)

    slope = torch.autograd.functional.jacobian(of, flat)
    flat = -torch.linalg.solve(torch.autograd.functional.hessian(of, flat), slope)
    x, asked, w = x.double(), asked.double(), w.double()
    names = w - w.mean(1, keepdim=True)
    target = F.one_hot(label, k).double() - 1 / k
    a = max(float((target * (x @ names)).sum() / (x @ names).square().sum()), 0.0)
    length = (x - x.mean(0)).square().sum(1).mean().sqrt()
    return a * asked @ names + (asked - x.mean(0)) / length @ flat[: e * k].view(e, k) + flat[e * k :]


@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("each", [1, 6])
def test_ridge_is_the_minimum_of_what_it_says(each: int, l2: float) -> None:
    """With fewer pictures than features, and with more."""
    x, label, asked, _, w = world(3, each, d=8, rank=3)
    scores = prompt_ridge(x, label, w, l2)(asked)
    torch.testing.assert_close(scores, least(x, label, w, l2, asked).float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("each", [1, 6])
def test_its_strength_is_the_best_when_each_picture_is_left_out(each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By as many solves; centre, length and the names' share are those of all pictures."""
    x, label, _, _, w = world(3, each, d=8, rank=3, seed=2)
    k, n = 3, len(x)
    z = x.double() - x.double().mean(0)
    z = torch.cat([z / z.square().sum(1).mean().sqrt(), torch.ones(n, 1)], 1)
    names = (w - w.mean(1, keepdim=True)).double()
    target = F.one_hot(label, k).double() - 1 / k
    cosine = x.double() @ names
    left = target - max(float((target * cosine).sum() / cosine.square().sum()), 0.0) * cosine
    scored = max(float((target * cosine).sum() / cosine.square().sum()), 0.0) * cosine
    right = dict.fromkeys(STRENGTHS, 0)
    for l2 in STRENGTHS:
        for i in range(n):
            others = [j for j in range(n) if j != i]
            gram = z[others].T @ z[others] + l2 * torch.eye(9)
            told = z[i] @ torch.linalg.solve(gram, z[others].T @ left[others])
            right[l2] += int((scored[i] + told).argmax() == label[i])
    assert len(set(right.values())) > 1 or each == 1
    best = max(right, key=right.__getitem__)  # the strongest of equal ones
    asked = world(3, 1, d=8, rank=3)[2]
    assert torch.equal(prompt_ridge(x, label, w)(asked), prompt_ridge(x, label, w, best)(asked))
    for two in pairwise(STRENGTHS):  # and not the best by chance
        monkeypatch.setattr(adapters, "STRENGTHS", two)
        of = max(two, key=right.__getitem__)
        assert torch.equal(prompt_ridge(x, label, w)(asked), prompt_ridge(x, label, w, of)(asked)), two


def test_ridge_that_learns_nothing_is_zero_shot() -> None:
    x, label, asked, _, w = world(6, 2)
    scores, cosines = prompt_ridge(x, label, w, NEVER)(asked).double(), asked.double() @ w.double()
    scores, cosines = (s - s.mean(1, keepdim=True) for s in (scores, cosines))
    a = float((scores * cosines).sum() / cosines.square().sum())
    assert a > 0.1
    torch.testing.assert_close(scores, a * cosines, atol=1e-6, rtol=0)


def test_ridge_leaves_out_names_that_are_worse_than_chance() -> None:
    """As if there were none: scores that names at a right angle to everything would give."""
    x, label, asked, _, w = world(6, 4)
    against = -w
    nothing = torch.zeros_like(w)
    torch.testing.assert_close(prompt_ridge(x, label, against, 1.0)(asked), prompt_ridge(x, label, nothing, 1.0)(asked))


# Logistic regression


def cost(x: Tensor, label: Tensor, w: Tensor, moved: Tensor, scale: float, l2: float) -> Tensor:
    """One picture and class after the other."""
    total = l2 / 2 * (moved - w.double()).square().sum()
    for row, own in zip(x.double(), label.tolist(), strict=True):
        scores = [scale * (row * moved[:, c]).sum() for c in range(w.shape[1])]
        total = total - scores[own] + torch.stack([s.exp() for s in scores]).sum().log()
    return total


@pytest.mark.parametrize("l2", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("each", [1, 6])
def test_logistic_ends_where_nothing_slopes(each: int, l2: float) -> None:
    x, label, asked, _, w = world(4, each, d=8, rank=3)
    found = prompt_logistic(x, label, w, 20.0, l2)
    moved = (found.weight / 20).requires_grad_()
    value = cost(x, label, w, moved, 20.0, l2)
    (slope,) = torch.autograd.grad(value, [moved])
    assert float(slope.abs().max()) < 1e-5 * len(x)
    assert value < cost(x, label, w, w.double(), 20.0, l2) - 1e-3, "the names alone cost more"
    assert not found.bias.any()
    torch.testing.assert_close(found(asked), (20 * asked.double() @ moved.detach()).float())


def test_logistic_that_learns_nothing_is_zero_shot() -> None:
    x, label, asked, _, w = world(6, 2)
    scores = prompt_logistic(x, label, w, 30.0, NEVER)(asked)
    torch.testing.assert_close(scores, (30 * asked.double() @ w.double()).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("each", "noise"), [(1, 1.5), (8, 0.5), (8, 3.0)])
def test_it_is_held_as_halves_of_the_pictures_tell(each: int, noise: float) -> None:
    x, label, _, _, w = world(4, each, d=16, rank=3, noise=noise)  # labels 0 1 2 3 0 1 2 3 …
    half = torch.empty_like(label)
    half[label.argsort(stable=True)] = torch.arange(len(label)) % 2
    surprise = {}
    for l2 in HOLDS:
        surprise[l2] = 0.0
        for one in (0, 1):
            scores = prompt_logistic(x[half != one], label[half != one], w, 20.0, l2)(x[half == one].double())
            surprise[l2] += float(F.cross_entropy(scores, label[half == one], reduction="sum"))
    best = min(surprise, key=surprise.__getitem__)
    assert torch.equal(prompt_logistic(x, label, w, 20.0).weight, prompt_logistic(x, label, w, 20.0, best).weight)


def test_the_more_pictures_the_less_names_count() -> None:
    x, label, _, _, w = world(6, 16)
    moved = [float((prompt_logistic(x[:n], label[:n], w, 30.0).weight / 30 - w).norm()) for n in (6, 24, 96)]
    assert moved[0] < moved[1] < moved[2]


# The cache


def test_cache_is_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    x, label, asked, _, w = world(3, 4, d=8, rank=3, asked=20)
    monkeypatch.setattr(adapters, "BLOCK", 7)
    found = Cache(x, label, w, 50.0)(asked)
    for row, scores in zip(asked.tolist(), found.tolist(), strict=True):
        for c in range(3):
            score = 50 * sum(v * float(w[e, c]) for e, v in enumerate(row))
            for picture, own in zip(x.tolist(), label.tolist(), strict=True):
                cosine = sum(p * q for p, q in zip(row, picture, strict=True))
                score += 1.0 * math.exp(-5.5 * (1 - cosine)) if own == c else 0
            assert scores[c] == pytest.approx(score, abs=1e-4)


def test_cache_without_a_share_is_zero_shot() -> None:
    x, label, asked, _, w = world(3, 4)
    torch.testing.assert_close(Cache(x, label, w, 50.0, alpha=0.0)(asked), 50 * asked @ w)
    other = Cache(x, label, w, 50.0, alpha=3.0, beta=1.0)(asked) - 50 * asked @ w
    torch.testing.assert_close(other, 3 * torch.exp(asked @ x.T - 1) @ F.one_hot(label).float(), atol=1e-4, rtol=0)


# What is broken


@pytest.mark.parametrize("method", ["prompt_ridge", "prompt_logistic", "cache"])
def test_nothing_finite_is_made_of_what_is_not(method: Method) -> None:
    x, label, asked, _, w = world(3, 2, asked=5)
    for bad in ((x * torch.nan, w), (x, w * torch.nan)):
        assert learnt(method, bad[0], label, 3, 1.0, (bad[1], 30.0))(asked).isnan().all()
    same = x[:1].expand(6, -1)
    assert learnt(method, same, label, 3, 1.0, (w[:, :1].expand(-1, 3), 30.0))(asked).isfinite().all()
