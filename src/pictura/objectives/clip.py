"""CLIP's objective: each picture finds its caption in the batch, each caption its picture (Radford et al. 2021)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from pictura.losses.contrastive import contrastive_loss
from pictura.losses.divergence import pair_divergence
from pictura.models.clip import CLIP
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome


@dataclass(frozen=True, kw_only=True)
class CLIPObjectiveConfig(ObjectiveConfig):
    """`max_scale` bounds the inverse temperature after each step (paper, section 2.5: 100)."""

    kind: ClassVar[str] = "clip"

    max_scale: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_scale >= 1:
            raise ValueError(f"max_scale: {self.max_scale} must be at least 1; the paper has 100")

    def build(self) -> "CLIPObjective":
        """The objective."""
        return CLIPObjective(self)


def check_pair(model: nn.Module) -> None:
    """ValueError for a model that does not put pictures and texts into one space."""
    if not isinstance(model, CLIP):
        raise ValueError(f"needs a model of kind clip, not {getattr(model.config, 'kind', type(model).__name__)}")


def embed_pair(model: nn.Module, batch: Batch) -> Features:
    """image: [b 3 y x], text: [b t] -> image, text: [b e], of unit length in float32."""
    assert isinstance(model, CLIP)
    return {
        "image": F.normalize(model.encode_image(batch["image"]).float(), dim=1),
        "text": F.normalize(model.encode_text(batch["text"]).float(), dim=1),
    }


class CLIPObjective(Objective):
    """Metrics: `scale`, the inverse temperature; `hits`, the share of pictures nearest to their own caption."""

    needs = frozenset({"image", "text"})
    across = True

    def __init__(self, config: CLIPObjectiveConfig) -> None:
        super().__init__()
        self.config = config

    def attach(self, model: nn.Module) -> None:
        check_pair(model)

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        return embed_pair(model, batch)

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        assert isinstance(model, CLIP)
        scale = model.logit_scale.float().exp()
        loss, hits = contrastive_loss(features["image"], features["text"], scale, rows=rows)
        return Outcome(loss, {"scale": scale, "hits": hits})

    def divergence(self, model: nn.Module, one: Features, two: Features, rows: slice) -> Tensor:
        assert isinstance(model, CLIP)
        first, second = ((draw["image"], draw["text"]) for draw in (one, two))
        return pair_divergence(first, second, model.logit_scale.float().exp(), rows=rows)

    def settle(self, model: nn.Module) -> None:
        assert isinstance(model, CLIP)
        model.logit_scale.clamp_(0, math.log(self.config.max_scale))
