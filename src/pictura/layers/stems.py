"""What turns a picture into tokens before the Transformer: one linear map per patch, or a few small convolutions."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pictura.config import Config
from pictura.layers.linear import Linear
from pictura.layers.patches import PatchEmbed


@dataclass(frozen=True, kw_only=True)
class StemConfig(Config, ABC):
    """Pictures [b 3 y x] -> tokens [b n d], one for each patch_size x patch_size square; chosen by `kind`."""

    @abstractmethod
    def build(self, patch_size: int, width: int) -> nn.Module:
        """The module, with fresh weights."""


@dataclass(frozen=True, kw_only=True)
class PatchStemConfig(StemConfig):
    """ViT's own: a linear map of each patch (Dosovitskiy et al. 2021, equation 1). CLIP leaves the bias out."""

    kind: ClassVar[str] = "patch"

    bias: bool = True

    def build(self, patch_size: int, width: int) -> nn.Module:
        """The module, with fresh weights."""
        return PatchEmbed(patch_size, width, bias=self.bias)


@dataclass(frozen=True, kw_only=True)
class ConvStemConfig(StemConfig):
    """3x3 convolutions of stride 2, then a linear map (Xiao et al., Early Convolutions Help Transformers, 2021).

    It sees edges that cross patches, so it learns shapes from far fewer pictures than a linear map. The first
    convolution has `channels`, each further one twice as many. Normalised by groups of 16 channels, or of the next
    number that divides them, not over the batch as in the paper, so that examples stay independent. Needs a patch_size
    that is a power of two.
    """

    kind: ClassVar[str] = "conv"

    channels: int = 32

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels: {self.channels} must be at least 1")

    def build(self, patch_size: int, width: int) -> nn.Module:
        """The module, with fresh weights."""
        if patch_size < 2 or patch_size & (patch_size - 1):
            raise ValueError(f"patch_size: {patch_size} is no power of two, which a convolutional stem needs; try 16")
        return ConvStem(self.channels, patch_size, width)


def groups(channels: int) -> int:
    """How many groups of at least 16 channels, as many as divide them; one of all, where there are fewer."""
    return next(n for n in range(max(1, channels // 16), 0, -1) if channels % n == 0)


class ConvStem(nn.Module):
    """[b 3 y x] -> [b n d]."""

    def __init__(self, channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        outs = [channels * 2**i for i in range(int(math.log2(patch_size)))]
        ins = [3, *outs[:-1]]
        convs = [nn.Conv2d(i, o, 3, 2, 1, bias=False) for i, o in zip(ins, outs, strict=True)]
        self.norms = nn.ModuleList(nn.GroupNorm(groups(o), o) for o in outs)
        self.proj = Linear(outs[-1], width)
        self.convs = nn.ModuleList(convs)
        for conv in convs:  # keeps the variance through rectified convolutions (He et al. 2015)
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        if height % self.patch_size or width % self.patch_size:  # the convolutions would round up
            size = self.patch_size
            raise ValueError(f"picture of {height} x {width} pixels: both sides must be multiples of patch_size {size}")
        for conv, norm in zip(self.convs, self.norms, strict=True):
            image = norm(conv(image)).relu()
        out: Tensor = self.proj(image.flatten(2).transpose(1, 2))
        return out
