"""How a model wants its pictures prepared: this travels with the weights, so that nothing is guessed later."""

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pictura.models.base import ImageTowerConfig, ModelConfig


@dataclass(frozen=True, kw_only=True)
class PictureModelConfig(ModelConfig, ABC):
    """A model that reads pictures through a tower, `image`.

    mean, std: of each colour, for pixels from 0 to 1. resize: `shortest` side to the model's size, then the middle
    square; `squash` both sides; or `fit`, all of a picture in its own shape, for ViLT. crop: the share of the resized
    picture's side that the middle square keeps (0.875: resize to 256, keep 224).
    """

    tower_kind: ClassVar[type[ImageTowerConfig] | tuple[type[ImageTowerConfig], ...]] = ImageTowerConfig  # of `image`
    resizes: ClassVar[tuple[str, ...]] = ("shortest", "squash")

    image: ImageTowerConfig | None = None
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resize: Literal["shortest", "squash", "fit"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    crop: float = 1.0

    def __post_init__(self) -> None:
        if self.resize not in self.resizes:
            raise ValueError(f"resize: {self.resize}: this kind of model has {' or '.join(self.resizes)}")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3:
                raise ValueError(f"{key}: {values} must be 3 numbers: red, green, blue")
        if not min(self.std) > 0:
            raise ValueError(f"std: {self.std} must be above zero for each colour")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop: {self.crop} must be above 0 and at most 1")

    @property
    def tower(self) -> ImageTowerConfig:
        """`image`, which a recipe may leave to its `initial` model, but no module can do without."""
        if self.image is None:
            raise ValueError("image: missing; give a tower, such as {kind: vit, size: S/16}, or an `initial` model")
        return self.image


def read_pictures(image: Tensor, config: PictureModelConfig, dtype: torch.dtype) -> Tensor:
    """image: [b 3 y x], uint8 RGB as decoded, or floating and normalised already -> [b 3 y x], normalised, in `dtype`.

    ValueError for no pictures at all, for what is not [b 3 y x], or for other whole numbers: nobody knows their scale.
    """
    if image.dim() != 4 or image.shape[1] != 3:
        raise ValueError(f"pictures of shape {list(image.shape)}: [b 3 y x] is expected, red, green and blue")
    if not image.numel():
        raise ValueError(f"pictures of shape {list(image.shape)}: at least one picture of at least one pixel is needed")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        kind = str(image.dtype).removeprefix("torch.")
        raise ValueError(f"pictures of {kind}: give uint8, from 0 to 255, or floating point, normalised already")
    if image.dtype == torch.uint8:
        image = normalise(image, config.mean, config.std)
    return image.to(dtype)


def standardise_(image: Tensor, config: PictureModelConfig) -> Tensor:
    """image: [b 3 y x], floating, from 0 to 1 -> (image - mean) / std, in place."""
    mean, std = (
        torch.tensor(v, device=image.device, dtype=image.dtype).view(-1, 1, 1) for v in (config.mean, config.std)
    )
    return image.sub_(mean).div_(std)


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
