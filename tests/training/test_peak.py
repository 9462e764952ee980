"""A machine's speed is a number that the tests set, but for the last."""

import time
from typing import Any

import pytest
import torch

from pictura.training.peak import measured_peak


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_of_a_machine_whose_speed_is_known(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, dtype: torch.dtype
) -> None:
    """A machine of 1 TFLOP/s, at half of that for small products: the best is told, in little time."""
    sizes = []

    def mm(a: torch.Tensor, b: torch.Tensor, **_: Any) -> torch.Tensor:
        sizes.append(len(a))
        assert a.dtype == dtype and a.shape == b.shape
        clock.now += 2 * len(a) ** 3 / (0.5e12 if len(a) < 1024 else 1e12)
        return torch.zeros(1, 1)

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(time, "perf_counter", clock)
    assert measured_peak("cpu", dtype) == pytest.approx(1e12)
    assert sorted(set(sizes)) == [256, 512, 1024, 2048]
    assert clock.now - 100.0 < 0.3


def test_peak_of_a_slow_machine_takes_no_longer(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    def mm(a: torch.Tensor, b: torch.Tensor, **_: Any) -> torch.Tensor:
        clock.now += 2 * len(a) ** 3 / 5e9
        return torch.zeros(1, 1)

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(time, "perf_counter", clock)
    assert measured_peak("cpu", torch.float32) == pytest.approx(5e9)
    assert clock.now - 100.0 < 0.3


def test_peak_of_this_machine() -> None:
    assert 1e8 < measured_peak("cpu", torch.float32) < 1e16
