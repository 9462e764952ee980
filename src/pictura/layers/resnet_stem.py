"""A ResNet before the Transformer: the hybrids of ViT (Dosovitskiy et al. 2021, section 3.1; Steiner et al. 2022).

It is BiT's ResNet (Kolesnikov et al., Big Transfer, 2020) with activations after the sums: standardised weights (Qiao
et al. 2019) and norms over groups of channels, so that examples stay independent. Maps are padded as XLA's 'SAME' does
it: by what the kernel needs, the odd pixel right and below. Names of parameters follow timm's hybrids.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.layers.linear import linear
from pictura.layers.patches import patchify
from pictura.layers.stems import StemConfig


@dataclass(frozen=True, kw_only=True)
class ResNetStemConfig(StemConfig):
    """`layers`: bottlenecks in each stage; () leaves the root alone, a 7x7 convolution and a pool.

    The root takes 4 x 4 pixels together, each stage after the first four times as many; a linear map takes together
    what is left of the patch: for (3, 4, 9) and patches of 16 pixels nothing is, for () and 32 pixels it is 8 x 8.
    """

    kind: ClassVar[str] = "resnet"

    layers: tuple[int, ...] = (3, 4, 9)

    def __post_init__(self) -> None:
        if min(self.layers, default=1) < 1:
            raise ValueError(f"layers: {list(self.layers)} must be at least 1 each; [] has no stages at all")

    @property
    def stride(self) -> int:
        """Pixels from one position of the last map to the next."""
        return 4 << max(0, len(self.layers) - 1)

    def build(self, patch_size: int, width: int) -> nn.Module:
        """The module, with fresh weights."""
        if patch_size < 1 or patch_size % self.stride:
            fit = max(1, round(patch_size / self.stride)) * self.stride
            raise ValueError(
                f"patch_size: {patch_size} is no multiple of {self.stride}, the stride of a ResNet stem with layers "
                f"{list(self.layers)}; try {fit}"
            )
        return ResNetStem(self, patch_size, width)


class StdConv(nn.Conv2d):
    """[b c y x] -> [b c' y/stride x/stride], with weights of mean 0 and variance 1 for each output channel.

    y and x are multiples of `stride`.
    """

    def __init__(self, ins: int, outs: int, kernel: int, stride: int = 1) -> None:
        near, odd = divmod(max(0, kernel - stride), 2)
        super().__init__(ins, outs, kernel, stride, bias=False, padding=0 if odd else near)
        self.sides = (near, near + 1) * 2 if odd else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        variance, mean = torch.var_mean(weight, (1, 2, 3), correction=0, keepdim=True)
        weight = ((weight - mean) * (variance + 1e-8).rsqrt()).to(x.dtype)
        if self.sides is not None:
            x = F.pad(x, self.sides)
        return F.conv2d(x, weight, None, self.stride, self.padding)


class Root(nn.Module):
    """[b 3 y x] -> [b 64 y/4 x/4]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = StdConv(3, 64, 7, 2)
        self.norm = nn.GroupNorm(32, 64)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.conv(image)).relu_()
        return F.max_pool2d(x, 3, 2, ceil_mode=True)  # the last windows reach over the edge: 'SAME', without a copy


class Shortcut(nn.Module):
    """[b c y x] -> [b c' y/stride x/stride]: a linear map where a bottleneck's output has another shape."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.conv = StdConv(ins, outs, 1, stride)
        self.norm = nn.GroupNorm(32, outs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out


class Bottleneck(nn.Module):
    """[b c y x] -> [b 4*channels y/stride x/stride] (He et al. 2016, figure 5), the stride at the 3x3 convolution."""

    def __init__(self, ins: int, channels: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = StdConv(ins, channels, 1), nn.GroupNorm(32, channels)
        self.conv2, self.norm2 = StdConv(channels, channels, 3, stride), nn.GroupNorm(32, channels)
        self.conv3, self.norm3 = StdConv(channels, 4 * channels, 1), nn.GroupNorm(32, 4 * channels)
        self.downsample = Shortcut(ins, 4 * channels, stride) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x)).relu_()
        y = self.norm2(self.conv2(y)).relu_()
        y = self.norm3(self.conv3(y))
        out: Tensor = (y + self.downsample(x)).relu_()
        return out


class Stage(nn.Module):
    """[b c y x] -> [b 4*channels y/stride x/stride]."""

    def __init__(self, ins: int, channels: int, depth: int, stride: int) -> None:
        super().__init__()
        rest = (Bottleneck(4 * channels, channels, 1, first=False) for _ in range(depth - 1))
        self.blocks = nn.Sequential(Bottleneck(ins, channels, stride, first=True), *rest)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


class ResNet(nn.Module):
    """[b 3 y x] -> [b 128*2^stages y/stride x/stride]: the root, then stages of which each doubles the channels."""

    def __init__(self, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = Root()
        self.stages = nn.Sequential(
            *(Stage(128 * 2**s if s else 64, 64 * 2**s, depth, 2 if s else 1) for s, depth in enumerate(layers))
        )

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.stages(self.stem(image))
        return out


class ResNetStem(nn.Module):
    """[b 3 y x] -> [b n d]. ValueError for pictures that are no whole number of patches."""

    def __init__(self, config: ResNetStemConfig, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size, self.left = patch_size, patch_size // config.stride
        self.backbone = ResNet(config.layers) if config.layers else Root()
        channels = 128 * 2 ** len(config.layers) if config.layers else 64
        self.proj = nn.Conv2d(channels, width, self.left, self.left)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """LeCun's normal weights; every bottleneck begins as its shortcut (google-research/vision_transformer)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 4:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
            elif name.endswith((".bias", ".norm3.weight")):
                nn.init.zeros_(parameter)
            else:
                nn.init.ones_(parameter)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        if height % self.patch_size or width % self.patch_size:  # the convolutions would round up
            size = self.patch_size
            raise ValueError(f"picture of {height} x {width} pixels: both sides must be multiples of patch_size {size}")
        return linear(patchify(self.backbone(image), self.left), self.proj.weight.flatten(1), self.proj.bias)
