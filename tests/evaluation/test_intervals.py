import math

import numpy as np
import pytest
import torch

from pictura.evaluation.intervals import bootstrap, half_width, paired, student, unpaired, wilson


def test_wilsons_interval() -> None:
    for right, n in ((0, 10), (3, 10), (200, 400), (10, 10)):
        low, high = wilson(right, n)
        for edge in (low, high):  # the edges solve (p - x)² = z² x (1 - x) / n
            assert (right / n - edge) ** 2 == pytest.approx(1.959964**2 * edge * (1 - edge) / n, abs=1e-7)
        assert 0 <= low <= right / n <= high <= 1 and (low > 0) == (right > 0) and (high < 1) == (right < n)
    assert wilson(3, 10) == pytest.approx((0.1078, 0.6032), abs=1e-4)  # Newcombe 1998 gives such values
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_bootstrap_is_that_of_the_mean() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(3, 2, 400))
    low, high = bootstrap(values)
    half = 1.96 * float(values.std()) / 20
    assert (low, high) == pytest.approx((float(values.mean()) - half, float(values.mean()) + half), abs=0.15 * half)
    assert bootstrap(values) == (low, high)
    assert bootstrap(torch.ones(5)) == (1.0, 1.0)


def test_pairs_tell_more_than_two_intervals() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random(500)
    one = torch.from_numpy(hard < 0.62)
    other = torch.from_numpy(hard < 0.58)
    difference, low, high = paired(one, other)
    assert difference == pytest.approx(float(one.double().mean() - other.double().mean()))
    assert 0 < low < difference < high
    assert wilson(int(other.sum()), 500)[1] > wilson(int(one.sum()), 500)[0], "alone, they overlap"


def test_unpaired_is_wider_than_either() -> None:
    rng = np.random.default_rng(2)
    one, other = torch.from_numpy(rng.normal(1, 1, 300)), torch.from_numpy(rng.normal(0, 2, 500))
    difference, low, high = unpaired(one, other)
    half = 1.96 * math.sqrt(float(one.var()) / 300 + float(other.var()) / 500)
    assert difference == pytest.approx(float(one.mean() - other.mean()))
    assert (low, high) == pytest.approx((difference - half, difference + half), abs=0.15 * half)
    _, low, high = unpaired(one, one)
    assert low < -0.1 and high > 0.1, "each is drawn by itself"


def test_students_t_is_that_of_printed_tables() -> None:
    """Fisher and Yates; the digits of Abramowitz and Stegun 1964, table 26.10, where a row is there."""
    for freedom, value in (
        (1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (6, 2.447), (7, 2.365), (8, 2.306), (9, 2.262),
        (10, 2.228), (14, 2.145), (15, 2.131), (20, 2.086), (29, 2.045), (30, 2.042), (60, 2.000), (120, 1.980),
    ):  # fmt: skip
        assert student(freedom) == pytest.approx(value, abs=5.1e-4)
    assert student(4, 0.99) == pytest.approx(4.604, abs=5.1e-4)
    assert student(100_001) == pytest.approx(1.95997, abs=1e-4)


@pytest.mark.parametrize("freedom", [1, 2, 5, 8])
def test_between_its_bounds_lies_its_share(freedom: int) -> None:
    """By the density, summed in small steps."""
    bound = student(freedom, 0.9)
    norm = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
    steps = 20_000
    inside = 0.0
    for i in range(steps):
        t = bound * (i + 0.5) / steps
        inside += norm * (1 + t * t / freedom) ** (-(freedom + 1) / 2) * 2 * bound / steps
    assert inside == pytest.approx(0.9, abs=1e-6)


def test_the_interval_holds_the_mean_of_a_normal_variable_95_times_in_100() -> None:
    values = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)).double()
    held = sum(abs(sum(row)) / 4 <= half_width(row) for row in values.tolist()) / 4000
    assert 0.94 < held < 0.96
    assert half_width([0.5, 0.5]) == 0
