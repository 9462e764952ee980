"""Pictures with what was found drawn into them: a box and a name for each thing, its mask where there is one."""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from pictura.data.views import as_tensor


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
    drawn: Image.Image = to_pil_image(draw_bounding_boxes(pixels, boxes, words, colours, width=2))
    return drawn


def colour(label: int) -> tuple[int, int, int]:
    """One that is far from those of the labels near it."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
