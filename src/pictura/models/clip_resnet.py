"""CLIP's ResNets (Radford et al. 2021, section 2.4 and table 19; openai/CLIP, model.py, `ModifiedResNet`).

A ResNet (He et al. 2016) with three changes: a stem of three convolutions (ResNet-D, He et al. 2019), strides by
average pooling, which blurs before it leaves out (Zhang 2019), and attention in place of the last average. Names of
parameters follow OpenAI's, except the pool's, whose output projection is not the tower's but the whole model's.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.layers.linear import Linear
from pictura.layers.positions import resize_positions
from pictura.models.base import ImageTower, ImageTowerConfig, check_heads, check_positive

STRIDE = 32  # pixels of the picture, per side, for one cell of the last map
EXPANSION = 4


@dataclass(frozen=True, kw_only=True)
class CLIPResNetConfig(ImageTowerConfig):
    """layers: blocks in each of the four stages. width: channels of the stem. heads: of the attention that pools; None
    makes them 64 wide, as in all of OpenAI's."""

    kind: ClassVar[str] = "clip_resnet"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "RN50": {"layers": (3, 4, 6, 3), "width": 64, "heads": 32, "image_size": 224},
        "RN101": {"layers": (3, 4, 23, 3), "width": 64, "heads": 32, "image_size": 224},
        "RN50x4": {"layers": (4, 6, 10, 6), "width": 80, "heads": 40, "image_size": 288},
        "RN50x16": {"layers": (6, 8, 18, 8), "width": 96, "heads": 48, "image_size": 384},
        "RN50x64": {"layers": (3, 15, 36, 10), "width": 128, "heads": 64, "image_size": 448},
    }

    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    heads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len([count for count in self.layers if count > 0]) != 4:
            raise ValueError(f"layers: {self.layers} must be 4 numbers above zero, the blocks of each stage")
        check_positive(width=self.width)
        if self.width % 2:
            raise ValueError(f"width: {self.width} is odd, and the stem begins with half of it; try {self.width + 1}")
        if self.heads is not None:
            check_heads(self.heads, self.features)
        if self.image_size % STRIDE:
            fit = max(1, round(self.image_size / STRIDE)) * STRIDE
            raise ValueError(f"image_size: {self.image_size} is no multiple of the stride {STRIDE}; try {fit}")

    @property
    def features(self) -> int:
        return self.width * 8 * EXPANSION

    def build(self) -> "CLIPResNet":
        """The module, with fresh weights."""
        return CLIPResNet(self)

    def adapted(self, state: dict[str, Tensor], old: ImageTowerConfig) -> dict[str, Tensor]:
        """The pool's positions resized, as in a ViT; nothing else depends on the picture's size."""
        grids = [config.image_size // STRIDE for config in (old, self)]
        positions = resize_positions(state["pool.pos_embed"], (grids[0], grids[0]), (grids[1], grids[1]))
        return state | {"pool.pos_embed": positions}


class Bottleneck(nn.Module):
    """[b c y x] -> [b 4*inner y/stride x/stride]. No convolution has a stride: averages before it take the place."""

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        self.stride, out = stride, inner * EXPANSION
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))

    def shrunk(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)), inplace=True)
        inner = F.relu(self.bn2(self.conv2(inner)), inplace=True)
        inner = self.bn3(self.conv3(self.shrunk(inner)))
        kept = x if self.downsample is None else self.downsample(self.shrunk(x))
        return F.relu(inner + kept, inplace=True)


class AttentionPool(nn.Module):
    """A map [b d y x] -> [b d]: its mean asks, and mean and cells answer, head by head.

    There is one query, so no cell needs its key or value: a head scores cell x as x . (W_k^T q), and reads
    W_v (sum of weight * x) + b_v. For a picture in RN50 that is 38 MFLOP instead of 848. The bias of the keys moves all
    scores of a head alike, so it changes nothing and its gradient is zero; published weights have it.
    """

    def __init__(self, width: int, heads: int, grid: int) -> None:
        super().__init__()
        self.width, self.heads, self.grid = width, heads, grid
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + grid**2, width))
        self.q, self.k, self.v = (Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        b, d, rows, columns = x.shape
        positions = resize_positions(self.pos_embed, (self.grid, self.grid), (rows, columns))
        x = x.flatten(2)
        x = torch.cat([x.mean(2, keepdim=True), x], 2) + positions.mT  # [b d n]
        heads = (self.heads, d // self.heads)
        q = self.q(x[:, :, 0]).view(b, *heads) * heads[1] ** -0.5
        asked = torch.einsum("bhe,hed->bhd", q, self.k.weight.view(*heads, d))
        offset = (q * self.k.bias.view(heads)).sum(2, keepdim=True)
        weights = (asked @ x + offset).softmax(2)  # [b h n]
        read = torch.einsum("bhd,hed->bhe", weights @ x.mT, self.v.weight.view(*heads, d))
        return read.reshape(b, d) + self.v.bias


class CLIPResNet(ImageTower):
    """image: [b 3 y x], normalised -> [b 32*width]. Sides other than `image_size` are taken, from 32 pixels on: the
    pool's positions are resized to them."""

    def __init__(self, config: CLIPResNetConfig) -> None:
        super().__init__()
        c = self.config = config
        self.conv1 = nn.Conv2d(3, c.width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c.width // 2)
        self.conv2 = nn.Conv2d(c.width // 2, c.width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c.width // 2)
        self.conv3 = nn.Conv2d(c.width // 2, c.width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(c.width)
        inner = [c.width * 2**stage for stage in range(4)]
        channels = [c.width, *(EXPANSION * n for n in inner)]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(
                Bottleneck(channels[stage], inner[stage], 1 if stage == 0 else 2),
                *(Bottleneck(channels[stage + 1], inner[stage], 1) for _ in range(c.layers[stage] - 1)),
            )
            for stage in range(4)
        )
        self.pool = AttentionPool(c.features, c.heads or c.width // 2, c.image_size // STRIDE)
        self.reset_parameters()

    @property
    def stages(self) -> list[nn.Module]:
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """CLIP's initialisation (openai/CLIP, model.py): torch's own for convolutions; every block begins as its
        shortcut, the last norm's gain being zero; the pool's weights and positions begin at width^-0.5, its biases, in
        which torch would draw, at zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
        std = self.config.features**-0.5
        nn.init.normal_(self.pool.pos_embed, std=std)
        for linear in (self.pool.q, self.pool.k, self.pool.v):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)

    def forward(self, image: Tensor) -> Tensor:
        if min(image.shape[2:]) < STRIDE:
            raise ValueError(
                f"picture of {image.shape[2]} x {image.shape[3]} pixels: a ResNet needs {STRIDE} or more, both ways"
            )
        image = image.contiguous(memory_format=torch.channels_last)  # bf16 convolutions are 2 to 3 times faster so
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x)), inplace=True), 2)
        for stage in self.stages:
            x = stage(x)
        out: Tensor = self.pool(x)
        return out
