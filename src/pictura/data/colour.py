"""Changes of colour with a strength of its own for each picture: image [b 3 y x], float32 from 0 to 1; factor [b].

Each equals torchvision's function of that name on each picture alone, and changes the tensor in place. Chains of them
are what augmentation spends its time on, so whatever they need beside the picture lies in `room`, [ROOM b y x], which
the caller keeps: on a CPU new memory costs ten times what is done to it. Give them as many pictures at once as fit into
the cache.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""Share of red, green and blue in grey (ITU-R BT.601, as torchvision rounds them)."""
ROOM = 7
"""Planes that a change of colour needs beside the picture."""


def grey(image: Tensor, out: Tensor) -> Tensor:
    """-> out, [b y x]"""
    red, green, blue = image.unbind(1)
    return torch.mul(red, LUMA[0], out=out).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def grey_(image: Tensor, room: Tensor) -> None:
    """No colour at all."""
    image.copy_(grey(image, room[0])[:, None])


def brightness_(image: Tensor, factor: Tensor, room: Tensor) -> None:
    """factor x image, at most 1."""
    image.mul_(factor.view(-1, 1, 1, 1)).clamp_(max=1)


def contrast_(image: Tensor, factor: Tensor, room: Tensor) -> None:
    """Away from, or towards, the mean grey of the picture."""
    mean = grey(image, room[0]).mean((1, 2))
    image.mul_(factor.view(-1, 1, 1, 1)).add_(((1 - factor) * mean).view(-1, 1, 1, 1)).clamp_(0, 1)


def saturation_(image: Tensor, factor: Tensor, room: Tensor) -> None:
    """Away from, or towards, the grey of each pixel."""
    own = grey(image, room[0]).mul_((1 - factor).view(-1, 1, 1))
    image.mul_(factor.view(-1, 1, 1, 1)).add_(own[:, None]).clamp_(0, 1)


def hue_(image: Tensor, turn: Tensor, room: Tensor) -> None:
    """Round the circle of hues; turn: [b], in whole circles.

    With the largest and least of red, green and blue, M and m, and the hue h counted in sixths of a circle,
    red = m + (M - m) clamp(|h - 3| - 1, 0, 1), and green and blue likewise around 2 and 4 (Smith, Color Gamut Transform
    Pairs, 1978, in closed form).
    """
    red, green, blue = image.unbind(1)
    most, least, chroma, per, h, other, own = room
    torch.maximum(torch.maximum(red, green, out=most), blue, out=most)
    torch.minimum(torch.minimum(red, green, out=least), blue, out=least)
    torch.sub(most, least, out=chroma)
    torch.clamp(chroma, min=1e-12, out=per).reciprocal_()  # of grey pixels it is multiplied by zero
    torch.sub(red, green, out=h).mul_(per).add_(4)  # if blue is the largest
    for low, high, begin, largest in ((blue, red, 2, green), (green, blue, 0, red)):
        torch.sub(low, high, out=other).mul_(per).add_(begin)
        h.lerp_(other, torch.eq(most, largest, out=own))  # `where` takes twenty times as long
    h.add_(6 * turn.view(-1, 1, 1))
    h.sub_(torch.mul(h, 1 / 6, out=other).floor_(), alpha=6)
    below, above = torch.sub(least, chroma, out=own), least.add_(chroma, alpha=2)
    for channel, centre, base, sign in ((red, 3, below, 1), (green, 2, above, -1), (blue, 4, above, -1)):
        away = torch.sub(h, centre, out=other).abs_().clamp_(1, 2)
        torch.addcmul(base, chroma, away, value=sign, out=channel)


def solarised(image: Tensor, threshold: float = 0.5) -> Tensor:
    """What is as bright as `threshold`, or brighter, inverted."""
    return torch.where(image >= threshold, 1 - image, image)


JITTER: tuple[Callable[[Tensor, Tensor, Tensor], None], ...] = (brightness_, contrast_, saturation_, hue_)
