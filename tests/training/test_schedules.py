"""Schedules against their closed forms and a plain loop."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.config import kinds, load, to_dict
from pictura.training.schedules import ConstantConfig, CosineConfig, LinearConfig, ScheduleConfig


def test_kinds() -> None:
    found = {name for name, cls in kinds(ScheduleConfig).items() if cls.__module__ == "pictura.training.schedules"}
    assert found == {"constant", "cosine", "linear"}


def test_from_a_recipe() -> None:
    config = load(ScheduleConfig, {"kind": "cosine", "warmup": 100, "final": 0.1})
    assert config == CosineConfig(warmup=100, final=0.1)
    assert load(ScheduleConfig, to_dict(config)) == config


def test_cosine_is_that_of_open_clip() -> None:
    """open_clip_train/scheduler.py, written out: `_warmup_lr`, then `0.5 * (1 + cos(pi * e / es)) * base_lr`."""
    warmup, total = 10, 100
    schedule = CosineConfig(warmup=warmup).build(total)
    for step in range(total):
        if step < warmup:
            expected = (step + 1) / warmup
        else:
            expected = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        assert schedule(step) == pytest.approx(expected, abs=1e-12), step


def test_values_that_can_be_said_by_heart() -> None:
    cosine = CosineConfig(final=0.2).build(100)
    assert [cosine(s) for s in (0, 50, 100)] == pytest.approx([1.0, 0.6, 0.2])
    linear = LinearConfig(warmup=20, final=0.5).build(120)
    assert [linear(s) for s in (0, 9, 19, 20, 70, 120)] == pytest.approx([0.05, 0.5, 1.0, 1.0, 0.75, 0.5])
    constant = ConstantConfig(warmup=4).build(10)
    assert [constant(s) for s in (0, 1, 3, 4, 9)] == [0.25, 0.5, 1.0, 1.0, 1.0]


def test_the_end_is_held() -> None:
    schedule = CosineConfig(final=0.1).build(10)
    assert schedule(10) == schedule(1000) == pytest.approx(0.1)


@settings(deadline=None)
@given(
    cls=st.sampled_from([CosineConfig, LinearConfig]),
    warmup=st.integers(0, 50),
    rest=st.integers(1, 50),
    final=st.floats(0, 1),
)
def test_up_then_down_between_zero_and_one(cls: type, warmup: int, rest: int, final: float) -> None:
    schedule = cls(warmup=warmup, final=final).build(warmup + rest)
    values = [schedule(step) for step in range(warmup + rest + 1)]
    assert all(-1e-12 <= v <= 1 + 1e-12 for v in values)
    assert values[:warmup] == sorted(values[:warmup])
    down = values[warmup:]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(down))
    assert down[0] == pytest.approx(1.0) and down[-1] == pytest.approx(final, abs=1e-12)


@pytest.mark.parametrize("steps", [100, 50, 0])
def test_a_warmup_that_does_not_fit(steps: int) -> None:
    with pytest.raises(ValueError, match=f"warmup: 100 steps do not fit into a run of {steps}; try {steps // 10}"):
        ConstantConfig(warmup=100).build(steps)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"kind": "cosine", "warmup": -1}, "warmup: -1 is negative"),
        ({"kind": "linear", "final": 1.5}, "final: 1.5 is no share of the learning rate"),
        ({"kind": "linear", "final": float("nan")}, "final: nan is no share"),
        ({"kind": "constant", "final": 0.5}, "final"),
        ({"kind": "cosin"}, "cosine"),
    ],
)
def test_mistakes(values: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        load(ScheduleConfig, values)
