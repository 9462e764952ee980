"""Optimisers, with CLIP's rule of what decays."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pictura.config import Config


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Config, ABC):
    """An optimiser, chosen by `kind`. `lr` is the peak rate, which the schedule multiplies."""

    lr: float = 5e-4
    weight_decay: float = 0.2

    @abstractmethod
    def build(self, named: Iterable[tuple[str, Tensor]]) -> torch.optim.Optimizer:
        """The optimiser over named parameters."""


@dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimizerConfig):
    """AdamW (Loshchilov and Hutter 2019); the defaults are CLIP's for ViT (paper, table 19)."""

    kind: ClassVar[str] = "adamw"

    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr: {self.lr} must be above zero")

    def build(self, named: Iterable[tuple[str, Tensor]]) -> torch.optim.Optimizer:
        """The optimiser over named parameters; fused, one pass over memory."""
        groups = decay_groups(named, self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)


def decay_groups(named: Iterable[tuple[str, Tensor]], weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; gains, biases, the class token and temperatures do not (paper, section 2.5; open_clip's rule)."""
    decay: list[Tensor] = []
    rest: list[Tensor] = []
    for name, parameter in named:
        (rest if parameter.dim() < 2 or name.endswith("cls_token") else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
