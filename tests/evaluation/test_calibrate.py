import math

import pytest
import torch
import torch.nn.functional as F

from pictura.evaluation.calibrate import calibration_error, known_curve, separation, temperature_of


def test_the_temperature_is_the_one_that_made_the_labels() -> None:
    torch.manual_seed(0)
    scores = torch.randn(20_000, 6)
    label = torch.multinomial((scores / 0.25).softmax(1), 1)[:, 0]
    found = temperature_of(scores, label)
    assert found == pytest.approx(0.25, rel=0.05)
    losses = [float(F.cross_entropy(scores / (found * factor), label)) for factor in (0.97, 1.0, 1.03)]
    assert losses[1] == min(losses)
    assert temperature_of(10 * scores, label) == pytest.approx(10 * found, rel=1e-4)


def test_the_ends_of_temperatures() -> None:
    scores = torch.eye(4)
    assert temperature_of(scores, torch.arange(4)) == pytest.approx(1e-4, rel=0.01), "always right: as cold as it goes"
    assert temperature_of(scores, torch.tensor([1, 2, 3, 0])) == pytest.approx(100, rel=0.01), "always wrong"


def test_the_curve_is_the_logistic_one_of_two_bells() -> None:
    """Of normal distributions with one spread, the logarithm of the odds is linear."""
    torch.manual_seed(0)
    seen, unseen = 0.30 + 0.02 * torch.randn(30_000), 0.24 + 0.02 * torch.randn(10_000)
    slope, offset = known_curve(seen, unseen)
    assert slope == pytest.approx(0.06 / 0.02**2, rel=0.05)
    assert -offset / slope == pytest.approx(0.27, abs=0.002), "however many there are of each"


def test_kinds_that_do_not_overlap_have_a_finite_curve() -> None:
    slope, offset = known_curve(torch.tensor([0.3, 0.4]), torch.tensor([0.1, 0.2]))
    assert math.isfinite(slope) and slope > 0
    assert slope * 0.3 + offset > 0 > slope * 0.2 + offset
    assert all(math.isfinite(v) for v in known_curve(torch.tensor([0.5]), torch.tensor([0.5])))


def test_separation_counts_pairs() -> None:
    seen, unseen = torch.tensor([0.1, 0.5, 0.5, 0.9]), torch.tensor([0.5, 0.2, 0.0])
    pairs = [1.0 if s > u else 0.5 if s == u else 0.0 for s in seen.tolist() for u in unseen.tolist()]
    assert separation(seen, unseen) == pytest.approx(sum(pairs) / len(pairs))


def test_the_error_is_that_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    sure = torch.rand(500)
    right = torch.rand(500) < sure**2
    total = 0.0
    for b in range(10):
        inside = [i for i in range(500) if b / 10 < float(sure[i]) <= (b + 1) / 10]
        if inside:
            gap = sum(float(sure[i]) for i in inside) / len(inside) - sum(bool(right[i]) for i in inside) / len(inside)
            total += len(inside) / 500 * abs(gap)
    assert calibration_error(sure, right, 10) == pytest.approx(total, abs=1e-6)
    assert calibration_error(torch.tensor([1.0, 0.0]), torch.tensor([True, False])) == 0
