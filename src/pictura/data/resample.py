"""Crop and resize, and blur, each picture by a rectangle and a width of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL = 96  # pixels of a side; on a CPU, products take longer than the kernel for larger ones


def resized_crops(image: Tensor, which: Tensor, box: Tensor, flip: Tensor, size: int) -> Tensor:
    """image: [n c y x] uint8; which: [b] of them; box: [b 4] left, top, width, height; flip: [b bool], those that are
    mirrored -> [b c size size], from 0 to 255.

    torchvision's `resized_crop` of each picture, bilinear with antialias: that of its float32 values, as two batched
    products; where large pictures lie on a CPU, that of its bytes, one at a time, which rounds to whole numbers.
    """
    device = image.device
    if device.type == "cpu" and size > SMALL:
        chosen = zip(which.tolist(), box.tolist(), flip.tolist(), strict=True)
        cuts = ((image[i : i + 1, :, y : y + h, x : x + w], mirror) for i, (x, y, w, h), mirror in chosen)
        return torch.cat(
            [
                F.interpolate(cut.flip(3) if mirror else cut, (size, size), mode="bilinear", antialias=True)
                for cut, mirror in cuts
            ]
        )
    left, top, width, height = box.to(device).unbind(1)
    rows = resize_matrix(top, height, image.shape[2], size)
    columns = resize_matrix(left, width, image.shape[3], size, flip.to(device))
    return resample(image.index_select(0, which.to(device)).float(), rows, columns)


def resize_matrix(begin: Tensor, length: Tensor, source: int, size: int, flip: Tensor | None = None) -> Tensor:
    """begin, length: [b], the pixels that are kept on one axis of `source` pixels -> [b size source], float32.
    flip: [b bool], where that axis runs the other way.

    A row says of which pixels a new one is the mean: linear between two, or, where it makes smaller, over as many as it
    takes together.
    """
    begin, length = (x.float()[:, None, None] for x in (begin, length))
    ratio = length / size
    new = torch.arange(size, device=begin.device)[:, None] + 0.5
    new = ratio * (new if flip is None else torch.where(flip[:, None, None], size - new, new))
    old = torch.arange(source, device=begin.device) + 0.5 - begin  # [b 1 source]: from the rectangle's edge
    weight = (1 - (old - new).abs_() / ratio.clamp(min=1)).clamp_(min=0)
    weight *= (old > 0) & (old < length)
    return weight / weight.sum(2, keepdim=True)


def blur_matrix(sigma: Tensor, radius: int, size: int) -> Tensor:
    """sigma: [b], in pixels -> [b size size], float32: a Gaussian over 2 radius + 1 pixels, reflected at the edges
    (torchvision's `gaussian_blur`)."""
    assert radius < size, (radius, size)
    step = torch.arange(-radius, radius + 1, device=sigma.device)
    tap = torch.exp(-0.5 * (step / sigma[:, None]) ** 2)
    tap = tap * (tap > 1e-9)  # CPUs take many times as long for the smallest numbers
    tap = tap / tap.sum(1, keepdim=True)
    at = torch.arange(size, device=sigma.device)[:, None] + step  # [size taps]
    at = (size - 1) - ((size - 1) - at.abs()).abs()
    matrix = tap.new_zeros(len(sigma), size, size)
    return matrix.scatter_add_(2, at.expand(len(sigma), -1, -1), tap[:, None].expand(-1, size, -1))


def resample(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """image: [b c y x], rows: [b s y], columns: [b s x] -> [b c s s]: rows @ image @ columns^T, of each channel."""
    b, c, y, x = image.shape
    wide = torch.bmm(image.reshape(b, c * y, x), columns.transpose(1, 2)).view(b, c, y, -1)
    return torch.matmul(rows[:, None], wide)
