"""How each of the corruptions is done to a picture; see `pictura.data.corruptions`, which has their names and numbers.

Each takes x: float32 [y x 3], 0 to 1, its numbers c of one severity, and a random generator; it gives float [y x 3],
beyond 0 and 1 too. Each is the function of its name in ImageNet-C/create_c/make_imagenet_c.py of the code released with
Hendrycks and Dietterich 2019 (github.com/hendrycks/robustness; their appendix B), and c are its numbers there.
Pixels that c counts are those of a picture of 224; values are of 0, black, to 1, white.
"""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from pictura.data.filters import Floats, convolve, disc, gaussian, resized, sampled, shuffled, streak
from pictura.data.weather import cloud, ice

Random = np.random.Generator
Kind = Callable[[Floats, Any, Random], Floats]

SIDE = 224  # of the pictures that the numbers are meant for
LONGEST = 4 * SIDE  # of the grid; a picture still longer stretches it


def scale_of(x: Floats) -> float:
    """How many of its pixels, along a side, stand for one of a picture of 224."""
    return float(min(x.shape[:2])) / SIDE


def grid_of(x: Floats) -> tuple[int, int]:
    """The size at which layers are drawn: of a shorter side of 224."""
    scale = scale_of(x)
    return min(LONGEST, round(x.shape[0] / scale)), min(LONGEST, round(x.shape[1] / scale))


def grained(x: Floats, change: Callable[[Floats], Floats]) -> Floats:
    """`change` made to the picture, or, where that is large, to the means of squares, whose change each pixel takes."""
    grain = grain_of(x)
    if grain == 1:
        return change(x)
    coarse = as_floats(image_of(x).reduce(grain))
    difference = change(coarse) - coarse
    return x + difference.repeat(grain, 0)[: x.shape[0]].repeat(grain, 1)[:, : x.shape[1]]


def grain_of(x: Floats) -> int:
    """The side of the squares that stand for pixels of a picture of 224, in pixels."""
    return max(1, round(scale_of(x)))


def image_of(x: Floats) -> Image.Image:
    """x: 0 to 1 -> the same as a picture of whole levels."""
    return Image.fromarray(np.rint(x * 255).astype(np.uint8))


def as_floats(image: Image.Image) -> Floats:
    """-> float32 [y x 3], 0 to 1."""
    return np.asarray(image, np.float32) / 255


def gaussian_noise(x: Floats, c: float, rng: Random) -> Floats:
    """Noise of the deviation c is added to each value."""
    return grained(x, lambda x: x + c * rng.standard_normal(x.shape, np.float32))


def shot_noise(x: Floats, c: float, rng: Random) -> Floats:
    """Light comes in photons, which are counted (Poisson); c of them make white."""
    return grained(x, lambda x: (rng.poisson(x * c) / c).clip(0, 1).astype(np.float32))


def impulse_noise(x: Floats, c: float, rng: Random) -> Floats:
    """Salt and pepper: of the values, each colour for itself, the share c turns black or white, each as often."""

    def change(x: Floats) -> Floats:
        struck, salt = rng.random((2, *x.shape), np.float32)
        return np.where(struck < c, salt < 0.5, x).astype(np.float32)

    return grained(x, change)


def speckle_noise(x: Floats, c: float, rng: Random) -> Floats:
    """Noise is added whose deviation is c times the value itself."""
    return grained(x, lambda x: x + c * x * rng.standard_normal(x.shape, np.float32))


def gaussian_blur(x: Floats, c: float, rng: Random) -> Floats:
    """The mean over a normal distribution of c pixels."""
    return gaussian(x, c * scale_of(x))


def defocus_blur(x: Floats, c: tuple[float, float], rng: Random) -> Floats:
    """A lens out of focus: the mean over a disc. c: its radius and the sigma of its edge, in pixels."""
    radius, blur = c[0] * scale_of(x), c[1] * scale_of(x)
    return convolve(x, disc(radius, blur), "reflect")


def glass_blur(x: Floats, c: tuple[float, int, int], rng: Random) -> Floats:
    """Frosted glass: blurred, each pixel a copy of one near it, and blurred again. c: the sigma of both blurs, how far
    copies come from, both in pixels, and how many times all are copied.

    A large picture is reduced before and enlarged after: single pixels of it, shuffled, would be seen as a blur.
    """
    grain = grain_of(x)
    coarse = x if grain == 1 else as_floats(image_of(x).reduce(grain))
    sigma, reach = c[0] * scale_of(x) / grain, c[1] * scale_of(x) / grain
    coarse = gaussian(coarse, sigma)
    for _ in range(c[2]):
        coarse = shuffled(coarse, reach, rng)
    coarse = gaussian(coarse, sigma)
    return coarse if grain == 1 else resized(coarse, x.shape[:2])


def motion_blur(x: Floats, c: tuple[float, float], rng: Random) -> Floats:
    """The camera moves along a line within 45 degrees of the x axis. c: half the line's length, and the sigma of half a
    normal distribution along it, in pixels."""
    scale = scale_of(x)
    return convolve(x, streak(2 * c[0] * scale, c[1] * scale, rng.uniform(-45, 45)))


def zoom_blur(x: Floats, c: tuple[float, float], rng: Random) -> Floats:
    """The mean of the picture and of its middle at all zooms. c: they go from 1 to below c[0] by steps of c[1]."""
    image, total, zooms = image_of(x), x.copy(), np.arange(1, *c)
    width, height = image.size
    for cut in ((1 - 1 / zooms) / 2).tolist():
        box = (cut * width, cut * height, width - cut * width, height - cut * height)
        total += as_floats(image.resize(image.size, Image.Resampling.BILINEAR, box))
    return total / (len(zooms) + 1)


def snow(x: Floats, c: tuple[float, ...], rng: Random) -> Floats:
    """Flakes that fall in streaks, their layer and the same turned round, over a picture made paler. c: mean and
    deviation of the noise that flakes are made of, its zoom, the least that is a flake, half the length and the sigma
    of the streaks in pixels, and the share of the picture that is not made paler."""
    mean, deviation, zoom, least, radius, sigma, kept = c
    size = grid_of(x)
    coarse = [math.ceil(side / zoom) for side in size]
    noise = (mean + deviation * rng.standard_normal(coarse, np.float32))[..., None]
    v, u = (np.linspace(0, n - 1, side, dtype=np.float32) for n, side in zip(coarse, size, strict=True))
    flakes = sampled(noise, *np.broadcast_arrays(v[:, None], u))[..., 0]
    flakes = np.where(flakes < least, 0, flakes.clip(0, 1)).astype(np.float32)
    flakes = resized(convolve(flakes, streak(2 * radius, sigma, rng.uniform(-135, -45))), x.shape[:2])
    white = np.maximum(x, 1.5 * grey(x) + 0.5)
    out: Floats = kept * x + (1 - kept) * white + (flakes + flakes[::-1, ::-1])[..., None]
    return out


def grey(x: Floats) -> Floats:
    """[y x 1], the brightness of television's standard, Rec. 601, as OpenCV has it."""
    return (x @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


def frost(x: Floats, c: tuple[float, float], rng: Random) -> Floats:
    """Ice over the picture. c: the weights of the picture and of the ice. Ours: the paper's photographs of frost are
    not here, so ice is drawn (`pictura.data.weather.ice`)."""
    pane = ice(rng, grid_of(x))
    return c[0] * x + c[1] * resized(pane, x.shape[:2])


def fog(x: Floats, c: tuple[float, float], rng: Random) -> Floats:
    """A cloud (`pictura.data.weather.plasma`) over the picture, scaled so that nothing is brighter than its brightest.
    c: how thick the cloud is, and the decay of its detail."""
    most = x.max()
    layer = resized(cloud(rng, c[1], grid_of(x)), x.shape[:2])
    out: Floats = (x + c[0] * layer[..., None]) * (most / (most + c[0]))
    return out


def brightness(x: Floats, c: float, rng: Random) -> Floats:
    """The value of HSV raised by c, hue and saturation kept: all three colours times one factor."""
    value = highest(x)
    raised = np.minimum(value + c, 1)
    out: Floats = np.where(value > 0, x * (raised / np.maximum(value, 1e-6)), raised).astype(np.float32)
    return out


def highest(x: Floats) -> Floats:
    """[y x 1], the value of HSV."""
    out: Floats = np.maximum(np.maximum(x[..., :1], x[..., 1:2]), x[..., 2:])
    return out


def contrast(x: Floats, c: float, rng: Random) -> Floats:
    """The distance of each value from the mean of its colour over the picture, times c."""
    mean = x.mean((0, 1), dtype=np.float64).astype(np.float32)
    out: Floats = (x - mean) * c + mean
    return out


def saturate(x: Floats, c: tuple[float, float], rng: Random) -> Floats:
    """The saturation of HSV times c[0], plus c[1]: distance from the value of HSV, scaled. A grey pixel has the hue 0,
    and so turns red where c adds saturation."""
    value = highest(x)
    chroma = value + highest(-x)
    saturation = chroma / np.maximum(value, 1e-6)
    wanted = (saturation * c[0] + c[1]).clip(0, 1)
    below = np.where(chroma > 0, (value - x) / np.maximum(chroma, 1e-6), np.array([0, 1, 1], np.float32))
    out: Floats = (value * (1 - wanted * below)).astype(np.float32)
    return out


def elastic_transform(x: Floats, c: tuple[float, float, float], rng: Random) -> Floats:
    """An affine map that takes three points around the middle to others near them, and waves. c: how far waves reach,
    how smooth they are, and how far the points wander, in pixels."""
    length, sigma, wander = c
    size = grid_of(x)
    middle, side = np.array(size) // 2, SIDE // 3
    points = np.column_stack([middle + side * np.array([[1, 1], [1, -1], [-1, -1]]), np.ones(3)])
    moved = points + np.column_stack([rng.uniform(-wander, wander, (3, 2)), np.zeros(3)])
    back = np.linalg.solve(moved, points)[:, :2]  # [y x 1] of what is drawn -> where it is taken from
    noise = rng.uniform(-1, 1, (2, *size)).astype(np.float32)
    waves = [length * resized(gaussian(some, sigma, "symmetric", 3), x.shape[:2]) for some in noise]
    steps = [n / side for n, side in zip(size, x.shape[:2], strict=True)]
    places = [(np.arange(n) + 0.5) * step - 0.5 for n, step in zip(x.shape[:2], steps, strict=True)]
    v, u = (wave + place for wave, place in zip(waves, (places[0][:, None], places[1]), strict=True))
    taken = [((v * back[0, i] + u * back[1, i] + back[2, i] + 0.5) / steps[i] - 0.5) for i in (0, 1)]
    return sampled(x, *(place.astype(np.float32) for place in taken))


def pixelate(x: Floats, c: float, rng: Random) -> Floats:
    """As a coarse screen shows it: made smaller and as large again by boxes. c: the share of its side that is left."""
    image, share = image_of(x), c / max(1.0, scale_of(x))
    small = image.resize([max(1, int(side * share)) for side in image.size], Image.Resampling.BOX)
    return as_floats(small.resize(image.size, Image.Resampling.BOX))


def jpeg_compression(x: Floats, c: int, rng: Random) -> Floats:
    """What is left of it by JPEG of the quality c."""

    def change(x: Floats) -> Floats:
        file = io.BytesIO()
        image_of(x).save(file, "JPEG", quality=c)
        return as_floats(Image.open(file))

    return grained(x, change)


def spatter(x: Floats, c: tuple[float, ...], rng: Random) -> Floats:
    """Drops of water, pale turquoise, or, from severity 4 on, of mud. c: mean, deviation and sigma of the noise that is
    the liquid, the level from which it is seen, how bright water is or the sigma of mud's edge, and if it is mud."""
    mean, deviation, sigma, edge, seen, mud = c
    size = grid_of(x)
    liquid = gaussian(mean + deviation * rng.standard_normal(size, np.float32), sigma)
    if mud:
        drops = gaussian((liquid > edge).astype(np.float32), seen)
        drops = resized(np.where(drops < 0.8, 0, drops).astype(np.float32), x.shape[:2])[..., None]
        return x * (1 - drops) + drops * (np.array([63, 42, 20], np.float32) / 255)
    depth = (liquid - edge).clip(0)
    light = depth + 2 * (depth - np.roll(depth, (2, 2), (0, 1)))  # brighter where it falls to the lower right
    light = resized((light.clip(0) * (seen / max(float(light.max()), 1e-6))).astype(np.float32), x.shape[:2])
    return x + light[..., None] * (np.array([175, 238, 238], np.float32) / 255)


KINDS: dict[str, Kind] = {
    function.__name__: function
    for function in (
        gaussian_noise, shot_noise, impulse_noise, speckle_noise, gaussian_blur, defocus_blur, glass_blur, motion_blur,
        zoom_blur, snow, frost, fog, brightness, contrast, saturate, elastic_transform, pixelate, jpeg_compression,
        spatter,
    )
}  # fmt: skip
