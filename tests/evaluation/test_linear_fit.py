import math

import pytest
import torch
import torch.nn.functional as F

from pictura.evaluation import linear_fit
from pictura.evaluation.linear_fit import Fit, Logistic, Ridge, fit, held_out, sharpness


def data(n: int = 60, d: int = 7, k: int = 4, noise: float = 0.3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors around a direction for each class and far from the origin, as a model's are; classes overlap."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(k, d, generator=random) / 3
    label = torch.randint(0, k, (n,), generator=random)
    x = 2 + centres[label] + noise * torch.randn(n, d, generator=random) * torch.logspace(0, -1, d)
    return F.normalize(x, dim=1), label


def naive_ridge(x: torch.Tensor, label: torch.Tensor, k: int, l2: float) -> torch.Tensor:
    """[d + 1, k], weights for x and below them biases: least squares of the system with a row for each penalty."""
    n, d = x.shape
    x = x.double()
    scale = (x - x.mean(0)).square().mean().sqrt()
    penalty = (n * l2) ** 0.5 * torch.eye(d, dtype=torch.float64)  # of the weights for z
    rows = torch.cat([torch.cat([(x - x.mean(0)) / scale, penalty]), torch.ones(n + d, 1).double()], 1)
    rows[n:, -1] = 0  # the bias is free
    solved = torch.linalg.lstsq(rows, torch.cat([F.one_hot(label, k).double(), torch.zeros(d, k).double()])).solution
    weight = solved[:-1] / scale
    return torch.cat([weight, (solved[-1] - x.mean(0) @ weight)[None]])


@pytest.mark.parametrize("l2", [100.0, 1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("shape", [(60, 7), (12, 20)])
def test_ridge_is_a_naive_solve(l2: float, shape: tuple[int, int]) -> None:
    """With more features than pictures too."""
    x, label = data(*shape)
    linear = Ridge(x, label, 4).at(l2)
    expected = naive_ridge(x, label, 4, l2)
    torch.testing.assert_close(linear.weight, expected[:-1], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(linear.bias, expected[-1], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(linear(x), (x.double() @ linear.weight + linear.bias).float())


def objective(
    x: torch.Tensor, label: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, l2: float
) -> torch.Tensor:
    """What logistic regression minimises, by weights for x as it is, written out."""
    x = x.double()
    scale = (x - x.mean(0)).square().mean().sqrt()
    return F.cross_entropy(x @ weight + bias, label) + l2 / 2 * (weight * scale).square().sum()


@pytest.mark.parametrize("l2", [100.0, 1.0, 1e-2, 1e-4, 1e-6])
def test_logistic_ends_where_nothing_slopes(l2: float) -> None:
    x, label = data()
    found = Logistic(x, label, 4).at(l2)
    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    by_weight, by_bias = torch.autograd.grad(objective(x, label, weight, bias, l2), [weight, bias])
    scale = (x - x.mean(0)).square().mean().sqrt()
    assert float((by_weight - x.double().mean(0)[:, None] * by_bias).abs().max() / scale) < 2e-6  # by weights for z
    assert float(by_bias.abs().max()) < 2e-6
    none = torch.zeros_like(weight), torch.zeros_like(bias)
    assert objective(x, label, weight, bias, l2) < objective(x, label, *none, l2) - 1e-4


def test_logistic_is_a_plain_descent() -> None:
    """Numbers of Python, one picture, class and feature after the other."""
    x, label = data(n=15, d=2, k=3)
    l2, step = 0.1, 0.7
    mean = [sum(column) / 15 for column in x.T.tolist()]
    centred = [[v - m for v, m in zip(row, mean, strict=True)] for row in x.tolist()]
    scale = math.sqrt(sum(v * v for row in centred for v in row) / 30)
    z = [[v / scale for v in row] for row in centred]
    weight, bias = [[0.0] * 3 for _ in range(2)], [0.0] * 3
    for _ in range(3000):
        by_weight, by_bias = [[l2 * w for w in row] for row in weight], [0.0] * 3
        for row, own in zip(z, label.tolist(), strict=True):
            scores = [bias[c] + sum(row[f] * weight[f][c] for f in range(2)) for c in range(3)]
            total = sum(math.exp(s) for s in scores)
            for c in range(3):
                off = (math.exp(scores[c]) / total - (c == own)) / 15
                by_bias[c] += off
                for f in range(2):
                    by_weight[f][c] += off * row[f]
        weight = [[w - step * g for w, g in zip(*rows, strict=True)] for rows in zip(weight, by_weight, strict=True)]
        bias = [b - step * g for b, g in zip(bias, by_bias, strict=True)]
    linear = Logistic(x, label, 3).at(l2)
    torch.testing.assert_close(linear.weight * scale, torch.tensor(weight, dtype=torch.float64), atol=1e-5, rtol=0)
    expected = [[bias[c] + sum(row[f] * weight[f][c] for f in range(2)) for c in range(3)] for row in z]
    torch.testing.assert_close(linear(x), torch.tensor(expected), atol=2e-5, rtol=0)


def test_a_warm_start_ends_in_the_same_place() -> None:
    x, label = data()
    warm = Logistic(x, label, 4)
    for l2 in (100.0, 1.0, 0.1, 0.01):
        torch.testing.assert_close(warm.at(l2)(x), Logistic(x, label, 4).at(l2)(x), atol=1e-3, rtol=0)


@pytest.mark.parametrize("solver", [Ridge, Logistic])
def test_blocks_change_nothing(solver: type[Fit], monkeypatch: pytest.MonkeyPatch) -> None:
    x, label = data()
    whole = solver(x, label, 4).at(0.01)(x)
    monkeypatch.setattr(linear_fit, "BLOCK", 7)
    torch.testing.assert_close(solver(x, label, 4).at(0.01)(x), whole, atol=2e-5, rtol=0)


def test_blocks_change_nothing_with_fewer_pictures_than_features(monkeypatch: pytest.MonkeyPatch) -> None:
    x, label = data(n=12, d=20)
    whole = Ridge(x, label, 4).at(0.01)(x)
    monkeypatch.setattr(linear_fit, "BLOCK", 5)
    torch.testing.assert_close(Ridge(x, label, 4).at(0.01)(x), whole, atol=2e-5, rtol=0)


@pytest.mark.parametrize("solver", [Ridge, Logistic])
def test_a_strength_means_the_same_at_every_scale_and_place(solver: type[Fit]) -> None:
    x, label = data()
    other = 30 * x.double() + torch.arange(7)
    torch.testing.assert_close(
        solver(other, label, 4).at(0.01)(other), solver(x, label, 4).at(0.01)(x), atol=1e-4, rtol=0
    )


def test_the_second_of_each_five_of_a_class_is_held_out() -> None:
    label = torch.randint(0, 9, (200,), generator=torch.Generator().manual_seed(0)) ** 2 // 8
    seen: dict[int, int] = {}
    expected = []
    for one in label.tolist():
        expected.append(seen.get(one, 0) % 5 == 1)
        seen[one] = seen.get(one, 0) + 1
    assert held_out(label).tolist() == expected
    assert held_out(torch.tensor([3, 3, 0])).tolist() == [False, True, False]


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_the_strength_is_the_best_on_what_was_held_out(noise: float) -> None:
    """Against naive solves, sought in the same steps; the classifier is then that of all pictures."""
    x, label = data(n=300, d=30, noise=noise)
    held = held_out(label)

    def hits(power: float) -> int:
        solved = naive_ridge(x[~held], label[~held], 4, 10**power)
        return int(((x[held].double() @ solved[:-1] + solved[-1]).argmax(1) == label[held]).sum())

    tried = {power: hits(power) for power in (2.0, 0.0, -2.0, -4.0, -6.0)}
    for step in (1.0, 0.5):
        middle = max(tried, key=lambda power: (tried[power], power))
        tried |= {power: hits(power) for power in (middle + step, middle - step) if -6 <= power <= 2}
    best = max(tried, key=lambda power: (tried[power], power))
    linear, l2 = fit("ridge", x, label, 4)
    assert l2 == pytest.approx(10**best)
    torch.testing.assert_close(linear.weight, naive_ridge(x, label, 4, l2)[:-1], atol=1e-6, rtol=1e-6)
    assert len(set(tried.values())) > 1


def test_of_equally_good_strengths_the_strongest_is_taken() -> None:
    x, label = data(n=300, d=30, noise=0.1)
    assert fit("ridge", x, label, 4)[1] == 100


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_where_features_are_mostly_noise_the_penalty_is_stronger(solver: linear_fit.Solver) -> None:
    random = torch.Generator().manual_seed(0)
    x, label = data(n=200, noise=0.02)
    noisy = 0.2 * torch.randn(4, 150, generator=random)[label] + torch.randn(200, 150, generator=random)
    fine = torch.cat([0.01 * x, torch.randn(200, 1, generator=random)], 1)  # what tells classes apart is small
    assert fit(solver, fine, label, 4)[1] < 0.1 * fit(solver, noisy, label, 4)[1]


def test_a_classifier_is_good_on_others() -> None:
    x, label = data(n=2000, noise=0.1)
    for solver in ("ridge", "logistic"):
        linear, _ = fit(solver, x[:1000], label[:1000], 4)
        hits = (linear(x[1000:]).argmax(1) == label[1000:]).double().mean()
        centres = torch.stack([x[:1000][label[:1000] == c].mean(0) for c in range(4)])
        nearest = (torch.cdist(x[1000:], centres).argmin(1) == label[1000:]).double().mean()
        assert hits >= nearest - 0.01 > 0.5


def test_the_scale_of_ridge_has_the_least_cross_entropy() -> None:
    x, label = data(n=400, noise=0.1)
    linear, l2 = fit("ridge", x, label, 4)
    held = held_out(label)
    scores = Ridge(x[~held], label[~held], 4).at(l2)(x[held])
    losses = {2.0**i: float(F.cross_entropy(2.0**i * scores, label[held])) for i in range(10)}
    assert losses[linear.scale] == min(losses.values())
    assert linear.scale == sharpness(scores, label[held]) > 1
    assert fit("logistic", x, label, 4)[0].scale == 1


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_features_that_say_nothing(solver: linear_fit.Solver) -> None:
    """All the same: the most frequent class. Not finite: no answer. A class without pictures: never the answer."""
    label = torch.tensor([0, 1, 1, 1] * 10)
    linear, _ = fit(solver, torch.ones(40, 3), label, 3)
    assert linear(torch.ones(2, 3)).argmax(1).tolist() == [1, 1]
    linear, _ = fit(solver, torch.full((40, 3), torch.nan), label, 3)
    assert linear(torch.ones(2, 3)).isnan().all()


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_a_strength_that_is_given_is_taken(solver: linear_fit.Solver) -> None:
    """And then one picture of each class will do."""
    for x, label in (data(n=60), (torch.eye(4), torch.arange(4))):
        linear, l2 = fit(solver, x, label, 4, 0.3)
        expected = linear_fit.SOLVERS[solver](x, label, 4).at(0.3)
        assert l2 == 0.3
        assert torch.equal(linear.weight, expected.weight) and torch.equal(linear.bias, expected.bias)
    linear, l2 = fit(solver, torch.full((4, 3), torch.nan), torch.arange(4), 4, 0.3)
    assert l2 == 0.3 and linear(torch.ones(2, 3)).isnan().all()


def test_one_picture_of_each_class_is_too_few() -> None:
    with pytest.raises(ValueError, match="there must be a class with two pictures"):
        fit("ridge", torch.eye(3), torch.arange(3), 3)
