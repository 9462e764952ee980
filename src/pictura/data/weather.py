"""Fog and ice, drawn by chance: layers float32 [y x], 0 to 1, to lay over pictures."""

import numpy as np
import numpy.typing as npt

from pictura.data.filters import Floats, gaussian

SIDE = 256  # of a cloud; a power of two


def plasma(rng: np.random.Generator, decay: float) -> Floats:
    """[256 256] clouds that repeat at their edges: a square's middle and those of its sides are means of the points
    around and some chance, the less of it the smaller the square (Fournier, Fussell and Carpenter 1982).

    decay: ImageNet-C's, by whose square the chance falls each time that squares are halved.
    """
    field, step, chance = np.zeros((SIDE, SIDE)), SIDE, 1.0
    while step > 1:
        half = step // 2
        corner = field[::step, ::step]
        across, down = np.roll(corner, -1, 1), np.roll(corner, -1, 0)
        noise = rng.uniform(-chance, chance, (3, *corner.shape))
        middle = (corner + across + down + np.roll(across, -1, 0)) / 4 + noise[0]
        field[half::step, half::step] = middle
        field[::step, half::step] = (corner + across + middle + np.roll(middle, 1, 0)) / 4 + noise[1]
        field[half::step, ::step] = (corner + down + middle + np.roll(middle, 1, 1)) / 4 + noise[2]
        step, chance = half, chance / decay**2
    field -= field.min()
    out: Floats = (field / field.max()).astype(np.float32)
    return out


def cloud(rng: np.random.Generator, decay: float, size: tuple[int, int]) -> Floats:
    """`plasma`, cut or repeated to `size`."""
    y, x = (np.arange(side) % SIDE for side in size)
    return plasma(rng, decay)[y[:, None], x]


def ice(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """[y x 3] of `size`, a frozen pane: crystals with ribs, each in a direction of its own, bright where they meet,
    thick in some places and thin in others."""
    y, x = np.indices(size, np.float32)
    bend = [40 * (cloud(rng, 1.7, size) - 0.5) for _ in range(2)]
    y, x = y + bend[0], x + bend[1]
    seeds = rng.uniform(-20, 20 + np.array(size), (min(40, 4 + size[0] * size[1] // 2700), 2)).astype(np.float32)
    first, second = np.full(size, np.inf, np.float32), np.full(size, np.inf, np.float32)
    crystal = np.zeros(size, np.int64)
    for number, (v, u) in enumerate(seeds):
        distance = np.hypot(y - v, x - u)
        second = np.minimum(second, np.maximum(first, distance))
        crystal[distance < first] = number
        first = np.minimum(first, distance)
    angle = rng.uniform(0, np.pi, len(seeds)).astype(np.float32)[crystal]
    across = y * np.cos(angle) + x * np.sin(angle)
    heights = rng.random((2, len(seeds), 512)).astype(np.float32)
    ribs = [between(some, crystal, across / width) for some, width in zip(heights, (9, 2.5), strict=True)]
    seam = np.exp(-(second - first) / 3)
    thick, powder = cloud(rng, 1.5, size), cloud(rng, 1.15, size)
    white = 0.8 * thick - 0.35 + (0.9 * ribs[0] * ribs[1] + 0.6 * powder + 0.3 * seam) * (0.3 + thick)
    white = gaussian(white.astype(np.float32), 0.5).clip(0, 1)[..., None]
    light, dark = np.array([[0.9, 0.97, 1.0], [0.05, 0.12, 0.2]], np.float32)
    out: Floats = white * light + (1 - white) * dark
    return out


def between(heights: Floats, row: npt.NDArray[np.int64], place: Floats) -> Floats:
    """heights: [n k], row: [y x] below n, place: [y x] any number -> [y x], graded between the heights around it."""
    k = heights.shape[1]
    below = np.floor(place)
    i = below.astype(np.int64) % k
    share = place - below
    out: Floats = (1 - share) * heights[row, i] + share * heights[row, (i + 1) % k]
    return out
