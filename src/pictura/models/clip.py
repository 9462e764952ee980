"""CLIP (Radford et al., Learning Transferable Visual Models From Natural Language, 2021): two towers, one space."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pictura.models.base import ImageTowerConfig, TextTowerConfig, check_positive
from pictura.models.pictures import PictureModelConfig, read_pictures
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig


def published(image: dict[str, Any], embed_dim: int, text_width: int) -> dict[str, Any]:
    """A picture tower beside the text tower that OpenAI trained it with, as configuration."""
    text = {"kind": "transformer", "width": text_width, "heads": text_width // 64, "depth": 12}
    return {"embed_dim": embed_dim, "image": image, "text": text | {"activation": "quick_gelu"}}


def vit(size: str, image_size: int, embed_dim: int, text_width: int) -> dict[str, Any]:
    """One row of the paper's table 20."""
    image: dict[str, Any] = {"kind": "vit", "size": size, "image_size": image_size, "pre_norm": True, "eps": 1e-5}
    image |= {"activation": "quick_gelu", "stem": {"kind": "patch", "bias": False}}
    return published(image, embed_dim, text_width)


def resnet(size: str, embed_dim: int, text_width: int) -> dict[str, Any]:
    """One row of the paper's table 19. Its pool's last projection, with a bias, is our `image_projection`."""
    return published({"kind": "clip_resnet", "size": size}, embed_dim, text_width) | {"projection_bias": True}


def small(width: int, depth: int, channels: int) -> dict[str, Any]:
    """One of our own, for one machine: pictures of 64 pixels in 16 patches, behind a convolutional stem."""
    shape = {"width": width, "heads": width // 64}
    image = {"kind": "vit", "image_size": 64, "patch_size": 16, "depth": depth, "pool": "average"} | shape
    return {
        "embed_dim": width,
        "image": image | {"stem": {"kind": "conv", "channels": channels}},
        "text": {"kind": "transformer", "depth": depth // 2, "context_length": 48} | shape,
    }


OURS = {"tiny/16@64": small(128, 4, 16), "small/16@64": small(192, 6, 32)}


@dataclass(frozen=True, kw_only=True)
class CLIPConfig(PictureModelConfig):
    """Two towers and the space they share.

    `projection_bias` is of the picture's projection: CLIP's ResNets have one, its ViTs have none. `logit_scale` is the
    logarithm of the first temperature's inverse (paper: ln 1/0.07); `logit_bias` is SigLIP's. The sizes tiny/… and
    small/… are ours, for one machine; the others are published.
    """

    kind: ClassVar[str] = "clip"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "RN50": resnet("RN50", 1024, 512),
        "RN101": resnet("RN101", 512, 512),
        "RN50x4": resnet("RN50x4", 640, 640),
        "RN50x16": resnet("RN50x16", 768, 768),
        "RN50x64": resnet("RN50x64", 1024, 1024),
        "ViT-B/32": vit("B/32", 224, 512, 512),
        "ViT-B/16": vit("B/16", 224, 512, 512),
        "ViT-L/14": vit("L/14", 224, 768, 768),
        "ViT-L/14@336": vit("L/14", 336, 768, 768),
        **OURS,
    }
    ours: ClassVar[frozenset[str]] = frozenset(OURS)

    image: ImageTowerConfig | None = field(default_factory=ViTConfig)
    text: TextTowerConfig = field(default_factory=TextTransformerConfig)
    embed_dim: int = 512
    projection_bias: bool = False
    logit_scale: float = math.log(1 / 0.07)
    logit_bias: float | None = None
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(embed_dim=self.embed_dim)

    def build(self) -> "CLIP":
        """The module, with fresh weights."""
        return CLIP(self)


class CLIP(nn.Module):
    """`encode_image([b 3 y x])` and `encode_text([b t])` -> [b e], not yet of unit length."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        c = self.config = config
        self.image = c.tower.build()
        self.text = c.text.build()
        self.image_projection = nn.Linear(c.tower.features, c.embed_dim, bias=c.projection_bias)
        self.text_projection = nn.Linear(c.text.width, c.embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.logit_bias = None if c.logit_bias is None else nn.Parameter(torch.empty(()))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """CLIP's initialisation (openai/CLIP, model.py); towers reset themselves when built."""
        nn.init.normal_(self.image_projection.weight, std=self.config.tower.features**-0.5)
        if self.image_projection.bias is not None:
            nn.init.zeros_(self.image_projection.bias)
        nn.init.normal_(self.text_projection.weight, std=self.config.text.width**-0.5)
        nn.init.constant_(self.logit_scale, self.config.logit_scale)
        if self.logit_bias is not None:
            assert self.config.logit_bias is not None
            nn.init.constant_(self.logit_bias, self.config.logit_bias)

    def encode_image(self, image: Tensor) -> Tensor:
        """image: [b 3 y x], uint8 RGB as decoded, or floating and already normalised -> [b e]."""
        image = read_pictures(image, self.config, self.image_projection.weight.dtype)
        out: Tensor = self.image_projection(self.image(image))
        return out

    def encode_text(self, text: Tensor) -> Tensor:
        """text: [b t] token ids, zero after each end token -> [b e]."""
        out: Tensor = self.text_projection(self.text(text))
        return out
