"""Captions told token by token: the cross-entropy of each next one, given the picture and those before (ClipCap, Mokady
et al. 2021, section 3.1: the sum over tokens of log p(c_j | p_1 … p_k, c_1 … c_(j-1))).

Label smoothing: Szegedy et al. 2016, section 7.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.distributed.gather import shared_mean
from pictura.losses.divergence import symmetric_divergence
from pictura.models.base import TextConfig
from pictura.models.captioner import Captioner
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome
from pictura.objectives.classification import IGNORED


@dataclass(frozen=True, kw_only=True)
class CaptioningConfig(ObjectiveConfig):
    """label_smoothing: share of each token spread over the whole vocabulary."""

    kind: ClassVar[str] = "captioning"

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing: {self.label_smoothing} must be at least 0 and below 1; try 0.1")

    def build(self) -> "Captioning":
        """The objective."""
        return Captioning(self)


class Captioning(Objective):
    """The loss is the mean over all tokens after a start, each end included, of the whole batch, in all processes and
    micro-batches: a long caption counts for more than a short one.

    Metrics, means over the same tokens: `hits`, the share whose highest score is right; `surprise`, -log p of the right
    one in nats, which is the loss without label smoothing, and whose exponential is the perplexity.
    """

    needs = frozenset({"image", "text"})

    def __init__(self, config: CaptioningConfig) -> None:
        super().__init__()
        self.config = config

    def attach(self, model: nn.Module) -> None:
        if not isinstance(model, Captioner):
            kind = getattr(model.config, "kind", type(model).__name__)
            raise ValueError(f"needs a model that tells captions, not {kind}; set model={{kind: captioner}}")

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        """image: [b 3 y x], text: [b t] -> states: [b t d], label: [b t], IGNORED where no token is asked for."""
        assert isinstance(model, Captioner)
        text = batch["text"]
        return {"states": model.states(batch["image"], text), "label": next_tokens(text, model.config.text)}

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        scores, label = self._asked(model, features, rows)
        losses = F.cross_entropy(scores, label, reduction="none", label_smoothing=self.config.label_smoothing)
        surprise = losses
        if self.config.label_smoothing:
            surprise = F.cross_entropy(scores.detach(), label, reduction="none")
        hits = (scores.argmax(1) == label).float()
        return Outcome(shared_mean(losses), {"hits": shared_mean(hits), "surprise": shared_mean(surprise.detach())})

    def divergence(self, model: nn.Module, one: Features, two: Features, rows: slice) -> Tensor:
        first, second = (self._asked(model, draw, rows)[0] for draw in (one, two))
        return shared_mean(symmetric_divergence(first, second))

    def _asked(self, model: nn.Module, features: Features, rows: slice) -> tuple[Tensor, Tensor]:
        """Scores where a token is asked for, [m k] float32, and which it is, [m]: padding has no scores at all."""
        assert isinstance(model, Captioner)
        states, label = features["states"][rows], features["label"][rows]
        asked = label != IGNORED
        return model.text.scores(states[asked]), label[asked]


def next_tokens(text: Tensor, config: TextConfig) -> Tensor:
    """text: [b t] ids, start first -> [b t], the token after each, IGNORED from the end on."""
    past_end = torch.arange(text.shape[1], device=text.device) >= config.ends(text)[:, None]
    return text.roll(-1, 1).masked_fill(past_end, IGNORED)
