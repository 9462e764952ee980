"""Optimisers, with CLIP's rule of what decays, and smaller rates for lower layers where asked."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from pictura.config import Config
from pictura.training.muon import Muon

Named = tuple[str, Tensor, float]  # name, parameter, rate
PIECE = 2**20
"""Parameters that are stepped at once on a CPU, about."""
HEAD = re.compile(r"(^|\.)head\.(weight|bias)$")  # of a classifier


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Config, ABC):
    """An optimiser, chosen by `kind`. `lr` is the peak rate, which the schedule multiplies.

    layer_decay: each layer below the top of its tower has this many times the rate of the one above it, and the stem
    the least (Clark et al., ELECTRA, 2020; Bao et al., BEiT, 2022: 0.65 to 0.9 for fine-tuning).

    scaling: what the peak rate is at a batch of b. `none`: `lr`. `linear`: lr · b / 256 (Goyal et al. 2017; SimCLR with
    0.3). `sqrt`: lr · √b (SimCLR, appendix B.1, with 0.075: better for small batches and short runs).
    """

    lr: float = 5e-4
    weight_decay: float = 0.2
    layer_decay: float = 1.0
    scaling: Literal["none", "linear", "sqrt"] = "none"

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr: {self.lr} must be above zero")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: {self.weight_decay} must be at least 0")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay: {self.layer_decay} must be above 0 and at most 1; try 0.75")

    def scaled(self, batch_size: int) -> Self:
        """The same with the peak rate for steps of `batch_size` examples, over all processes, as its `lr`."""
        factor = {"none": 1.0, "linear": batch_size / 256, "sqrt": math.sqrt(batch_size)}[self.scaling]
        return replace(self, lr=self.lr * factor, scaling="none")

    def build(self, named: Iterable[tuple[str, Tensor]]) -> "Together":
        """The optimiser over named parameters."""
        named = list(named)
        rates = layer_rates([name for name, _ in named], self.layer_decay)
        return Together(*self.parts([(name, parameter, self.lr * rates[name]) for name, parameter in named]))

    @abstractmethod
    def parts(self, named: Sequence[Named]) -> Iterator[torch.optim.Optimizer]:
        """Optimisers over parameters with their names and rates, each parameter in one of them."""


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

    def parts(self, named: Sequence[Named]) -> Iterator[torch.optim.Optimizer]:
        """Fused: one pass over memory."""
        for piece in pieces(named):
            groups = decay_groups(piece, self.weight_decay)
            yield torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)


@dataclass(frozen=True, kw_only=True)
class SGDConfig(OptimizerConfig):
    """SGD with momentum, in which ViT is fine-tuned (paper, section 4.1) and a head trained on frozen features."""

    kind: ClassVar[str] = "sgd"

    lr: float = 0.03
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: {self.momentum} must be at least 0 and below 1")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs a momentum above 0")

    def parts(self, named: Sequence[Named]) -> Iterator[torch.optim.Optimizer]:
        """Fused: one pass over memory."""
        for piece in pieces(named):
            groups = decay_groups(piece, self.weight_decay)
            yield torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=True)


@dataclass(frozen=True, kw_only=True)
class LARSConfig(OptimizerConfig):
    """LARS (You, Gitman and Ginsburg 2017), in which SimCLR is trained with large batches; the defaults are SimCLR's,
    for `scaling: linear`.

    trust: the length of a step at rate 1, as a share of the length of the weights. Gains, biases and whatever else does
    not decay do not adapt either, nor does a classifier's head (SimCLR's code); they step as in SGD.
    """

    kind: ClassVar[str] = "lars"

    lr: float = 0.3
    weight_decay: float = 1e-6
    momentum: float = 0.9
    trust: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: {self.momentum} must be at least 0 and below 1")
        if not 0 < self.trust < math.inf:
            raise ValueError(f"trust: {self.trust} must be above zero; try 0.001")

    def parts(self, named: Sequence[Named]) -> Iterator[torch.optim.Optimizer]:
        """Each with one reduction of norms over processes for each group."""
        from pictura.training.lars import LARS  # here: it knows sharded tensors, which take as long to import as torch

        for piece in pieces(named):
            adapting: dict[tuple[bool, float], list[Tensor]] = {}
            for name, parameter, rate in piece:
                adapts = decays(name, parameter) and not HEAD.search(name)
                adapting.setdefault((adapts, rate), []).append(parameter)
            groups = [
                {"params": some, "lr": rate} | ({} if adapts else {"weight_decay": 0.0, "trust": None})
                for (adapts, rate), some in adapting.items()
            ]
            yield LARS(groups, lr=self.lr, weight_decay=self.weight_decay, momentum=self.momentum, trust=self.trust)


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

    def parts(self, named: Sequence[Named]) -> Iterator[torch.optim.Optimizer]:
        """Muon's, then AdamW's."""
        inside = [one for one in named if one[1].dim() == 2 and ".blocks." in one[0]]
        if not inside:
            raise ValueError("optimizer muon: the model has no matrices in Transformer blocks; use adamw")
        yield from map(self._muon, pieces(inside))
        names = {name for name, _, _ in inside}
        yield from super().parts([one for one in named if one[0] not in names])

    def _muon(self, named: Sequence[Named]) -> torch.optim.Optimizer:
        groups = decay_groups(named, self.weight_decay)
        return Muon(groups, lr=self.lr, weight_decay=self.weight_decay, momentum=self.momentum)


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


def pieces(named: Iterable[Named]) -> Iterator[list[Named]]:
    """The parameters in their order, cut so that on a CPU a piece's gradients stay in cache from cast to use."""
    piece: list[Named] = []
    for one in named:
        piece.append(one)
        if one[1].device.type == "cpu" and sum(parameter.numel() for _, parameter, _ in piece) >= PIECE:
            yield piece
            piece = []
    if piece:
        yield piece


def decays(name: str, parameter: Tensor) -> bool:
    """Matrices decay; gains, biases, the class token and temperatures do not (paper, section 2.5; open_clip's rule)."""
    return parameter.dim() >= 2 and not name.endswith("cls_token")


def decay_groups(named: Iterable[Named], weight_decay: float) -> list[dict[str, Any]]:
    """One group for each rate, and for what decays and what does not."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter, rate in named:
        groups.setdefault((weight_decay if decays(name, parameter) else 0.0, rate), []).append(parameter)
    return [
        {"params": some, "weight_decay": decay, "lr": rate}
        for (decay, rate), some in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]


LAYER = re.compile(r"((?:(?!\.patch_embed\.).)*?)\.(?:blocks\.|layer)(\d+)\.")  # a stem may have blocks of its own
LAST = re.compile(r"(norm|pool)\b")  # what follows the last layer of a tower


def layer_rates(names: Sequence[str], decay: float) -> dict[str, float]:
    """For each parameter, by its name, decay^(layers of its tower above it); 1 for what stands above all layers."""
    if decay == 1.0:
        return dict.fromkeys(names, 1.0)
    found = {name: match for name in names if (match := LAYER.match(name))}
    numbers: dict[str, set[int]] = {}
    for match in found.values():
        numbers.setdefault(match[1], set()).add(int(match[2]))
    rates = {}
    for name in names:
        tower = next((tower for tower in numbers if name.startswith(f"{tower}.")), None)
        above = 0
        if name in found:
            above = max(numbers[found[name][1]]) - int(found[name][2]) + 1
        elif tower is not None and not LAST.match(name.removeprefix(f"{tower}.")):
            above = len(numbers[tower]) + 1
        rates[name] = decay**above
    return rates
