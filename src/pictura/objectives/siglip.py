"""SigLIP's objective: every picture-caption pair is judged by itself, true or false (Zhai et al. 2023)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pictura.losses.divergence import pair_divergence
from pictura.losses.sigmoid import sigmoid_loss
from pictura.models.clip import CLIP
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome
from pictura.objectives.clip import check_pair, embed_pair


@dataclass(frozen=True, kw_only=True)
class SigLIPObjectiveConfig(ObjectiveConfig):
    """Needs a model with `logit_bias` (the paper starts at -10, and `logit_scale` at ln 10)."""

    kind: ClassVar[str] = "siglip"

    def build(self) -> "SigLIPObjective":
        """The objective."""
        return SigLIPObjective()


class SigLIPObjective(Objective):
    """Metrics: `scale`, `bias`, and `hits`, the share of pictures nearest to their own caption."""

    needs = frozenset({"image", "text"})
    across = True

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        return embed_pair(model, batch)

    def attach(self, model: nn.Module) -> None:
        check_pair(model)
        if model.logit_bias is None:
            raise ValueError("the model has no bias; set model.logit_bias=-10 and model.logit_scale=2.3")

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        assert isinstance(model, CLIP) and model.logit_bias is not None
        scale, bias = model.logit_scale.float().exp(), model.logit_bias.float()
        loss, hits = sigmoid_loss(features["image"], features["text"], scale, bias, rows=rows)
        return Outcome(loss, {"scale": scale, "bias": bias, "hits": hits})

    def divergence(self, model: nn.Module, one: Features, two: Features, rows: slice) -> Tensor:
        assert isinstance(model, CLIP) and model.logit_bias is not None
        scale, bias = model.logit_scale.float().exp(), model.logit_bias.float()
        first, second = ((draw["image"], draw["text"]) for draw in (one, two))
        return pair_divergence(first, second, scale, rows=rows, bias=bias)
