"""The common corruptions of ImageNet-C, fifteen and the four extra ones, each of five severities.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019, section
4 and appendix B; the numbers are those of its released code, which are meant for pictures of 224 pixels.

Lengths in pixels are of a picture whose shorter side is 224, and scale with it: a blur of 3 pixels is one of 0.86 in a
picture of 64. What would vanish under a pixel or be averaged away is handled so: the grain of noise, the blocks of JPEG
and those of `pixelate` grow with larger pictures and never shrink below a pixel, so that what a model sees of a
photograph, made small, is as noisy as the paper's. (Noise in a picture of 64 pixels is thus the noise of 224, and the
mildest blurs of one are hardly seen.) Snow, frost, fog, waves and spatter are drawn on a grid of 224 and resized.

What differs from the released code: pixels are rounded, not cut down; corrupted pictures are not stored as JPEG; the
motion blur, ImageMagick's there, takes its line between pixels; the affine and the wavy part of `elastic_transform` are
one sampling; `frost` blends in a drawing of ice in place of six photographs; water of `spatter` is lit by its slope
alone. In the released numbers of `elastic_transform` the first two severities are wide and smooth, the other three
narrow and rough; they are kept.

Cost: a small multiple of the picture's pixels, times their logarithm, whatever the severity: milliseconds at 64 pixels,
hundredths of a second at 224, and for 4000 x 3000 from one second to some twenty, and up to 1.5 GB.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pictura.data.corruption_kinds import KINDS
from pictura.data.source import did_you_mean

Pixels = npt.NDArray[np.uint8]

GROUPS: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
STANDARD = tuple(name for group, names in GROUPS.items() if group != "extra" for name in names)
NAMES = (*STANDARD, *GROUPS["extra"])

# fmt: off
SEVERITIES: dict[str, tuple[Any, ...]] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # deviation; white is 1
    "shot_noise": (60, 25, 12, 5, 3),  # photons that make white
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),  # share of the values that turn black or white
    "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),  # deviation, of each value's own brightness
    "gaussian_blur": (1, 2, 3, 4, 6),  # sigma
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),  # radius, sigma of its edge
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),  # sigma, reach, times
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),  # radius, sigma
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),  # below, by steps of
    # mean and deviation of the flakes' noise, its zoom, what counts as a flake, radius and sigma of their fall, picture
    "snow": ((0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
             (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),  # of the picture, of the ice
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),  # thickness, decay of the cloud
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to the value of HSV
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),  # factor of, and added to, the saturation of HSV
    # length and smoothness of the waves, wandering of the three points of the affine map
    "elastic_transform": tuple((244 * a, 244 * b, 244 * c) for a, b, c in (
        (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),  # pixels that are left, of one
    "jpeg_compression": (25, 18, 15, 10, 7),  # quality
    # mean, deviation and sigma of the liquid, its edge, how much of it is seen (water) or its sigma (mud), mud
    "spatter": ((0.65, 0.3, 4, 0.69, 0.6, 0), (0.65, 0.3, 3, 0.68, 0.6, 0), (0.65, 0.3, 2, 0.68, 0.5, 0),
                (0.65, 0.3, 1, 0.65, 1.5, 1), (0.67, 0.4, 1, 0.65, 1.5, 1)),
}
# fmt: on


def corrupt(image: Pixels, name: str, severity: int, rng: np.random.Generator) -> Pixels:
    """image: uint8 [y x 3], name: one of `NAMES`, severity: 1 to 5 -> uint8 [y x 3], corrupted; `image` stays as it is.

    ValueError for another name, severity or picture. `elastic_transform` moves what is seen, by up to a fifth of the
    shorter side at severity 2; the others leave it where it is.
    """
    check_corruption(name, severity)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"corrupt: pixels must be uint8 [y x 3], not {image.dtype} {list(image.shape)}")
    corrupted = KINDS[name](image.astype(np.float32) / 255, SEVERITIES[name][severity - 1], rng)
    out: Pixels = np.rint(corrupted.clip(0, 1) * 255).astype(np.uint8)
    return out


def check_corruption(name: str, severity: int = 1) -> None:
    """ValueError, beginning with the field's name, for what `corrupt` does not know."""
    if name not in NAMES:
        near = did_you_mean(name, NAMES) or f"; there are {', '.join(NAMES)}"
        raise ValueError(f"corruption: there is no {name!r}{near}")
    if severity not in range(1, 6):
        raise ValueError(f"severity: {severity!r} must be 1, 2, 3, 4 or 5; try 3")
