"""Image-text matching, and words aligned with patches (ViLT, Kim et al. 2021, section 3.2; after UNITER).

Half of the pictures stand beside the caption of another one, which is a function of (seed, epoch, index): the released
code exchanges pictures within the batch instead, sometimes against the same one or another of its captions.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.data.randomness import uniforms
from pictura.distributed.gather import shared_mean
from pictura.layers.packing import Packing
from pictura.losses.divergence import symmetric_divergence
from pictura.losses.transport import alignment_distance
from pictura.models.vilt import Joint, ViLT
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome
from pictura.objectives.joint import check_joint

SALT = 0x5DEECE66D  # its random numbers are not those that hide words of the same example


@dataclass(frozen=True, kw_only=True)
class MatchingConfig(ObjectiveConfig):
    """alignment: weight of the distance by optimal transport between words and patches, of pairs that match less that
    of pairs that do not, as the released code has it (which also says 0.1); 0 leaves it out."""

    kind: ClassVar[str] = "matching"

    alignment: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alignment < float("inf"):
            raise ValueError(f"alignment: {self.alignment} is below 0; the paper has 0.1")

    def build(self) -> "Matching":
        """The objective."""
        return Matching(self)


class Matching(Objective):
    """Metrics: `hits`; with `alignment` also `apart`, by how much mismatched pairs are further from each other."""

    needs = frozenset({"image", "text", "other", "seed"})

    def __init__(self, config: MatchingConfig) -> None:
        super().__init__()
        self.config = config

    def attach(self, model: nn.Module) -> None:
        check_joint(model, "matching")

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        """-> scores: [b 2] float32, target: [b], 1 for a match; with alignment distance: [b]."""
        assert isinstance(model, ViLT)
        text, target = mismatched(batch)
        if not self.config.alignment:
            return {"scores": model.heads["matching"](model.read(batch["image"], text)).float(), "target": target}
        joint = model(batch["image"], text)
        scores = model.heads["matching"](model.pool(joint)).float()
        return {"scores": scores, "target": target, "distance": distance(joint, model)}

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        scores, target = features["scores"][rows], features["target"][rows]
        loss, metrics = F.cross_entropy(scores, target), {"hits": (scores.argmax(1) == target).float().mean()}
        if self.config.alignment:
            apart = features["distance"][rows]
            loss = loss + self.config.alignment * (apart * (2 * target - 1)).mean()
            near, far = (shared_mean(apart[target == k]) for k in (1, 0))
            metrics["apart"] = far - near
        return Outcome(loss, metrics, {"scores": scores})

    def divergence(self, model: nn.Module, one: Features, two: Features, rows: slice) -> Tensor:
        return symmetric_divergence(one["scores"][rows], two["scores"][rows]).mean()


def mismatched(batch: Batch) -> tuple[Tensor, Tensor]:
    """text: [b t] ids, other: [b k t], of which the first serves -> [b t], each example's own or the other, by a coin
    of its own, and [b], 1 for own."""
    text, other = batch["text"], batch["other"][:, 0]
    t = max(text.shape[1], other.shape[1])
    own = (uniforms([seed ^ SALT for seed in batch["seed"]], 1)[:, 0] < 0.5).to(text.device)
    text, other = (F.pad(ids, (0, t - ids.shape[1])) for ids in (text, other))
    return torch.where(own[:, None], text, other), own.long()


def distance(joint: Joint, model: ViLT) -> Tensor:
    """[b]: between a text's tokens, but for its first and last, and its picture's patches (released code)."""
    lengths = joint.inside.sum(1)
    words = Packing(lengths).unpack(joint.words)
    patches = Packing(joint.counts).unpack(joint.tokens[len(joint.words) :])
    place = torch.arange(words.shape[1], device=lengths.device)
    is_word = (place > 0) & (place < lengths[:, None] - 1)
    place = torch.arange(patches.shape[1], device=lengths.device)
    is_patch = (place < joint.counts[:, None]) & (place >= int(model.image.cls_token is not None))
    return alignment_distance(words, patches, is_word, is_patch)
