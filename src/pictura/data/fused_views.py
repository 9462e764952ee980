"""SimCLR's augmentation in a few passes over the pixels: nearly the same views, in less time.

Crop, mirror, resize and blur are one matrix for each axis, and all changes of colour one affine map of red, green and
blue, both multiplied together before they meet a picture; the products are in bf16. What differs from the exact form:
values are cut off at 0 and 1 at the end alone, not after each step; hue turns around the grey axis of YIQ, not of HSV;
the blur comes before the colours; contrast goes by the mean of the blurred picture.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pictura.data.batch_views import IN_MEMORY, BatchView, BatchViewConfig, Chances, parts
from pictura.data.colour import LUMA, solarised
from pictura.data.resample import blur_matrix, resample, resize_matrix

YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
AT_ONCE = 2**20  # pixels of pictures that are worked on together on a CPU


@dataclass(frozen=True, kw_only=True)
class FusedSimCLRViewConfig(BatchViewConfig):
    """As `simclr`, approximately, and faster where pictures are large."""

    kind: ClassVar[str] = "simclr_fused"

    def build(self) -> "FusedSimCLRView":
        return FusedSimCLRView(self)


class FusedSimCLRView(BatchView):
    """Gives bf16."""

    def apply(self, image: Tensor, chances: Chances) -> Tensor:
        (height, width), device, n = image.shape[2:], image.device, len(chances.flip)
        side = self.config.side(height, width)
        at_once = max(1, (AT_ONCE if device.type == "cpu" else IN_MEMORY) // max(height * width, side**2))
        out = torch.empty(n, 3, side, side, device=device, dtype=torch.bfloat16)
        for begin in range(0, n, at_once):
            some = slice(begin, min(begin + at_once, n))
            c = chances.of(some)
            matrices = matrices_of(c, height, width, side, device)
            pictures = image.index_select(0, torch.arange(n)[some].to(device) % len(image))
            x = resample(pictures.to(torch.bfloat16, memory_format=torch.contiguous_format), *matrices)
            linear, shift = colour_maps(x.mean((2, 3), dtype=torch.float32) / 255, c)
            x = torch.baddbmm(shift.to(x)[:, :, None], (linear / 255).to(x), x.flatten(2)).clamp_(0, 1)
            out[some] = x.view(-1, 3, side, side)
        for few in parts(chances.solarise, at_once):
            out.index_copy_(0, few.to(device), solarised(out.index_select(0, few.to(device))))
        return out


def matrices_of(c: Chances, height: int, width: int, side: int, device: torch.device) -> list[Tensor]:
    """Of rows [n s y] and of columns [n s x], bf16: crop, resize, mirror and blur."""
    left, top, w, h = c.box.to(device).unbind(1)
    columns = resize_matrix(left, w, width, side, c.flip.to(device))
    matrices = [matrix.to(torch.bfloat16) for matrix in (resize_matrix(top, h, height, side), columns)]
    radius = side // 10 // 2
    for few in parts((c.sigma > 0) & (radius > 0), len(c.sigma)):
        blur, place = blur_matrix(c.sigma[few].to(device), radius, side).to(torch.bfloat16), few.to(device)
        for matrix in matrices:
            matrix.index_copy_(0, place, blur @ matrix.index_select(0, place))
    return matrices


def colour_maps(mean: Tensor, c: Chances) -> tuple[Tensor, Tensor]:
    """mean: [n 3], colours of the pictures on average -> linear [n 3 3], shift [n 3]: what is done to each pixel."""
    n, device = len(mean), mean.device
    factor, order = c.factor.to(device), c.order.to(device)
    one, luma, yiq = torch.eye(3, device=device), torch.tensor(LUMA, device=device), YIQ.to(device)
    angle = factor[:, 3] * (-2 * torch.pi)
    turn = torch.zeros(n, 3, 3, device=device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 2, 1] = angle.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    f = factor[:, :3, None, None]
    steps = torch.stack(
        [f[:, 0] * one, f[:, 1] * one, f[:, 2] * one + (1 - f[:, 2]) * luma, yiq.inverse() @ turn @ yiq], 1
    )  # [n 4 3 3]
    linear, shift = one.expand(n, 3, 3), mean.new_zeros(n, 3)
    each = torch.arange(n, device=device)
    for place in range(4):
        what = order[:, place]
        step = steps[each, what]
        grey = torch.einsum("nij,nj->ni", linear, mean).add_(shift) @ luma  # of the picture as it is by now
        linear, shift = step @ linear, torch.einsum("nij,nj->ni", step, shift)
        shift = shift + torch.where(what == 1, (1 - factor[:, 1]) * grey, 0.0)[:, None]
    jitter, no_colour = (x.to(device)[:, None] for x in (c.jitter, c.grey))
    linear, shift = torch.where(jitter[..., None], linear, one), torch.where(jitter, shift, 0.0)
    grey_of = luma.expand(3, 3)
    linear = torch.where(no_colour[..., None], grey_of @ linear, linear)
    return linear, torch.where(no_colour, shift @ grey_of.T, shift)
