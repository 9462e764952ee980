"""A tower and a head that tells classes apart (ViT, section 3.1: a head of zeros, before it perhaps one more layer)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.models.base import check_positive
from pictura.models.pictures import PictureModelConfig, read_pictures


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(PictureModelConfig):
    """`image` None takes the tower of a recipe's `initial` model, and how that one prepares pictures.

    classes: 0 takes as many as the recipe's data has; a model without a head has none. class_names: their words.
    pre_logits: units of a layer with tanh below the head, which ViT has in pre-training and drops for fine-tuning.
    head_bias: what the head's bias begins at; -10 goes with one sigmoid for each class (Steiner et al. 2022).
    """

    kind: ClassVar[str] = "classifier"

    classes: int = 0
    class_names: tuple[str, ...] = ()
    pre_logits: int | None = None
    head_bias: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes < 0:
            raise ValueError(f"classes: {self.classes} is below 0")
        if self.class_names and len(self.class_names) != self.classes:
            raise ValueError(f"class_names: {len(self.class_names)} names for {self.classes} classes")
        if self.pre_logits is not None:
            check_positive(pre_logits=self.pre_logits)

    @property
    def embed_dim(self) -> int:
        """Numbers of a picture's features, [b e]."""
        return self.pre_logits or self.tower.features

    def build(self) -> "Classifier":
        """The module, with fresh weights."""
        return Classifier(self)


class PreLogits(nn.Module):
    """[b f] -> [b e]: the representation layer. The name of its weights is timm's of old: `pre_logits.fc`."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.fc = nn.Linear(features, units)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x).tanh()
        return out


class Classifier(nn.Module):
    """`encode_image([b 3 y x]) -> [b e]`, `classify([b 3 y x]) -> [b k]`: scores, not yet probabilities."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        c = self.config = config
        self.image = c.tower.build()
        self.pre_logits = PreLogits(c.tower.features, c.pre_logits) if c.pre_logits else nn.Identity()
        self.head = nn.Linear(c.embed_dim, c.classes) if c.classes else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """A head of zeros (ViT, section 3.2); LeCun's normal weights below it. The tower resets itself when built."""
        if isinstance(self.pre_logits, PreLogits):
            nn.init.normal_(self.pre_logits.fc.weight, std=self.config.tower.features**-0.5)
            nn.init.zeros_(self.pre_logits.fc.bias)
        if self.head is not None:
            nn.init.zeros_(self.head.weight)
            nn.init.constant_(self.head.bias, self.config.head_bias)

    def encode_image(self, image: Tensor) -> Tensor:
        """image: [b 3 y x], uint8 RGB as decoded, or floating and normalised already -> [b e], what the head reads."""
        dtype = next(self.parameters()).dtype
        out: Tensor = self.pre_logits(self.image(read_pictures(image, self.config, dtype)))
        return out

    def classify(self, image: Tensor) -> Tensor:
        """image: [b 3 y x] -> scores [b k], float32: bf16 would make many a best one equal to the next.

        ValueError for a model without a head.
        """
        if self.head is None:
            raise ValueError("classes: this model has no head; train one, or ask it for features")
        return self.scores(self.encode_image(image))

    def scores(self, features: Tensor) -> Tensor:
        """features: [b e], what the head reads -> scores [b k], float32."""
        assert self.head is not None
        return F.linear(features.float(), self.head.weight.float(), self.head.bias.float())
