"""RandAugment (Cubuk et al., 2020): a few of fourteen distortions, all of one strength, chosen for each picture."""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

STRONGEST = 10.0  # the paper's scale
BINS = 31  # torchvision's


class Op(NamedTuple):
    """`change(picture, value)`: the value goes from `least` to `most` with the strength; `signed`: to either side."""

    change: Callable[[Image.Image, float], Image.Image]
    least: float = 0.0
    most: float = 0.0
    signed: bool = False


def rand_augment(
    image: Image.Image, ops: int, magnitude: float, rng: np.random.Generator, among: tuple[Op, ...] | None = None
) -> Image.Image:
    """`ops` distortions of strength `magnitude`, from 0 to 10 as in the paper's code, out of `among` (None: out of
    torchvision's list, by torchvision).

    torchvision's list has no inversion of colours and no cutout, unlike some others; ViLT leaves them out on purpose,
    since a caption may name the colour, or what is cut out. Nothing is stronger than 10: where papers say 15, take 10.
    """
    if among is not None:
        for _ in range(ops):
            op = among[int(rng.integers(len(among)))]
            value = op.least + magnitude / STRONGEST * (op.most - op.least)
            image = op.change(image, -value if op.signed and rng.random() < 0.5 else value)
        return image
    from torchvision.transforms import v2  # half a second to import, for runs that distort only

    change = v2.RandAugment(num_ops=ops, magnitude=round(magnitude / STRONGEST * (BINS - 1)), num_magnitude_bins=BINS)
    with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global state
        torch.manual_seed(int(rng.integers(2**63)))
        out: Image.Image = change(image)
    return out


def _affine(image: Image.Image, *rows: float) -> Image.Image:
    """Each pixel (x, y) from (a x + b y + c, d x + e y + f); black outside the picture."""
    return image.transform(image.size, Image.Transform.AFFINE, rows)


def _brighter_solarised(image: Image.Image, value: float) -> Image.Image:
    """`value` added to each colour, then those of 128 and more inverted."""
    return ImageOps.solarize(image.point([min(255, int(level + value)) for level in range(256)] * 3), 128)


# ViLT's list as its released code has it, ranges and all, so that Posterize and Solarize grow weaker as the strength
# rises. The code moves pictures by up to 100 pixels, before they are resized; here, where pictures may be small, it is
# the share that these are of the shorter side of most of COCO's, 480.
_MOVE = 100 / 480
VILT = (
    Op(lambda image, _: ImageOps.autocontrast(image)),
    Op(lambda image, _: ImageOps.equalize(image)),
    Op(lambda image, degrees: image.rotate(degrees), 0, 30, signed=True),
    Op(lambda image, bits: ImageOps.posterize(image, max(1, int(bits))), 0, 4),
    Op(lambda image, level: ImageOps.solarize(image, ceil(level)), 0, 256),
    Op(_brighter_solarised, 0, 110),
    Op(lambda image, factor: ImageEnhance.Color(image).enhance(factor), 0.1, 1.9),
    Op(lambda image, factor: ImageEnhance.Contrast(image).enhance(factor), 0.1, 1.9),
    Op(lambda image, factor: ImageEnhance.Brightness(image).enhance(factor), 0.1, 1.9),
    Op(lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor), 0.1, 1.9),
    Op(lambda image, slope: _affine(image, 1, slope, 0, 0, 1, 0), 0, 0.3, signed=True),
    Op(lambda image, slope: _affine(image, 1, 0, 0, slope, 1, 0), 0, 0.3, signed=True),
    Op(lambda image, share: _affine(image, 1, 0, share * min(image.size), 0, 1, 0), 0, _MOVE, signed=True),
    Op(lambda image, share: _affine(image, 1, 0, 0, 0, 1, share * min(image.size)), 0, _MOVE, signed=True),
)
