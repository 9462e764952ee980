"""Strokes of a round brush over a plain ground: painted at any size, with gradients, and the same drawing as SVG.

A stroke is a quadratic Bézier curve with a width and round ends, the SVG path `M Q` of CLIPDraw (Frans et al. 2021,
section 3), which paints through diffvg (Li et al. 2020). Here a pixel's cover is a function of its distance to the
curve, in plain torch; strokes are laid over each other in their order, by Porter and Duff's `over` (1984).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pictura.data.randomness import random_generator

WIDTHS = (0.01, 0.25)  # of a stroke, in sides of the picture
OPACITIES = (0.05, 0.99)  # what is invisible has no gradient; what is opaque hides all under it for good
AT_ONCE = 2**20  # pixels times strokes that are painted together: some 100 MB of what gradients need
NEWTON = 8  # steps to the nearest point of a curve
UNITS = 1000  # of SVG, to a side
LARGEST = 8192  # pixels of a side


@dataclass(frozen=True, kw_only=True)
class Strokes:
    """n strokes, the first at the bottom, on a square of side 1 whose corner (0, 0) is at the top left.

    points: [n 3 2], x and y of both ends and, between them, of the control point. widths: [n]. colours: [n 3], red,
    green, blue, from 0 to 1. opacities: [n]. ground: [3], the colour behind all.
    """

    points: Tensor
    widths: Tensor
    colours: Tensor
    opacities: Tensor
    ground: Tensor

    @classmethod
    def random(cls, n: int, seed: int) -> Self:
        """Short ones of all colours anywhere, on white; on the CPU, float32."""
        draw = random_generator(seed, 0, 0, "strokes")
        start = draw.uniform(0, 1, (n, 1, 2))
        points = np.concatenate([start, start + draw.uniform(-0.1, 0.1, (n, 2, 2)).cumsum(1)], 1)
        rest = draw.uniform(0.02, 0.08, n), draw.uniform(0, 1, (n, 3)), draw.uniform(0.4, 0.9, n), np.ones(3)
        given = (torch.from_numpy(values).float() for values in (points, *rest))
        return cls(**dict(zip((f.name for f in fields(cls)), given, strict=True)))

    def tensors(self) -> dict[str, Tensor]:
        """{name: tensor}."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def copy(self, device: torch.device | str = "cpu") -> Self:
        """The same, by itself, without gradients."""
        return type(self)(**{k: v.detach().to(device, copy=True) for k, v in self.tensors().items()})

    @torch.no_grad()
    def clamp_(self) -> None:
        """What has left its range comes back: ends of a stroke may lie a little outside the picture."""
        self.points.clamp_(-0.1, 1.1)
        self.widths.clamp_(*WIDTHS)
        self.colours.clamp_(0, 1)
        self.opacities.clamp_(*OPACITIES)
        self.ground.clamp_(0, 1)

    def paint(self, size: int) -> Tensor:
        """-> [3 y x], from 0 to 1, size pixels a side; in bands of rows, whose insides are painted again for gradients
        where the picture is of several."""
        rows = max(1, min(size, AT_ONCE // (size * max(1, len(self.widths)))))
        places = (torch.arange(size, device=self.points.device) + 0.5) / size
        bands = []
        for y in places.split(rows):
            if rows < size and torch.is_grad_enabled():
                bands.append(checkpoint(self.band, y, places, use_reentrant=False, preserve_rng_state=False))
            else:
                bands.append(self.band(y, places))
        return torch.cat(bands, 1)

    def band(self, y: Tensor, x: Tensor) -> Tensor:
        """y: [h], x: [w], centres of pixels that are 1 / w wide -> their colours [3 h w]."""
        pixel = 1 / len(x)
        with torch.no_grad():  # a stroke lies within the rectangle around its three points
            edge = self.widths / 2 + pixel
            low, high = self.points.amin(1) - edge[:, None], self.points.amax(1) + edge[:, None]
            across, down = (
                (low[:, i] <= at[:, None]) & (at[:, None] <= high[:, i]) for i, at in enumerate((x, y))
            )  # [w n], [h n]
            row, column, which = (down[:, None] & across).nonzero(as_tuple=True)  # k pairs of a pixel and a stroke

        def of(values: Tensor) -> Tensor:  # of vectors alone: the gradient of rows is a sum in no fixed order
            return values.index_select(0, which)

        xs, ys = ([of(self.points[:, end, axis]) for end in range(3)] for axis in (0, 1))
        # A pixel is covered by as much of it as lies inside, the edge taken as straight, and across one of its sides.
        cover = ((of(self.widths) / 2 - distances(xs, ys, x[column], y[row])) / pixel + 0.5).clamp(0, 1)
        through = x.new_zeros(len(y) * len(x), len(self.widths))  # [p n]: the logarithm of what each lets through
        pairs = row * len(x) + column, which
        through = through.index_put(pairs, torch.log1p(-cover * of(self.opacities)))
        behind = through.sum(1, keepdim=True)
        shows = -torch.expm1(through) * (behind - through.cumsum(1)).exp()
        return (shows @ self.colours + behind.exp() * self.ground).T.view(3, len(y), len(x))

    @torch.no_grad()
    def image(self, size: int) -> npt.NDArray[np.uint8]:
        """-> uint8 RGB [y x 3], size pixels a side, from 1 to 8192."""
        check_size(size)
        out: npt.NDArray[np.uint8] = (self.paint(size) * 255).round().byte().movedim(0, 2).contiguous().cpu().numpy()
        return out

    def svg(self, title: str = "") -> str:
        """The same drawing as an SVG document: a `rect`, and a `path` for each stroke."""
        title = escape("".join(c for c in title if c.isprintable()), quote=False)  # XML has no control characters
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {UNITS} {UNITS}">\n<title>{title}</title>\n'
        parts = [f'<rect width="{UNITS}" height="{UNITS}" fill="{hexadecimal(self.ground)}"/>\n']
        parts.append('<g fill="none" stroke-linecap="round">\n')
        for curve, width, colour, opacity in zip(self.points, self.widths, self.colours, self.opacities, strict=True):
            start, control, end = (f"{UNITS * x:.2f} {UNITS * y:.2f}" for x, y in curve.tolist())
            look = f'stroke="{hexadecimal(colour)}" stroke-width="{UNITS * float(width):.2f}"'
            parts.append(f'<path d="M{start}Q{control} {end}" {look} stroke-opacity="{float(opacity):.3f}"/>\n')
        return head + "".join(parts) + "</g>\n</svg>\n"


def check_size(size: int, option: str = "size") -> None:
    """ValueError for a side that no picture can have."""
    if not 1 <= size <= LARGEST:
        raise ValueError(f"{option}: {size} must be from 1 to {LARGEST} pixels")


def hexadecimal(colour: Tensor) -> str:
    """[3] from 0 to 1 -> #rrggbb."""
    red, green, blue = (colour * 255).round().int().tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def distances(xs: Sequence[Tensor], ys: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """xs, ys: 3 of [k], the points of k quadratic Bézier curves, x, y: [k] places -> [k], each from its curve.

    The gradient to a curve's nearest point is that to the curve: where the curve is nearest, moving along it changes
    nothing, and at an end the point does not move (the envelope theorem). So the search itself has none.
    """
    # B(t) - p = a t² + b t + q
    (ax, bx, qx), (ay, by, qy) = (
        (start - 2 * control + end, 2 * (control - start), start - to)
        for (start, control, end), to in ((xs, x), (ys, y))
    )
    with torch.no_grad():
        t = nearest(
            ax * ax + ay * ay, ax * bx + ay * by, bx * bx + by * by + 2 * (ax * qx + ay * qy), bx * qx + by * qy
        )
    dx, dy = (ax * t + bx) * t + qx, (ay * t + by) * t + qy
    return (dx.square() + dy.square() + 1e-12).sqrt()  # a root has no gradient at 0


def nearest(fourth: Tensor, third: Tensor, second: Tensor, first: Tensor) -> Tensor:
    """[k] each -> [k], the t from 0 to 1 where `fourth t⁴ + 2 third t³ + second t² + 2 first t` is least, as far as it
    is a squared distance from a curve.

    Its derivative is a cubic, convex on one side and concave on the other of where its roots are centred. So there is
    at most one minimum on either side, and Newton's steps from either end of the curve come to it and not beyond.
    """

    def walked(t: Tensor) -> Tensor:
        for _ in range(NEWTON):
            slope = ((2 * fourth * t + 3 * third) * t + second) * t + first
            bend = (6 * fourth * t + 6 * third) * t + second
            t = (t - slope / bend.clamp_min(1e-9)).clamp(0, 1)
        return t

    def squared(t: Tensor) -> Tensor:
        return (((fourth * t + 2 * third) * t + second) * t + 2 * first) * t

    one, other = walked(torch.zeros_like(first)), walked(torch.ones_like(first))
    return torch.where(squared(one) < squared(other), one, other)
