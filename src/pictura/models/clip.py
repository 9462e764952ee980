"""CLIP (Radford et al., Learning Transferable Visual Models From Natural Language, 2021): two towers, one space."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pictura.models.base import ImageTowerConfig, ModelConfig, TextTowerConfig, check_positive
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig


def published(vit: str, image_size: int, embed_dim: int, text_width: int) -> dict[str, Any]:
    """One row of the paper's table 20, as configuration."""
    clip: dict[str, Any] = {"pre_norm": True, "activation": "quick_gelu", "eps": 1e-5}
    clip |= {"stem": {"kind": "patch", "bias": False}}
    return {
        "embed_dim": embed_dim,
        "image": {"kind": "vit", "size": vit, "image_size": image_size} | clip,
        "text": {
            "kind": "transformer",
            "width": text_width,
            "heads": text_width // 64,
            "depth": 12,
            "activation": "quick_gelu",
        },
    }


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
class CLIPConfig(ModelConfig):
    """Two towers and the space they share. `mean`, `std`, `resize`, `interpolation` say how pictures must be prepared.

    `logit_scale` is the logarithm of the first temperature's inverse (paper: ln 1/0.07); `logit_bias` is SigLIP's.
    The sizes ViT-… are published; tiny/… and small/… are ours, for one machine.
    """

    kind: ClassVar[str] = "clip"
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "ViT-B/32": published("B/32", 224, 512, 512),
        "ViT-B/16": published("B/16", 224, 512, 512),
        "ViT-L/14": published("L/14", 224, 768, 768),
        "ViT-L/14@336": published("L/14", 336, 768, 768),
        **OURS,
    }
    ours: ClassVar[frozenset[str]] = frozenset(OURS)

    image: ImageTowerConfig = field(default_factory=ViTConfig)
    text: TextTowerConfig = field(default_factory=TextTransformerConfig)
    embed_dim: int = 512
    logit_scale: float = math.log(1 / 0.07)
    logit_bias: float | None = None
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    resize: Literal["shortest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        check_positive(embed_dim=self.embed_dim)
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3:
                raise ValueError(f"{key}: {values} must be 3 numbers: red, green, blue")
        if not min(self.std) > 0:
            raise ValueError(f"std: {self.std} must be above zero for each colour")

    def build(self) -> "CLIP":
        """The module, with fresh weights."""
        return CLIP(self)


def normalise(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """image: [b c y x], uint8 -> (image / 255 - mean) / std, float32; mean, std: of each channel.

    Pictures often lie in memory as [b y x c]. A row of such a picture is taken as one axis: three channels alone are
    too few for the machine's vector unit.
    """
    shift, spread = (torch.tensor(v, device=image.device) for v in (mean, std))
    shift, scale = -shift / spread, 1 / (255 * spread)
    rows = image.movedim(1, -1)
    if not rows.is_contiguous():
        return torch.addcmul(shift.view(-1, 1, 1), image.float(), scale.view(-1, 1, 1))
    b, y, x, c = rows.shape
    out = torch.addcmul(shift.repeat(x), rows.view(b, y, x * c).float(), scale.repeat(x))
    return out.view(b, y, x, c).movedim(-1, 1)


class CLIP(nn.Module):
    """`encode_image([b 3 y x])` and `encode_text([b t])` -> [b e], not yet of unit length."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        c = self.config = config
        self.image = c.image.build()
        self.text = c.text.build()
        self.image_projection = nn.Linear(c.image.width, c.embed_dim, bias=False)
        self.text_projection = nn.Linear(c.text.width, c.embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.logit_bias = None if c.logit_bias is None else nn.Parameter(torch.empty(()))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """CLIP's initialisation (openai/CLIP, model.py); towers reset themselves when built."""
        nn.init.normal_(self.image_projection.weight, std=self.config.image.width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=self.config.text.width**-0.5)
        nn.init.constant_(self.logit_scale, self.config.logit_scale)
        if self.logit_bias is not None:
            assert self.config.logit_bias is not None
            nn.init.constant_(self.logit_bias, self.config.logit_bias)

    def encode_image(self, image: Tensor) -> Tensor:
        """image: [b 3 y x], uint8 RGB as decoded, or floating and already normalised -> [b e]."""
        dtype = self.image_projection.weight.dtype
        if image.dtype == torch.uint8:
            image = normalise(image, self.config.mean, self.config.std)
        out: Tensor = self.image_projection(self.image(image.to(dtype)))
        return out

    def encode_text(self, text: Tensor) -> Tensor:
        """text: [b t] token ids, zero after each end token -> [b e]."""
        out: Tensor = self.text_projection(self.text(text))
        return out
