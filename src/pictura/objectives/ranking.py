"""Image-text retrieval with one Transformer: of several texts, which is the picture's own (ViLT, Kim et al. 2021, 4.4).

The texts that are not are captions of other examples, a function of (seed, epoch, index), drawn with replacement; a
picture is embedded once for all of its texts.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.losses.divergence import symmetric_divergence
from pictura.models.vilt import ViLT
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome
from pictura.objectives.joint import check_joint


@dataclass(frozen=True, kw_only=True)
class RankingConfig(ObjectiveConfig):
    """negatives: captions of other examples beside each picture's own."""

    kind: ClassVar[str] = "ranking"

    negatives: int = 15

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negatives < 1:
            raise ValueError(f"negatives: {self.negatives} is below 1; the paper has 15")

    def build(self) -> "Ranking":
        """The objective."""
        return Ranking(self.negatives)


class Ranking(Objective):
    """Metrics: `hits`, the share of pictures whose own caption is before all others."""

    needs = frozenset({"image", "text", "other"})

    def __init__(self, negatives: int) -> None:
        super().__init__()
        self.others = negatives

    def attach(self, model: nn.Module) -> None:
        check_joint(model, "rank")

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        """image: b pictures, text: [b t], other: [b k t] -> scores: [b 1+k] float32, the own one first."""
        assert isinstance(model, ViLT)
        text, other = batch["text"], batch["other"][:, : self.others]
        t = max(text.shape[1], other.shape[2])
        texts = torch.cat([F.pad(ids, (0, t - ids.shape[-1])) for ids in (text[:, None], other)], 1)
        which = torch.arange(len(texts)).repeat_interleave(texts.shape[1])
        return {"scores": model.match(batch["image"], texts.flatten(0, 1), which).view(-1, texts.shape[1])}

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        scores = features["scores"][rows]
        hits = (scores[:, :1] > scores[:, 1:]).all(1).float().mean()
        loss = F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))
        return Outcome(loss, {"hits": hits}, {"scores": scores})

    def divergence(self, model: nn.Module, one: Features, two: Features, rows: slice) -> Tensor:
        return symmetric_divergence(one["scores"][rows], two["scores"][rows]).mean()
