"""What a detector has behind its picture tower: a pyramid of maps, proposals, and heads that read regions.

The parts are torchvision's (FPN, RPN, RoIAlign); here they are given float32 where they need it, and classes nowhere.
"""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.config import Config
from pictura.layers.linear import Linear
from pictura.models.base import check_positive

RATIOS = (0.5, 1.0, 2.0)  # of anchors, height over width
MASK = 28  # pixels across a mask


@dataclass(frozen=True, kw_only=True)
class HeadConfig(Config):
    """The head that reads a region: RoIAlign of 7x7, `convs` 3x3 convolutions with batch norm, `depth` linear ones of
    `width`. The released ViLD has 4 and 1; 0 and 2, as in torchvision's Faster R-CNN, is less work.
    """

    convs: int = 0
    depth: int = 2
    width: int = 1024

    def __post_init__(self) -> None:
        check_positive(width=self.width, depth=self.depth)
        if self.convs < 0:
            raise ValueError(f"convs: {self.convs} is below 0")


class Pyramid(nn.Module):
    """Maps of a tower's stages, [b c y x], fine to coarse -> as many of `width` channels each, and one coarser still
    (FPN, Lin et al. 2017, section 3)."""

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        self.levels = len(channels)
        self.fpn = FeaturePyramidNetwork(channels, width, LastLevelMaxPool())

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return list(self.fpn(OrderedDict((str(i), one) for i, one in enumerate(maps))).values())


class SimplePyramid(nn.Module):
    """A ViT's one map [b c y x] -> maps of 4, 2, 1 and 1/2 times its sides, of `width` channels each, and one coarser
    still (Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, 2022, section 3)."""

    levels = 4

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()

        def twice(given: int) -> nn.Module:
            return nn.ConvTranspose2d(given, given // 2, 2, 2)

        finest = nn.Sequential(twice(channels), Norm(channels // 2), nn.GELU(), twice(channels // 2))
        self.scale = nn.ModuleList([finest, twice(channels), nn.Identity(), nn.MaxPool2d(2)])
        given = (channels // 4, channels // 2, channels, channels)
        self.out = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, width, 1, bias=False), Norm(width),
                nn.Conv2d(width, width, 3, padding=1, bias=False), Norm(width),
            )
            for c in given
        )  # fmt: skip
        reset(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        (x,) = maps
        found = [out(scale(x)) for scale, out in zip(self.scale, self.out, strict=True)]
        return [*found, F.max_pool2d(found[-1], 1, 2)]


class Norm(nn.LayerNorm):
    """Of the channels of each pixel, [b c y x]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Proposer(nn.Module):
    """Maps -> where there may be a thing (RPN, Ren et al. 2015, section 3.1), the same for all classes."""

    def __init__(self, width: int, sizes: list[int], convs: int, kept: int) -> None:
        super().__init__()
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

        anchors = AnchorGenerator(tuple((size,) for size in sizes), (RATIOS,) * len(sizes))
        of_a_level, of_all = {"training": 2 * kept, "testing": kept}, {"training": kept, "testing": kept}
        self.rpn = RegionProposalNetwork(
            anchors, RPNHead(width, len(RATIOS), conv_depth=convs), 0.7, 0.3, 256, 0.5, of_a_level, of_all, 0.7
        )

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of pictures [b 3 y x] of that size -> objectness: [b n], before the sigmoid, deltas: [b n 4], and
        anchors: [n 4], all float32."""
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        b = len(maps[0])
        scores, deltas = self.rpn.head(maps)
        flat, boxes = concat_box_prediction_layers([s.float() for s in scores], [d.float() for d in deltas])
        generator, fine = self.rpn.anchor_generator, size[0] // maps[0].shape[-2]
        generator.set_cell_anchors(torch.float32, flat.device)
        strides: list[Any] = [[fine * 2**level] * 2 for level in range(len(maps))]
        anchors = torch.cat(generator.grid_anchors([one.shape[-2:] for one in maps], strides))
        return flat.view(b, -1), boxes.view(b, -1, 4), anchors

    def boxes(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """deltas: [b n 4] -> [b n 4], in pixels."""
        b = len(deltas)
        found: Tensor = self.rpn.box_coder.decode(deltas.flatten(0, 1), [anchors] * b)
        return found.view(b, -1, 4)

    def targets(self, anchors: Tensor, true: Tensor) -> Tensor:
        """anchors, true: [n 4] -> the deltas [n 4] that lead from one to the other."""
        found: Tensor = self.rpn.box_coder.encode_single(true, anchors)
        return found

    @torch.no_grad()
    def propose(
        self, maps: list[Tensor], found: tuple[Tensor, Tensor, Tensor], sizes: list[tuple[int, int]]
    ) -> list[tuple[Tensor, Tensor]]:
        """The best of what `forward` gives, for pictures (y, x): boxes [m 4] within them, and scores [m] from 0 to 1,
        the best first."""
        objectness, deltas, anchors = found
        counts = [len(RATIOS) * one.shape[-2] * one.shape[-1] for one in maps]
        boxes, scores = self.rpn.filter_proposals(self.boxes(deltas, anchors), objectness, sizes, counts)
        return list(zip(boxes, scores, strict=True))


class RegionHead(nn.Module):
    """[n c 7 7] -> what a region is: `forward` [n d], for its box, and `project` of that [n e], for its name."""

    def __init__(self, channels: int, config: HeadConfig, embed_dim: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(_conv(channels) for _ in range(config.convs)))
        widths = [channels * 49, *[config.width] * config.depth]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(widths))
        self.project = Linear(config.width, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs(x).flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class MaskHead(nn.Module):
    """[n c 14 14] -> [n 28 28], before the sigmoid: one mask, whatever the thing is."""

    def __init__(self, channels: int, convs: int = 4) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(_conv(channels) for _ in range(convs)))
        self.up = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.out = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(F.relu(self.up(self.convs(x)))).squeeze(1)
        return out


def _conv(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())


@torch.no_grad()
def reset(module: nn.Module) -> None:
    """He's normal for what a ReLU follows (He et al. 2015), biases zero; torchvision initialises its own parts."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            part.reset_parameters()
