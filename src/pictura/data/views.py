"""What happens to one picture before it joins a batch. Pixels stay uint8: the model normalises them on its own device.

`crop` is the evaluation rule that published models expect (openai/CLIP, open_clip's `image_transform`, timm and
torchvision, to the last bit); `random_crop` is for training; `none` is for pictures that have their size already, such
as scenes.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from pictura.config import Config
from pictura.data.augment import STRONGEST, rand_augment
from pictura.data.placement import Placement

Interpolation = Literal["bicubic", "bilinear"]
Pixels = npt.NDArray[np.uint8]

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
TRIES = 10  # to fit a random crop into the picture


class View(ABC):
    """`view(picture, rng)` -> uint8 [c y x]; all chance comes from `rng`.

    at_least: shorter side below which a decoder must not scale the picture down (None: it must not scale).
    takes_arrays: whether pixels uint8 [y x c] are welcome as they are; otherwise they come as a PIL picture, RGB, like
    everything else.
    """

    image_size: int
    at_least: int | None = None
    takes_arrays: bool = False

    @abstractmethod
    def __call__(self, image: Image.Image | Pixels, rng: np.random.Generator) -> Tensor: ...

    def look(self, image: Image.Image | Pixels, rng: np.random.Generator) -> tuple[Tensor, Placement | None]:
        """The same, and where its pixels went; None of a view that does not say."""
        return self(image, rng), None


@dataclass(frozen=True, kw_only=True)
class ViewConfig(Config, ABC):
    """A choice of view; `image_size` is the side of the square that comes out, in pixels."""

    image_size: int = 224

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"image_size: {self.image_size} is below 1")

    @abstractmethod
    def build(self) -> View: ...


@dataclass(frozen=True, kw_only=True)
class NoViewConfig(ViewConfig):
    """Pictures as they are; each must measure image_size x image_size already."""

    kind: ClassVar[str] = "none"

    def build(self) -> "NoView":
        return NoView(self)


class NoView(View):
    """Pixels to a tensor, without copying them."""

    takes_arrays = True

    def __init__(self, config: NoViewConfig) -> None:
        self.image_size = config.image_size

    def __call__(self, image: Image.Image | Pixels, rng: np.random.Generator) -> Tensor:
        pixels = image if isinstance(image, np.ndarray) else np.array(image)
        if pixels.shape != (self.image_size, self.image_size, 3):
            raise ValueError(
                f"view `none` needs pictures of {self.image_size} x {self.image_size} pixels, this one has "
                f"{' x '.join(map(str, pixels.shape[1::-1]))}; try kind: crop or random_crop"
            )
        return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)

    def look(self, image: Image.Image | Pixels, rng: np.random.Generator) -> tuple[Tensor, Placement]:
        return self(image, rng), Placement((self.image_size, self.image_size))


@dataclass(frozen=True, kw_only=True)
class CropConfig(ViewConfig):
    """Evaluation: the same picture always.

    resize: `shortest` side to image_size, then the middle square; `squash` both sides to it; `longest` side to it, then
    black bars. crop: the share of the resized side that the middle square keeps: pictures are resized to image_size /
    crop instead, rounded down as timm does, and image_size pixels of that are kept (0.875: resize to 256, keep 224).
    """

    kind: ClassVar[str] = "crop"
    resize: Literal["shortest", "squash", "longest"] = "shortest"
    interpolation: Interpolation = "bicubic"
    crop: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop: {self.crop} must be above 0 and at most 1")

    @property
    def resized_to(self) -> int:
        """The side before the middle is cut out. Crop 224 / 232 gives 232, though in floats it is a hair less."""
        return math.floor(self.image_size / self.crop + 1e-6)

    def build(self) -> "Crop":
        return Crop(self)


class Crop(View):
    """open_clip's `image_transform(image_size, is_train=False)` before its normalisation, on PIL pictures; with `crop`,
    torchvision's Resize and CenterCrop, as timm has them.
    """

    def __init__(self, config: CropConfig) -> None:
        self.config = config
        self.image_size, self.resized_to = config.image_size, config.resized_to
        # A decoder scales with a box filter; the last factor of two is left to the filter that the model knows.
        self.at_least = None if config.resize == "longest" else 2 * self.resized_to

    def __call__(self, image: Image.Image | Pixels, rng: np.random.Generator) -> Tensor:
        image, size = as_picture(image), self.image_size
        width, height = _resized(image.width, image.height, self.resized_to, self.config.resize)
        if (width, height) != image.size:
            image = image.resize((width, height), FILTERS[self.config.interpolation])
        if (width, height) != (size, size):
            left, top = _middle(width, size), _middle(height, size)
            image = image.crop((left, top, left + size, top + size))  # black outside the picture
        return as_tensor(image)


def _resized(width: int, height: int, size: int, rule: str) -> tuple[int, int]:
    """torchvision's rounding for `shortest` (down), timm's for `longest` (to even)."""
    if rule == "shortest":
        return (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    if rule == "longest":
        ratio = max(width, height) / size
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    return size, size


def _middle(length: int, size: int) -> int:
    """Where the middle `size` pixels begin; torchvision pads below with the smaller half, and rounds to even above."""
    return -((size - length) // 2) if length < size else round((length - size) / 2)


@dataclass(frozen=True, kw_only=True)
class RandomCropConfig(ViewConfig):
    """Training: a random rectangle of `scale` (share of the area) and `ratio` (width over height), resized to
    image_size.

    `flip` mirrors half of the pictures; it is off because captions say left and right, and pictures hold writing.
    rand_augment: how many distortions (RandAugment, Cubuk et al. 2020) and how strong, from 0 to 10: [2, 10]. After it,
    colour_jitter: strengths of brightness, contrast, saturation and hue, done with probability `jitter`; grey:
    probability of no colour.
    """

    kind: ClassVar[str] = "random_crop"
    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    interpolation: Interpolation = "bicubic"
    flip: bool = False
    rand_augment: tuple[int, float] | None = None
    colour_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter: float = 0.8
    grey: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale: {list(self.scale)} is not a range of shares of the picture; try [0.9, 1]")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio: {list(self.ratio)} is not a range of width over height; try [0.75, 1.333]")
        if min(self.colour_jitter) < 0 or self.colour_jitter[3] > 0.5:
            raise ValueError(
                f"colour_jitter: {list(self.colour_jitter)} is not four strengths, the last (hue) at most 0.5"
            )
        if self.rand_augment is not None and not (self.rand_augment[0] >= 0 and 0 <= self.rand_augment[1] <= STRONGEST):
            raise ValueError(f"rand_augment: {list(self.rand_augment)} is no number and strength 0 to 10; try [2, 10]")
        for name in ("jitter", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not a probability")

    def build(self) -> "RandomCrop":
        return RandomCrop(self)


class RandomCrop(View):
    """torchvision's `RandomResizedCrop`, and the jitter of SimCLR (Chen et al. 2020, appendix A) in its order of
    chance.
    """

    def __init__(self, config: RandomCropConfig) -> None:
        self.config = config
        self.image_size = config.image_size
        narrow = min(
            config.ratio[0], 1 / config.ratio[1], 1.0
        )  # the narrowest crop of a square picture must still be large enough
        self.at_least = math.ceil(config.image_size / math.sqrt(config.scale[0] * narrow))

    def __call__(self, image: Image.Image | Pixels, rng: np.random.Generator) -> Tensor:
        config, size = self.config, self.image_size
        image = as_picture(image)
        left, top, width, height = self._rectangle(image.width, image.height, rng)
        box = (left, top, left + width, top + height)
        if box != (0, 0, size, size) or image.size != (size, size):
            image = image.resize((size, size), FILTERS[config.interpolation], box=box, reducing_gap=3.0)
        if config.flip and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if config.rand_augment is not None:
            image = rand_augment(image, *config.rand_augment, rng)
        if any(config.colour_jitter) and rng.random() < config.jitter:
            image = self._jittered(image, rng)
        if config.grey and rng.random() < config.grey:
            image = image.convert("L").convert("RGB")
        return as_tensor(image)

    def _rectangle(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """left, top, width, height"""
        low, high = self.config.ratio
        for _ in range(TRIES):
            share, shape, x, y = rng.random(4).tolist()
            area = width * height * (self.config.scale[0] + share * (self.config.scale[1] - self.config.scale[0]))
            ratio = low * (high / low) ** shape
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(x * (width - w + 1)), int(y * (height - h + 1)), w, h
        w = min(width, max(1, round(height * high)))  # it never fitted: the largest middle part with a permitted ratio
        h = min(height, max(1, round(width / low)))
        return (width - w) // 2, (height - h) // 2, w, h

    def _jittered(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Brightness, contrast, saturation and hue, in random order."""
        strengths = self.config.colour_jitter
        for what, chance in zip(rng.permutation(4).tolist(), rng.random(4).tolist(), strict=True):
            strength = strengths[what]
            if strength and what == 3:
                image = _turn_hue(image, (2 * chance - 1) * strength)
            elif strength:
                enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[what]
                least = max(0.0, 1 - strength)
                image = enhance(image).enhance(least + chance * (1 + strength - least))
        return image


def _turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """`turn` is in whole circles, -0.5 … 0.5."""
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(level + int(turn * 255)) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def as_picture(image: Image.Image | Pixels) -> Image.Image:
    """What a view is given, a PIL picture or pixels uint8 [y x c] -> a PIL picture."""
    return Image.fromarray(image) if isinstance(image, np.ndarray) else image


def as_tensor(image: Image.Image) -> Tensor:
    """A PIL picture, RGB -> uint8 [c y x], in memory still [y x c]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
