"""Vision Transformer (Dosovitskiy et al., An Image is Worth 16x16 Words, 2021; sizes: table 1 and Steiner et al. 2022).

Names of parameters follow timm's `VisionTransformer`, so that most public weights need no renaming.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pictura.layers.block import Block
from pictura.layers.mlp import Activation
from pictura.layers.patches import PatchDropout
from pictura.layers.positions import resize_positions
from pictura.layers.stems import PatchStemConfig, StemConfig
from pictura.models.base import ImageTower, ImageTowerConfig, check_grid, check_heads, check_positive, check_share

SHAPES = {
    "Ti": {"width": 192, "depth": 12, "heads": 3},
    "S": {"width": 384, "depth": 12, "heads": 6},
    "B": {"width": 768, "depth": 12, "heads": 12},
    "L": {"width": 1024, "depth": 24, "heads": 16},
    "H": {"width": 1280, "depth": 32, "heads": 16},
}
PATCHES = {"Ti": (16,), "S": (32, 16, 8), "B": (32, 16, 8), "L": (32, 16, 14), "H": (14,)}

# Patches are counted in pixels: behind the root of R+Ti/16, which takes 4 x 4 together, its 8 x 8 patches are of 32.
HYBRIDS: dict[str, tuple[str, int, list[int]]] = {
    "R+Ti/16": ("Ti", 32, []),
    "R26+S/32": ("S", 32, [2, 2, 2, 2]),
    "R50+B/16": ("B", 16, [3, 4, 9]),
    "R50+L/32": ("L", 32, [3, 4, 6, 3]),
}


@dataclass(frozen=True, kw_only=True)
class ViTConfig(ImageTowerConfig):
    """A ViT. `pool` reads the class token or the patches' average; `pre_norm` and a `stem` without bias are CLIP's.

    `patch_dropout` is the share of patches left out in training (FLIP); `drop_path` grows linearly over the depth.
    """

    kind: ClassVar[str] = "vit"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        f"{name}/{patch}": SHAPES[name] | {"patch_size": patch}
        for name, patches in PATCHES.items()
        for patch in patches
    } | {
        name: SHAPES[shape] | {"patch_size": patch, "stem": {"kind": "resnet", "layers": layers}}
        for name, (shape, patch, layers) in HYBRIDS.items()
    }

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    patch_size: int = 16
    pool: Literal["class", "average"] = "class"
    activation: Activation = "gelu"
    eps: float = 1e-6
    pre_norm: bool = False
    stem: StemConfig = field(default_factory=PatchStemConfig)
    dropout: float = 0.0
    drop_path: float = 0.0
    patch_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(width=self.width, depth=self.depth, mlp_ratio=self.mlp_ratio)
        check_positive(patch_size=self.patch_size, eps=self.eps)
        check_heads(self.heads, self.width)
        check_share(dropout=self.dropout, drop_path=self.drop_path, patch_dropout=self.patch_dropout)
        check_grid(self.image_size, self.patch_size)

    @property
    def features(self) -> int:
        return self.width

    def build(self) -> "ViT":
        """The module, with fresh weights."""
        return ViT(self)

    def adapted(self, state: dict[str, Tensor], old: ImageTowerConfig) -> dict[str, Tensor]:
        """Positions resized: so published models are fine-tuned at a higher resolution (paper, section 3.2)."""
        assert isinstance(old, ViTConfig)
        grids = [config.image_size // config.patch_size for config in (old, self)]
        positions = resize_positions(state["pos_embed"], (grids[0], grids[0]), (grids[1], grids[1]))
        return state | {"pos_embed": positions}


class ViT(ImageTower):
    """image: [b 3 y x], normalised -> [b d]. Sides other than `image_size` are taken: positions are resized to them."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        c = self.config = config
        self.width, self.grid = c.width, c.image_size // c.patch_size
        self.patch_embed = c.stem.build(c.patch_size, c.width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, c.width)) if c.pool == "class" else None
        self.pos_embed = nn.Parameter(torch.empty(1, (c.pool == "class") + self.grid**2, c.width))
        self.drop_patches = PatchDropout(c.patch_dropout)
        self.norm_pre = nn.LayerNorm(c.width, eps=c.eps) if c.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(
                c.width,
                c.heads,
                c.mlp_ratio,
                activation=c.activation,
                eps=c.eps,
                dropout=c.dropout,
                drop_path=c.drop_path * i / max(1, c.depth - 1),
            )
            for i in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width, eps=c.eps)
        self.reset_parameters()

    @property
    def stages(self) -> list[nn.Module]:
        return list(self.blocks)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """CLIP's initialisation (openai/CLIP, model.py): std falls with width, and with depth where a residual ends.

        The stem has reset itself when it was built.
        """
        d, residual = self.width, (2 * self.config.depth) ** -0.5
        for block in self.blocks:
            assert isinstance(block, Block)
            block.reset_parameters(d**-0.5, residual)
        for norm in (self.norm_pre, self.norm):
            if isinstance(norm, nn.LayerNorm):
                norm.reset_parameters()
        nn.init.normal_(self.pos_embed, std=d**-0.5)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=d**-0.5)

    def forward(self, image: Tensor) -> Tensor:
        x, b = self._embed(image)[0], image.shape[0]
        for block in self.blocks[:-1]:
            x = block(x, None, None, self.begins(x, block, b))
        last = self.blocks[-1]
        # where one token is read, the last block computes one token
        at = None if self.cls_token is None else torch.zeros(len(x), dtype=torch.long, device=x.device)
        x = self.norm(last(x, at, None, self.begins(x, last, b)))
        out: Tensor = x.mean(1) if at is None else x.squeeze(1)
        return out

    def maps(self, image: Tensor) -> list[Tensor]:
        """image: [b 3 y x], normalised, whole patches -> one map, [b d y x], of all patches, for detectors."""
        (x, grid), b = self._embed(image), image.shape[0]
        for block in self.blocks:
            x = block(x, None, None, self.begins(x, block, b))
        x = self.norm(x if self.cls_token is None else x[:, 1:])
        return [x.transpose(1, 2).unflatten(2, grid)]

    def _embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """[b 3 y x] -> tokens before the first block, and the grid (y, x) of its patches."""
        c, b = self.config, image.shape[0]
        x: Tensor = self.patch_embed(image)
        grid = (image.shape[2] // c.patch_size, image.shape[3] // c.patch_size)
        positions = resize_positions(self.pos_embed, (self.grid, self.grid), grid)
        if self.cls_token is None:
            x = x + positions
        else:  # positions join the patches before patches are dropped, so that dropping keeps where each one was
            first = self.cls_token + positions[:, :1]
            x = x + positions[:, 1:]
        x = self.drawn(x, self.drop_patches, b)
        x = self.drop_patches(x)
        if self.cls_token is not None:
            x = torch.cat([first.expand(len(x), -1, -1), x], 1)
        return self.norm_pre(x), grid
