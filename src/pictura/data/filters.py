"""What blurs, warps and shuffles pixels, in float32 and at any width: convolutions go by Fourier transforms, so that a
disc of 300 pixels costs what one of 3 does. Pictures here are float32 [y x c], layers over them float32 [y x].
"""

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

Floats = npt.NDArray[np.floating[Any]]
Border = Literal["edge", "reflect", "symmetric"]  # as `numpy.pad` names them


def convolve(image: Floats, kernel: Floats, border: Border = "edge") -> Floats:
    """image: [y x] or [y x c], kernel: [u v] of odd sides -> the same shape as `image`. One channel at a time."""
    (y, x), (u, v) = image.shape[:2], kernel.shape
    pad = [(u // 2, u // 2), (v // 2, v // 2)]
    # What wraps around at the ends of the transform lies in the first u - 1 rows and v - 1 columns, which are cut off.
    size = [-(-(y + u - 1) // 16) * 16, -(-(x + v - 1) // 16) * 16]
    spectrum = torch.fft.rfft2(torch.from_numpy(kernel), s=size)
    out = np.empty_like(image)
    for c in np.ndindex(image.shape[2:]):
        padded = torch.from_numpy(np.pad(image[(..., *c)], pad, border))
        whole = torch.fft.irfft2(torch.fft.rfft2(padded, s=size) * spectrum, s=size)
        out[(..., *c)] = whole[u - 1 : u - 1 + y, v - 1 : v - 1 + x].numpy()
    return out


def gaussian(image: Floats, sigma: float, border: Border = "edge", reach: float = 4) -> Floats:
    """A normal distribution of `sigma` pixels, cut off at `reach` times that."""
    radius = int(reach * sigma + 0.5)
    if not radius:
        return image
    weight = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weight /= weight.sum()
    return convolve(image, np.outer(weight, weight).astype(np.float32), border)


def disc(radius: float, blur: float) -> Floats:
    """[u v], a disc of sum 1 as a lens out of focus draws it; its pixels are covered in part, its edge blurred."""
    n = math.ceil(radius + 4 * blur) + 1
    distance = np.hypot(*np.mgrid[-n : n + 1, -n : n + 1])
    covered = gaussian((radius + 0.5 - distance).clip(0, 1).astype(np.float32), blur).clip(0)
    out: Floats = covered / covered.sum()
    return out


def streak(length: float, sigma: float, angle: float) -> Floats:
    """[u v], half a normal distribution along a line of `length` pixels, `angle` degrees from the x axis; sum 1."""
    n = math.ceil(length) + 1
    t = np.linspace(0, length, 2 * n + 1)
    weight = np.exp(-0.5 * (t / sigma) ** 2)
    kernel = np.zeros((2 * n + 1, 2 * n + 1))
    y, x = n - t * math.sin(math.radians(angle)), n + t * math.cos(math.radians(angle))
    for below in (0, 1):
        for right in (0, 1):
            j, i = np.floor(y).astype(int) + below, np.floor(x).astype(int) + right
            share = (1 - abs(y - j)) * (1 - abs(x - i))
            some = share > 0  # so that none lies outside
            np.add.at(kernel, (j[some], i[some]), (weight * share)[some])
    out: Floats = (kernel / kernel.sum()).astype(np.float32)
    return out


def resized(image: Floats, size: tuple[int, int]) -> Floats:
    """image: [v u] or [v u c] -> [y x …] of `size`; where it grows smaller pixels are averaged, where larger graded."""
    out = np.empty((*size, *image.shape[2:]), np.float32)
    for c in np.ndindex(image.shape[2:]):
        one = Image.fromarray(np.ascontiguousarray(image[(..., *c)]))
        out[(..., *c)] = one.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return out


def sampled(image: Floats, y: Floats, x: Floats) -> Floats:
    """image: [v u c], y and x: [y x], places in it, 0 the middle of the first pixel -> [y x c], between four pixels
    each. Beyond its edges the picture is mirrored."""
    v, u = image.shape[:2]
    grid = np.stack([(2 * x + 1) / u - 1, (2 * y + 1) / v - 1], -1).astype(np.float32)
    chw = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    out = F.grid_sample(
        chw[None], torch.from_numpy(grid)[None], mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return out[0].permute(1, 2, 0).numpy()


def shuffled(image: Floats, reach: float, rng: np.random.Generator) -> Floats:
    """Each pixel is a copy of one up to `reach` from it, as the loop of ImageNet-C has it: from the last pixel to the
    first, in place, so that one already replaced is copied on. (Meant as a swap; NumPy's views make it a copy.)

    A reach that is no whole number is rounded up, and that much fewer pixels are copies. A copy of a copy is followed
    to its origin by pointers, each of which twice as far as the one before.
    """
    y, x = image.shape[:2]
    whole = min(math.ceil(reach), (min(y, x) - 1) // 2)
    if whole < 1:
        return image
    rows, columns = np.arange(whole + 1, y - whole + 1), np.arange(whole + 1, x - whole + 1)
    dy, dx = rng.integers(-whole, whole, (2, len(rows), len(columns)))
    if reach < whole:
        stay = rng.random(dy.shape) >= reach / whole
        dy[stay] = dx[stay] = 0
    own = rows[:, None] * x + columns
    taken = np.arange(y * x)  # whence each pixel is copied
    taken[own] = own + dy * x + dx
    replaced = np.zeros(y * x, bool)
    replaced[own] = True
    on = replaced & (taken > np.arange(y * x)) & replaced[taken]  # what it copies has been replaced before
    leads = np.where(on, taken, np.arange(y * x))
    while ((further := leads[leads]) != leads).any():
        leads = further
    return image.reshape(y * x, -1)[taken[leads]].reshape(image.shape)
