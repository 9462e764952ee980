"""What a configuration must offer to be chosen as a model, or as a tower of one."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from pictura.config import Config


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config, ABC):
    """A whole model, chosen by `kind`."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The module, with fresh weights."""


@dataclass(frozen=True, kw_only=True)
class ImageTowerConfig(Config, ABC):
    """Pictures, normalised, [b 3 y x] -> [b width]; chosen by `kind`."""

    image_size: int = 224
    width: int = 768

    @abstractmethod
    def build(self) -> nn.Module:
        """The module, with fresh weights."""


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig(Config, ABC):
    """Token ids [b t] -> [b width]; chosen by `kind`."""

    vocab_size: int = 49408
    context_length: int = 77
    end_token: int | None = None
    width: int = 512

    @abstractmethod
    def build(self) -> nn.Module:
        """The module, with fresh weights."""
