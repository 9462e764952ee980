"""R-Drop (Liang et al., R-Drop: Regularized Dropout for Neural Networks, 2021): two draws of dropout should agree.

Of one batch the model gives two predictions, with other units dropped. The loss, of equation 4 in the scale of a single
cross-entropy, is

    1/2 (CE_1 + CE_2) + alpha/4 (KL(P_1 || P_2) + KL(P_2 || P_1)),

means over the batch, so `alpha` is the paper's whatever the batch. Released codes differ: several sum the divergences
over the batch beside a mean cross-entropy, so that theirs grows with the (micro-)batch B. In our measure the fairseq
code for translation has alpha 5, BERT on GLUE alpha 0.5 B, ViT on CIFAR-100 alpha 0.6 B, and the README's snippet 2 B
times its own.
"""

import logging
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pictura.distributed.batch_norm import batch_norms
from pictura.layers.draws import two_draws
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome

logger = logging.getLogger(__name__)
HALVES = ("one/", "two/")


@dataclass(frozen=True, kw_only=True)
class RDropConfig(ObjectiveConfig):
    """alpha: weight of the divergence (the paper: 0.6 for ViT, 1 to 5 for texts). of: any objective that predicts."""

    kind: ClassVar[str] = "rdrop"

    alpha: float = 1.0
    of: ObjectiveConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"alpha: {self.alpha} must be above 0; the paper has 0.6 for ViT, 5 for translation")
        if self.of.weight != 1 or self.of.schedule:
            raise ValueError(
                "of.weight: give the weight and its schedule to the rdrop objective, not to what is inside"
            )

    def image_size(self, given: int) -> int:
        return self.of.image_size(given)

    def build(self) -> "RDrop":
        """The objective, and the one inside."""
        return RDrop(self.alpha, self.of.build())


class RDrop(Objective):
    """Metrics: those of the objective inside, averaged over the draws, and `kl`, 1/2 (KL_12 + KL_21)."""

    def __init__(self, alpha: float, of: Objective) -> None:
        super().__init__()
        if type(of).divergence is Objective.divergence:
            raise ValueError(f"of: {type(of).__name__} predicts nothing that two draws could agree on")
        self.alpha, self.of = alpha, of
        self.needs, self.across, self.others = of.needs, of.across, of.others
        self.told = False

    def attach(self, model: nn.Module) -> None:
        self.of.attach(model)

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        """The features of both draws, under one/ and two/; those that the draws share keep their name."""
        b = len(next(iter(batch.values())))
        with two_draws(model):
            found = self.of.embed(model, batch)
        features: Features = {}
        for name, value in found.items():
            assert len(value) in (b, 2 * b), (name, len(value), b)
            if len(value) == b:
                features[name] = value
            else:
                features |= {f"{half}{name}": part for half, part in zip(HALVES, value.chunk(2), strict=True)}
        if self.training and not self.told:
            self.told = True
            warn(model, drawn=len(features) > len(found))
        return features

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        shared = {k: v for k, v in features.items() if not k.startswith(HALVES)}
        if len(shared) == len(features):  # no chance, so the draws are one, as ever in evaluation
            return self.of.score(model, features, rows)
        one, two = (
            shared | {k.removeprefix(half): v for k, v in features.items() if k.startswith(half)} for half in HALVES
        )
        first, second = (self.of.score(model, draw, rows) for draw in (one, two))
        both = self.of.divergence(model, one, two, rows)
        loss = 0.5 * (first.loss + second.loss) + self.alpha / 4 * both
        metrics: dict[str, Tensor] = {k: 0.5 * (v + second.metrics[k]) for k, v in first.metrics.items()}
        return Outcome(loss, metrics | {"kl": both.detach() / 2}, first.logits)

    def settle(self, model: nn.Module) -> None:
        self.of.settle(model)


def warn(model: nn.Module, *, drawn: bool) -> None:
    """Of what makes R-Drop do nothing, or something else."""
    if not drawn:
        logger.warning(
            "R-Drop: no dropout in what is trained, so the two draws are equal and it does nothing; set "
            "model.image.dropout=0.1 or model.image.drop_path=0.1"
        )
    elif any(norm.training for _, norm in batch_norms(model)):
        logger.warning("R-Drop: the model has batch norm, through which the two draws of a batch see each other")
