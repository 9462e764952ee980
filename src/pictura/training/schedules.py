"""Learning-rate schedules: a factor in [0, 1], as a closed form of the step, so that a resumed run needs no state.

Warm-up and cosine as in open_clip (`training/scheduler.py`): step s of w warm-up steps has the factor (s + 1) / w, and
the rest goes down from 1 at step w to `final` at the end.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pictura.config import Config

Schedule = Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Config, ABC):
    """Chooses a schedule. `warmup`: steps over which the learning rate rises to its full value."""

    warmup: int = 0

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ValueError(f"warmup: {self.warmup} is negative; give a number of steps, 0 for none")

    @abstractmethod
    def decay(self, progress: float) -> float:
        """Factor after the warm-up; progress goes from 0 (its first step) to 1 (the end)."""

    def build(self, total_steps: int) -> Schedule:
        """Factor of the learning rate by step, 0 … total_steps - 1; the last value is held after that.

        Raises:
            ValueError: the warm-up leaves no step for the rest.
        """
        warmup = self.warmup
        if warmup >= total_steps:
            raise ValueError(f"warmup: {warmup} steps do not fit into a run of {total_steps}; try {total_steps // 10}")

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return self.decay(min((step - warmup) / (total_steps - warmup), 1.0))

        return factor


@dataclass(frozen=True, kw_only=True)
class _Falling(ScheduleConfig, ABC):
    """`final`: the factor at the end of the run."""

    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.final <= 1.0:
            raise ValueError(f"final: {self.final} is no share of the learning rate; give 0 … 1")


@dataclass(frozen=True, kw_only=True)
class CosineConfig(_Falling):
    """Half a cosine from 1 to `final` (SGDR, arXiv:1608.03983, without restarts), as CLIP was trained."""

    kind: ClassVar[str] = "cosine"

    def decay(self, progress: float) -> float:
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True, kw_only=True)
class LinearConfig(_Falling):
    """A straight line from 1 to `final`."""

    kind: ClassVar[str] = "linear"

    def decay(self, progress: float) -> float:
        return 1.0 - (1.0 - self.final) * progress


@dataclass(frozen=True, kw_only=True)
class ConstantConfig(ScheduleConfig):
    """1 after the warm-up."""

    kind: ClassVar[str] = "constant"

    def decay(self, progress: float) -> float:
        return 1.0
