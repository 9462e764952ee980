"""Pictures with what was found drawn into them: a box and a name for each thing, its mask where there is one."""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from pictura.data.views import as_tensor

SIDE = 360  # pixels of the longer side in a report: room for names


def with_things(picture: Image.Image, found: Mapping[str, Any]) -> Image.Image:
    """A picture and detections in it, with `text_labels` -> a copy with a colour for each name, its score behind it."""
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

    if not len(found["boxes"]):
        return picture.copy()
    names: Sequence[str] = found["text_labels"]
    colours = [colour(label) for label in found["labels"].tolist()]
    pixels = as_tensor(picture)
    if "masks" in found:
        pixels = draw_segmentation_masks(pixels, found["masks"], alpha=0.4, colors=colours)
    words = [f"{name} {score:.0%}" for name, score in zip(names, found["scores"].tolist(), strict=True)]
    boxes = found["boxes"].round().to(torch.int64)
    drawn: Image.Image = to_pil_image(draw_bounding_boxes(pixels, boxes, words, colours, width=2, fill_labels=True))
    return drawn


def beside_truth(pixels: Tensor, found: Mapping[str, Any], true: Tensor, size: tuple[int, int]) -> Image.Image:
    """uint8 [3 y x] -> a picture for a report with what was found in it, as `with_things` draws it, and dashed under
    that the true boxes [k 4]. size: (y, x) of the picture in whose pixels both are."""
    from torchvision.transforms.functional import InterpolationMode, resize, to_pil_image

    picture = ImageOps.contain(to_pil_image(pixels.cpu()), (SIDE, SIDE))
    scale = torch.tensor([picture.width / size[1], picture.height / size[0]] * 2)
    moved = {**found, "boxes": found["boxes"] * scale}
    if "masks" in found:
        moved["masks"] = resize(found["masks"], [picture.height, picture.width], InterpolationMode.NEAREST)
    lines = Image.new("1", picture.size)
    for box in (true * scale).round().tolist():
        ImageDraw.Draw(lines).rectangle(box, outline=1, width=2)
    y, x = np.indices((picture.height, picture.width))
    picture.paste(Image.fromarray((x + y) // 6 % 2 > 0), mask=lines)
    return with_things(picture, moved)


def colour(label: int) -> tuple[int, int, int]:
    """One that is far from those of the labels near it."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
