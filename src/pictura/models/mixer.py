"""MLP-Mixer (Tolstikhin et al., MLP-Mixer: An all-MLP Architecture for Vision, 2021; sizes: table 1).

Names of parameters follow timm's `MlpMixer`, so that most public weights need no renaming.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pictura.layers.block import drop_path
from pictura.layers.linear import Linear
from pictura.layers.mlp import MLP, Activation
from pictura.layers.stems import PatchStemConfig, StemConfig
from pictura.models.base import ImageTower, ImageTowerConfig, check_grid, check_positive, check_share

SHAPES = {
    "S": {"depth": 8, "width": 512, "tokens": 256, "channels": 2048},
    "B": {"depth": 12, "width": 768, "tokens": 384, "channels": 3072},
    "L": {"depth": 24, "width": 1024, "tokens": 512, "channels": 4096},
    "H": {"depth": 32, "width": 1280, "tokens": 640, "channels": 5120},
}


@dataclass(frozen=True, kw_only=True)
class MixerConfig(ImageTowerConfig):
    """A Mixer. `tokens` and `channels` are the hidden units of its two perceptrons: D_S and D_C of the paper's table 1.

    The paper's own code computes the tanh form of GELU, `activation: gelu_tanh`; timm runs the same weights with the
    exact one. `drop_path` grows linearly over the depth.
    """

    kind: ClassVar[str] = "mixer"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        f"{name}/{patch}": SHAPES[name] | {"patch_size": patch}
        for name, patches in (("S", (32, 16)), ("B", (32, 16)), ("L", (32, 16)), ("H", (14,)))
        for patch in patches
    }

    width: int = 768
    depth: int = 12
    tokens: int = 384
    channels: int = 3072
    patch_size: int = 16
    activation: Activation = "gelu"
    eps: float = 1e-6
    stem: StemConfig = field(default_factory=PatchStemConfig)
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(width=self.width, depth=self.depth, tokens=self.tokens, channels=self.channels)
        check_positive(patch_size=self.patch_size, eps=self.eps)
        check_share(dropout=self.dropout, drop_path=self.drop_path)
        check_grid(self.image_size, self.patch_size)

    @property
    def features(self) -> int:
        return self.width

    def build(self) -> "Mixer":
        """The module, with fresh weights."""
        return Mixer(self)

    def at(self, image_size: int) -> Self:
        """For pictures of K times the size, the hidden units over patches are K^2 as many (paper, appendix C)."""
        times, rest = divmod(image_size, self.image_size)
        if rest:
            sizes = f"{2 * self.image_size} or {3 * self.image_size}"
            raise ValueError(f"image_size: a Mixer of {self.image_size} grows to its multiples only, such as {sizes}")
        return replace(self, image_size=image_size, tokens=self.tokens * times**2)

    def adapted(self, state: dict[str, Tensor], old: ImageTowerConfig) -> dict[str, Tensor]:
        """Each of K x K parts of the picture is mixed as the smaller picture was: weights on a block diagonal, in the
        order of patches (paper, appendix C)."""
        times = self.image_size // old.image_size
        grid = old.image_size // self.patch_size
        side = torch.arange(times * grid)
        part = (side // grid * times)[:, None] + side // grid  # [y x]: in which part of the picture a patch lies
        place = (side % grid * grid)[:, None] + side % grid  # and where in it
        order = (part * grid**2 + place).flatten()  # patch, in reading order -> its place when parts follow each other
        out = dict(state)
        for name, tensor in state.items():
            if ".mlp_tokens." not in name:
                continue
            wide = torch.block_diag(*[tensor] * times**2) if tensor.dim() == 2 else tensor.repeat(times**2)
            if name.endswith("fc1.weight"):
                wide = wide[:, order]
            elif ".fc2." in name:
                wide = wide[order]
            out[name] = wide.contiguous()
        return out


class MixerBlock(nn.Module):
    """[b n d] -> [b n d]: a perceptron over the patches of each channel, then one over the channels of each patch."""

    def __init__(self, config: MixerConfig, patches: int, drop_path: float) -> None:
        super().__init__()
        c = config
        self.norm1 = nn.LayerNorm(c.width, eps=c.eps)
        self.mlp_tokens = MLP(patches, c.tokens, c.activation, c.dropout)
        self.norm2 = nn.LayerNorm(c.width, eps=c.eps)
        self.mlp_channels = MLP(c.width, c.channels, c.activation, c.dropout)
        self.drop_path = drop_path

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier's uniform weights and biases of zero."""
        for module in self.modules():
            if isinstance(module, Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + drop_path(mixed, self.drop_path, self.training)
        return x + drop_path(self.mlp_channels(self.norm2(x)), self.drop_path, self.training)


class Mixer(ImageTower):
    """image: [b 3 y x], normalised, of `image_size` exactly -> [b d], the average over patches."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        c = self.config = config
        self.width = c.width
        self.stem = c.stem.build(c.patch_size, c.width)
        patches = (c.image_size // c.patch_size) ** 2
        self.blocks = nn.ModuleList(
            MixerBlock(c, patches, c.drop_path * i / max(1, c.depth - 1)) for i in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width, eps=c.eps)
        self.reset_parameters()

    @property
    def stages(self) -> list[nn.Module]:
        return list(self.blocks)

    def reset_parameters(self) -> None:
        """Fresh weights; the stem has reset itself when it was built."""
        for block in self.blocks:
            assert isinstance(block, MixerBlock)
            block.reset_parameters()
        self.norm.reset_parameters()

    def forward(self, image: Tensor) -> Tensor:
        size = self.config.image_size
        if image.shape[2:] != (size, size):
            height, width = image.shape[2:]
            raise ValueError(
                f"picture of {height} x {width} pixels: a Mixer's weights belong to its patches, and this one reads "
                f"{size} x {size} only"
            )
        x: Tensor = self.stem(image)
        for block in self.blocks:
            x = block(self.drawn(x, block, len(image)))
        out: Tensor = self.norm(x).mean(1)
        return out
