"""What a configuration must offer to be chosen as a model, or as a tower of one."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor, nn

from pictura.config import Config
from pictura.layers.draws import Drawing


def check_positive(**values: float) -> None:
    """Each, by the name of its key, is above zero and finite; else a ValueError names it."""
    for key, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{key}: {value} must be above zero")


def check_share(**values: float) -> None:
    """Each, by the name of its key, is from 0 up to, not including, 1; else a ValueError names it."""
    for key, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{key}: {value} must be at least 0 and below 1")


def check_heads(heads: int, width: int) -> None:
    """`heads` divides `width`; else a ValueError with a number that does."""
    if heads < 1 or width % heads:
        fit = next(h for h in range(max(1, min(heads, width)), 0, -1) if width % h == 0)
        raise ValueError(f"heads: {heads} does not divide width {width}; try {fit}")


def check_grid(image_size: int, patch_size: int) -> None:
    """`patch_size` divides `image_size`; else a ValueError with a size near it that does."""
    if image_size % patch_size:
        fit = max(1, round(image_size / patch_size)) * patch_size
        raise ValueError(f"image_size: {image_size} is no multiple of patch_size {patch_size}; try {fit}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config, ABC):
    """A whole model, chosen by `kind`."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The module, with fresh weights."""


@dataclass(frozen=True, kw_only=True)
class ImageTowerConfig(Config, ABC):
    """Pictures, normalised, [b 3 y x] -> [b features]; chosen by `kind`.

    The module that it builds lists in `stages` the parts whose outputs are worth looking at, first to last: tokens
    [b n d], or maps [b c y x]. `ImageTower` says so to a type checker.
    """

    image_size: int = 224

    def __post_init__(self) -> None:
        check_positive(image_size=self.image_size)

    @property
    @abstractmethod
    def features(self) -> int:
        """How many numbers the tower gives for a picture."""

    @abstractmethod
    def build(self) -> "ImageTower":
        """The module, with fresh weights."""

    def at(self, image_size: int) -> Self:
        """The same tower for pictures of another size. ValueError where it cannot be."""
        return replace(self, image_size=image_size)

    def adapted(self, state: dict[str, Tensor], old: "ImageTowerConfig") -> dict[str, Tensor]:
        """Weights of `old`, this tower at another size -> weights for this one."""
        return state


class ImageTower(Drawing, ABC):
    """What turns pictures into features: `forward(image: [b 3 y x]) -> [b features]`, or [2b features] inside
    `two_draws`, where chance plays a role.
    """

    @property
    @abstractmethod
    def stages(self) -> list[nn.Module]:
        """The parts whose outputs are worth looking at, first to last: tokens [b n d], or maps [b c y x]."""


@dataclass(frozen=True, kw_only=True)
class TextConfig(Config):
    """What a model that reads texts must know of its tokens. `end_token`: the id whose first place ends a text; None
    is the highest id of each, as CLIP's weights expect."""

    vocab_size: int = 49408
    context_length: int = 77
    end_token: int | None = None

    def __post_init__(self) -> None:
        check_positive(vocab_size=self.vocab_size, context_length=self.context_length)

    def ends(self, text: Tensor) -> Tensor:
        """text: [b t] token ids -> [b], the place of each text's last token. ValueError for too long texts."""
        if text.shape[1] > self.context_length:
            raise ValueError(f"text of {text.shape[1]} tokens: this model reads at most {self.context_length}")
        return text.argmax(1) if self.end_token is None else (text == self.end_token).int().argmax(1)


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig(TextConfig, ABC):
    """Token ids [b t] -> [b width]; chosen by `kind`."""

    width: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(width=self.width)

    @abstractmethod
    def build(self) -> nn.Module:
        """The module, with fresh weights."""
