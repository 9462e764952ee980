"""Whether a statement holds of two pictures: NLVR2 (Suhr et al. 2019), read as a pair (ViLT, Kim et al. 2021, 4.3)."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from pictura.losses.divergence import symmetric_divergence
from pictura.models.vilt import ViLT
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome
from pictura.objectives.joint import check_joint


@dataclass(frozen=True, kw_only=True)
class StatementsConfig(ObjectiveConfig):
    """The data's label is 1 where the statement is true."""

    kind: ClassVar[str] = "statements"

    def build(self) -> "Statements":
        """The objective."""
        return Statements()


class Statements(Objective):
    """Metrics: `hits`."""

    needs = frozenset({"left", "right", "statement", "label"})

    def attach(self, model: nn.Module) -> None:
        check_joint(model, "pair")

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        """left, right: pictures, statement: [b t], label: [b] -> scores: [b 2] float32, target: [b]."""
        assert isinstance(model, ViLT)
        return {"scores": model.compare(batch["left"], batch["right"], batch["statement"]), "target": batch["label"]}

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        scores, target = features["scores"][rows], features["target"][rows]
        hits = (scores.argmax(1) == target).float().mean()
        return Outcome(F.cross_entropy(scores, target), {"hits": hits}, {"scores": scores})

    def divergence(self, model: nn.Module, one: Features, two: Features, rows: slice) -> Tensor:
        return symmetric_divergence(one["scores"][rows], two["scores"][rows]).mean()
