"""Optimisers, with CLIP's rule of what decays."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pictura.config import Config

PIECE = 2**20
"""Parameters that are stepped at once on a CPU, about."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Config, ABC):
    """An optimiser, chosen by `kind`. `lr` is the peak rate, which the schedule multiplies."""

    lr: float = 5e-4
    weight_decay: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr: {self.lr} must be above zero")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: {self.weight_decay} must be at least 0")

    @abstractmethod
    def build(self, named: Iterable[tuple[str, Tensor]]) -> "Together":
        """The optimiser over named parameters."""


@dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimizerConfig):
    """AdamW (Loshchilov and Hutter 2019); the defaults are CLIP's for ViT (paper, table 19)."""

    kind: ClassVar[str] = "adamw"

    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: {list(self.betas)} must both be at least 0 and below 1")
        if not 0 < self.eps < math.inf:
            raise ValueError(f"eps: {self.eps} must be above zero")

    def build(self, named: Iterable[tuple[str, Tensor]]) -> "Together":
        """The optimiser over named parameters; fused, one pass over memory."""
        return Together(*self._adamw(named))

    def _adamw(self, named: Iterable[tuple[str, Tensor]]) -> Iterator[torch.optim.Optimizer]:
        for piece in pieces(named):
            groups = decay_groups(piece, self.weight_decay)
            yield torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)


@dataclass(frozen=True, kw_only=True)
class MuonConfig(AdamWConfig):
    """Muon for the matrices of Transformer blocks, AdamW for all else (Jordan et al., Muon, 2024).

    Muon's steps are scaled to the size of AdamW's (Liu et al., Muon is Scalable for LLM Training, 2025, section 2.2),
    so one `lr` serves both. On small models it needs far fewer examples; it costs a few small matrix products a step.
    """

    kind: ClassVar[str] = "muon"

    momentum: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: {self.momentum} must be at least 0 and below 1")

    def build(self, named: Iterable[tuple[str, Tensor]]) -> "Together":
        """The optimiser over named parameters."""
        inside: list[tuple[str, Tensor]] = []
        rest: list[tuple[str, Tensor]] = []
        for name, parameter in named:
            (inside if parameter.dim() == 2 and ".blocks." in name else rest).append((name, parameter))
        if not inside:
            raise ValueError("optimizer muon: the model has no matrices in Transformer blocks; use adamw")
        return Together(*map(self._muon, pieces(inside)), *self._adamw(rest))

    def _muon(self, named: Iterable[tuple[str, Tensor]]) -> torch.optim.Optimizer:
        return torch.optim.Muon(
            [parameter for _, parameter in named],
            lr=self.lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            adjust_lr_fn="match_rms_adamw",
        )


class Together:
    """Optimisers over different parameters, stepped in turn. `schedule(factor)` sets every rate to its share."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        for group in self.param_groups:
            group["initial_lr"] = group["lr"]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def schedule(self, factor: float) -> None:
        """Every group's rate becomes `factor` times what it was built with."""
        for group in self.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def moments(self, parameter: Tensor) -> dict[str, Tensor]:
        """What is remembered of a parameter between steps; empty before the first."""
        for part in self.parts:
            if parameter in part.state:
                return {k: v for k, v in part.state[parameter].items() if isinstance(v, Tensor)}
        return {}

    def step(self) -> None:
        """One step of every part."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad()


def owned(part: torch.optim.Optimizer) -> list[Tensor]:
    """What it steps."""
    return [parameter for group in part.param_groups for parameter in group["params"]]


def pieces(named: Iterable[tuple[str, Tensor]]) -> Iterator[list[tuple[str, Tensor]]]:
    """The parameters in their order, cut so that on a CPU a piece's gradients stay in cache from cast to use."""
    piece: list[tuple[str, Tensor]] = []
    for name, parameter in named:
        piece.append((name, parameter))
        if parameter.device.type == "cpu" and sum(p.numel() for _, p in piece) >= PIECE:
            yield piece
            piece = []
    if piece:
        yield piece


def decay_groups(named: Iterable[tuple[str, Tensor]], weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; gains, biases, the class token and temperatures do not (paper, section 2.5; open_clip's rule)."""
    decay: list[Tensor] = []
    rest: list[Tensor] = []
    for name, parameter in named:
        (rest if parameter.dim() < 2 or name.endswith("cls_token") else decay).append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
