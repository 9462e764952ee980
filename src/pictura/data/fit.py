"""`fit`: pictures keep their aspect ratio, so those of a batch differ in size (ViLT, Kim et al. 2021, section 4.2)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image
from torch import Tensor

from pictura.data.augment import STRONGEST, VILT, rand_augment
from pictura.data.placement import Placement
from pictura.data.views import Pixels, View, ViewConfig, as_picture, as_tensor

LEVELS = 30  # of ViLT's magnitudes


@dataclass(frozen=True, kw_only=True)
class FitConfig(ViewConfig):
    """The shorter side becomes image_size, unless the longer one would be above `longest`, which it is then; both are
    rounded down to whole patches of `patch_size`, at least one. For training and for evaluation: the same picture
    always, without `rand_augment`.

    longest: None is 1333 / 800 of image_size, rounded down, as in the released code: 639 for 384, so at most 19 patches
    of 32. The paper says 640, which makes 20; set it to have those. The code fails on pictures longer than about 20:1,
    whose shorter side holds no whole patch.
    rand_augment: how many distortions and how strong, from 0 to 30; ViLT is fine-tuned with [2, 9] ("Image
    Augmentation"). Colours are not inverted and nothing is cut out, since either can make a caption false: the one
    changes the words for colours, the other may hide what is spoken of. (The authors kept solarising, which inverts
    bright colours.) Pictures are never mirrored: captions say left and right. The resized picture is distorted, where
    the code does it to the one in the file, so that the cost is the same for all.
    """

    kind: ClassVar[str] = "fit"
    image_size: int = 384
    longest: int | None = None
    patch_size: int = 32
    rand_augment: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch_size < 1:
            raise ValueError(f"patch_size: {self.patch_size} is below 1")
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size: {self.image_size} holds no patch; patch_size is {self.patch_size}")
        if self.longest is not None and self.longest < self.image_size:
            raise ValueError(f"longest: {self.longest} is below image_size, the shorter side: {self.image_size}")
        if self.rand_augment is not None and not (self.rand_augment[0] >= 0 and 0 <= self.rand_augment[1] <= LEVELS):
            raise ValueError(f"rand_augment: {list(self.rand_augment)} is no number and strength 0 to 30; try [2, 9]")

    @property
    def limit(self) -> int:
        """`longest`, in pixels where that is None too."""
        return int(1333 / 800 * self.image_size) if self.longest is None else self.longest

    def fitted(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture -> those that come out."""
        short, long = float(self.image_size), self.image_size / min(width, height) * max(width, height)
        if long > self.limit:
            short, long = self.limit / long * short, self.limit / long * long
        sides = (long, short) if width > height else (short, long)
        across, down = (max(1, int(side + 0.5) // self.patch_size) * self.patch_size for side in sides)
        return across, down

    def build(self) -> "Fit":
        return Fit(self)


class Fit(View):
    """The released code's and Hugging Face's resizing, by PIL's bicubic filter."""

    def __init__(self, config: FitConfig) -> None:
        self.config, self.image_size = config, config.image_size
        # A decoder scales with a box filter; the last factor of two is left to the filter that the model knows.
        self.at_least = 2 * config.image_size

    def __call__(self, image: Image.Image | Pixels, rng: np.random.Generator) -> Tensor:
        image = as_picture(image)
        image = image.resize(self.config.fitted(*image.size), Image.Resampling.BICUBIC)
        if self.config.rand_augment is not None:
            ops, magnitude = self.config.rand_augment
            image = rand_augment(image, ops, magnitude * STRONGEST / LEVELS, rng, VILT)
        return as_tensor(image)

    def look(self, image: Image.Image | Pixels, rng: np.random.Generator) -> tuple[Tensor, Placement | None]:
        """Distortions may move things, and do not say where."""
        image = as_picture(image)
        seen = self(image, rng)
        if self.config.rand_augment is not None:
            return seen, None
        height, width = seen.shape[1:]
        return seen, Placement((height, width), (width / image.width, height / image.height))
