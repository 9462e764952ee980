"""SimCLR: two random views of a picture find each other among the views of all others (Chen et al. 2020)."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from pictura.data.batch_views import BatchViewConfig, SimCLRViewConfig
from pictura.layers.projection import Projection
from pictura.losses.nt_xent import nt_xent
from pictura.models.classifier import Classifier
from pictura.models.pictures import PictureModelConfig, standardise_
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome
from pictura.objectives.classification import check_labels


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig(ObjectiveConfig):
    """temperature: 0.1 in the paper, 0.5 for CIFAR-10. view: how the two views are made.

    head: linear layers between the tower and the loss, 0 to 3 (section 4.2: 2); head_width: of the hidden ones, None
    for as many units as the tower has features; head_out: numbers that are compared, without a head the features.
    probe: a `classifier` learns its own head beside, on features that know nothing of it: how good they are, to watch
    (appendix B.8: such a probe ends where one trained afterwards does). Needs labels. Its rate is the run's, times
    this objective's weight.
    """

    kind: ClassVar[str] = "simclr"

    temperature: float = 0.1
    view: BatchViewConfig = field(default_factory=SimCLRViewConfig)
    head: Literal[0, 1, 2, 3] = 2
    head_width: int | None = None
    head_out: int = 128
    probe: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature: {self.temperature} must be above 0; the paper has 0.1, for CIFAR-10 0.5")
        for name in ("head_width", "head_out"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}: {value} is below 1")
        if self.head_width is not None and self.head < 2:
            raise ValueError(
                f"head_width: {self.head_width}, but a head of {self.head} has no hidden layer; leave it out"
            )

    def image_size(self, given: int) -> int:
        return self.view.side(given, given)

    def build(self) -> "SimCLR":
        """The objective."""
        return SimCLR(self)


class SimCLR(Objective):
    """Metrics: `hits`, the share of views nearest to their twin; with a probe, whose loss is added, `nt_xent` and
    `probe_loss` apart, and `probe_hits`."""

    across = True

    def __init__(self, config: SimCLRConfig) -> None:
        super().__init__()
        self.config = config
        self.needs = frozenset({"image", "seed"} | ({"label"} if config.probe else set()))
        self.view = config.view.build()

    def attach(self, model: nn.Module) -> None:
        config = model.config
        if not isinstance(config, PictureModelConfig):
            raise ValueError("needs a model with a tower for pictures, such as {kind: classifier, image: {kind: vit}}")
        if self.config.probe and (not isinstance(model, Classifier) or model.head is None):
            raise ValueError(
                "probe: needs a model of kind classifier, whose head it trains; set probe=false, or change it"
            )
        c = self.config
        self.projection = Projection(config.tower.features, c.head, c.head_width, c.head_out)

    def embed(self, model: Any, batch: Batch) -> Features:
        """image: uint8 [b 3 y x], seed: b numbers -> one, two: [b e], of unit length in float32."""
        views = standardise_(self.view(batch["image"], batch["seed"], 2), model.config)
        hidden = model.image(views.to(next(model.image.parameters()).dtype))
        one, two = F.normalize(self.projection(hidden).float(), dim=1).chunk(2)
        features = {"one": one, "two": two}
        if self.config.probe:
            if batch["label"].device.type == "cpu":  # a GPU would wait for the answer
                check_labels(batch["label"], model.config.classes)
            scores = model.scores(model.pre_logits(hidden.detach()))
            features["scores_one"], features["scores_two"] = scores.chunk(2)
            features["label"] = batch["label"]
        return features

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        loss, hits = nt_xent(features["one"], features["two"], self.config.temperature, rows=rows)
        metrics = {"hits": hits}
        if self.config.probe:
            scores = torch.cat([features["scores_one"][rows], features["scores_two"][rows]])
            label = features["label"][rows].repeat(2)
            beside = F.cross_entropy(scores, label)
            metrics |= {"nt_xent": loss, "probe_loss": beside, "probe_hits": (scores.argmax(1) == label).float().mean()}
            loss = loss + beside
        return Outcome(loss, metrics)
