"""Supervised classification: softmax or one sigmoid a class, smoothed labels, pictures mixed with one another.

Label smoothing: Szegedy et al. 2016, section 7. Mixup: Zhang et al. 2018, equation 1. CutMix: Yun et al. 2019, section
3.1. A sigmoid for each class, summed over classes: Beyer et al., Are we done with ImageNet?, 2020, section 5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.losses.divergence import bernoulli_divergence, symmetric_divergence
from pictura.models.classifier import Classifier
from pictura.models.pictures import read_pictures
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome

IGNORED = -100  # as a label: that example is not asked about; torch's number
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(ObjectiveConfig):
    """label_smoothing: share of each label spread over all classes.

    mixup, cutmix: of their Beta(a, a); 0 leaves one out, with both each batch gets one of them by chance.
    loss: `softmax`, or `sigmoid`, which takes each class for itself (begin with model.head_bias -10 then).
    """

    kind: ClassVar[str] = "classification"

    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    loss: Literal["softmax", "sigmoid"] = "softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing: {self.label_smoothing} must be at least 0 and below 1; try 0.1")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: {getattr(self, name)} must be at least 0; try 0.2")

    def build(self) -> "Classification":
        """The objective."""
        return Classification(self)


class Classification(Objective):
    """Metrics: `hits`, the share of pictures whose highest score is their (largest) label."""

    needs = frozenset({"image", "label"})

    def __init__(self, config: ClassificationConfig) -> None:
        super().__init__()
        self.config = config

    def attach(self, model: nn.Module) -> None:
        if not isinstance(model, Classifier) or model.head is None:
            raise ValueError("needs a model with classes; set model={kind: classifier}, beside `initial` if you like")

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        """image: [b 3 y x], label: [b] -> scores [b k] float32, target: [b], or [b k] of mixed pictures."""
        assert isinstance(model, Classifier)
        image, label = batch["image"], batch["label"]
        if label.device.type == "cpu":  # a GPU would wait for the answer
            check_labels(label, model.config.classes)
        if self.training and (mixes := self._mixes(model.config.classes)):
            image = read_pictures(image, model.config, torch.float32)
            image, label = mixes[int(torch.randint(len(mixes), ()))](image, label)
        return {"scores": model.classify(image).float(), "target": label}

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        scores, target = features["scores"][rows], features["target"][rows]
        labels = target if target.dim() == 1 else target.argmax(1)
        hits = mean_of((scores.argmax(1) == labels).float(), target)
        return Outcome(class_loss(scores, target, self.config), {"hits": hits}, {"scores": scores})

    def divergence(self, model: nn.Module, one: Features, two: Features, rows: slice) -> Tensor:
        apart = symmetric_divergence if self.config.loss == "softmax" else bernoulli_divergence
        return mean_of(apart(one["scores"][rows], two["scores"][rows]), one["target"][rows])

    def _mixes(self, classes: int) -> list[Mix]:
        alphas = {"MixUp": self.config.mixup, "CutMix": self.config.cutmix}
        if not any(alphas.values()):
            return []
        from torchvision.transforms import v2  # half a second to import, for runs that mix only

        return [getattr(v2, name)(alpha=alpha, num_classes=classes) for name, alpha in alphas.items() if alpha]


def check_labels(label: Tensor, classes: int) -> None:
    """ValueError for a label that is none of 0, 1, …, classes - 1, nor IGNORED."""
    strange = label[((label < 0) & (label != IGNORED)) | (label >= classes)]
    if len(strange):
        raise ValueError(
            f"label {int(strange[0])} in the data, but the model has {classes} classes, 0 to {classes - 1}"
        )


def mean_of(rows: Tensor, target: Tensor) -> Tensor:
    """rows: [b] -> [], the mean over those whose target, [b] or [b k], is not IGNORED."""
    if target.dim() > 1:
        return rows.mean()
    known = target != IGNORED
    return (rows * known).sum() / known.sum()


def class_loss(scores: Tensor, target: Tensor, config: ClassificationConfig) -> Tensor:
    """scores: [b k] float32, target: [b] labels or [b k] shares -> [], the mean over examples."""
    if config.loss == "softmax":
        return F.cross_entropy(scores, target, label_smoothing=config.label_smoothing)
    share, k = config.label_smoothing, scores.shape[1]
    soft = target if target.dim() == 2 else F.one_hot(target.clamp(min=0), k).to(scores.dtype)
    losses = F.binary_cross_entropy_with_logits(scores, soft * (1 - share) + share / k, reduction="none")
    return mean_of(losses.sum(1), target)
