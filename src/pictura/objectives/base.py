"""`task(batch) -> Outcome`: the only thing the trainer knows.

An objective says in two steps how a batch becomes a loss. `embed` works on each example alone, so it can run in
micro-batches or on several processes; `score` compares the examples of the whole batch. Between the two the task
gathers features over processes, once for all objectives.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pictura.config import Config
from pictura.distributed.gather import gather
from pictura.distributed.ranks import rank, world
from pictura.layers.once import reading_once

Batch = Mapping[str, Any]
Features = dict[str, Tensor]
Weight = float | Callable[[float], float]


@dataclass
class Outcome:
    """loss: [], the mean over the rows this process answers for; metrics: detached scalars under slash names."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    logits: dict[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """`needs`: batch keys. `across`: whether an example's loss depends on others, so that features are gathered.
    `others`: how many captions of other examples it wants beside each one's own, where it needs "other"."""

    needs: frozenset[str]
    across: bool = False
    others: int = 1

    @abstractmethod
    def embed(self, model: nn.Module, batch: Batch) -> Features:
        """What the loss needs of each example; every tensor's first axis is b."""

    @abstractmethod
    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        """Features of the gathered batch -> the mean loss over `rows`, the examples this process answers for."""

    def attach(self, model: nn.Module) -> None:
        """Make heads of the objective's own fit the model, once, before training. ValueError where the model is none
        that this objective can train, saying what would work."""

    def divergence(self, model: nn.Module, one: Features, two: Features, rows: slice) -> Tensor:
        """Features of two draws of dropout -> how far apart the predictions are, KL one way plus the other, [], the
        mean over `rows`. An objective that predicts nothing has none."""
        raise NotImplementedError

    def settle(self, model: nn.Module) -> None:
        """Bring the model back to what must hold after an optimiser step (CLIP: the temperature's bound)."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(Config, ABC):
    """One objective of a recipe, chosen by `kind`; `weight` multiplies its loss.

    schedule: of that weight over the run, as points (share of the steps done, factor), straight lines between them:
    [[0, 0], [0.1, 1]] brings the objective in over the first tenth.
    """

    weight: float = 1.0
    schedule: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not isfinite(self.weight):
            raise ValueError(f"weight: {self.weight} is no finite number")
        shares, factors = [share for share, _ in self.schedule], [factor for _, factor in self.schedule]
        rising = shares == sorted(set(shares)) and all(0 <= share <= 1 for share in shares)
        if not rising or not all(0 <= factor < inf for factor in factors):
            raise ValueError(
                f"schedule: {[list(point) for point in self.schedule]} must be points [share of the run, factor], the "
                "shares rising from 0 to 1, no factor below 0; try [[0, 0], [0.1, 1]]"
            )

    def image_size(self, given: int) -> int:
        """Side of the pictures that the model sees, of those that the recipe's view gives. ValueError for too small."""
        return given

    def weight_at(self, done: float) -> float:
        """The weight when that share of the run's steps is done."""
        if not self.schedule:
            return self.weight
        shares, factors = zip(*self.schedule, strict=True)
        return self.weight * float(np.interp(done, shares, factors))

    @abstractmethod
    def build(self) -> Objective:
        """The objective, with fresh weights in its head, if it has one."""


class Task(nn.Module):
    """A model and its objectives. `forward(batch)` gives the weighted sum of their losses and all their metrics.

    weights: of each objective, a number, or a function of `done`, the share of the run's steps that is done.
    """

    def __init__(self, model: nn.Module, objectives: Mapping[str, Objective], weights: Mapping[str, Weight]) -> None:
        super().__init__()
        if not objectives:
            raise ValueError("objectives: at least one is needed, for example `clip: {kind: clip}`")
        for name, objective in objectives.items():
            try:
                objective.attach(model)
            except ValueError as error:
                raise ValueError(f"objectives.{name}: {error}") from error
        self.model = model
        self.objectives = nn.ModuleDict(objectives)
        self.weights, self.done = dict(weights), 0.0

    @property
    def named(self) -> dict[str, Objective]:
        """The objectives by name."""
        return {k: v for k, v in self.objectives.items() if isinstance(v, Objective)}

    @property
    def needs(self) -> frozenset[str]:
        """Batch keys that some objective reads."""
        return frozenset().union(*(o.needs for o in self.named.values()))

    @property
    def others(self) -> int:
        """How many captions of other examples the batch holds for each, where some objective reads them."""
        return max(o.others for o in self.named.values())

    def forward(self, batch: Batch) -> Outcome:
        return self.score(self.embed(batch))

    def embed(self, batch: Batch) -> Features:
        """The features of every objective, [b …] each, under `objective/feature`."""
        with reading_once(self.model):
            return {
                f"{name}/{key}": value
                for name, objective in self.named.items()
                for key, value in objective.embed(self.model, batch).items()
            }

    def score(self, features: Features) -> Outcome:
        """This process's features -> its share of the loss, each objective seeing the whole batch where it asks to."""
        crossing = tuple(f"{name}/" for name, objective in self.named.items() if objective.across)
        shared = {k: v for k, v in features.items() if k.startswith(crossing)} if crossing else {}
        features = features | gather(shared)
        loss: Tensor | float = 0.0
        metrics: dict[str, Tensor] = {}
        logits: dict[str, Tensor] = {}
        for name, objective in self.named.items():
            own = {k.removeprefix(f"{name}/"): v for k, v in features.items() if k.startswith(f"{name}/")}
            outcome = objective.score(self.model, own, _rows(own, objective.across))
            weight = self.weights[name]
            if callable(weight):
                weight = weight(self.done)
                metrics[f"{name}/weight"] = outcome.loss.new_tensor(weight)
            loss = loss + weight * outcome.loss
            metrics[f"{name}/loss"] = outcome.loss.detach()
            metrics |= {f"{name}/{k}": v.detach() for k, v in outcome.metrics.items()}
            logits |= {f"{name}/{k}": v for k, v in outcome.logits.items()}
        assert isinstance(loss, Tensor)
        return Outcome(loss, {"loss": loss.detach()} | metrics, logits)

    @torch.no_grad()
    def settle(self) -> None:
        """To be called after each optimiser step."""
        for objective in self.named.values():
            objective.settle(self.model)


def _rows(features: Features, across: bool) -> slice:
    size = len(next(iter(features.values())))
    if not across:
        return slice(0, size)
    share = size // world()
    return slice(rank() * share, (rank() + 1) * share)


def weight_of(config: ObjectiveConfig) -> Weight:
    """What a task multiplies an objective's loss by: a number, unless it changes over the run."""
    return config.weight_at if config.schedule else config.weight
