"""`jitter`: large-scale jitter, for detectors (Ghiasi et al., Simple Copy-Paste, 2021, section 3; as ViLD trains)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image
from torch import Tensor

from pictura.data.placement import Placement
from pictura.data.views import FILTERS, Interpolation, Pixels, View, ViewConfig, as_picture, as_tensor

GREY = (128, 128, 128)  # beside a picture that does not fill the square


@dataclass(frozen=True, kw_only=True)
class JitterConfig(ViewConfig):
    """A picture's longer side becomes image_size times a number from `scale`; of what is larger than the square a
    random part is kept, what is smaller lies in its corner. Boxes and masks go with it. `flip` mirrors half of the
    pictures: a class name seldom says left or right."""

    kind: ClassVar[str] = "jitter"
    image_size: int = 1024
    scale: tuple[float, float] = (0.1, 2.0)
    flip: bool = True
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.scale[0] <= self.scale[1] <= 16:
            raise ValueError(f"scale: {list(self.scale)} is not a range of sizes, at most 16; try [0.1, 2]")

    def build(self) -> "Jitter":
        return Jitter(self)


class Jitter(View):
    """See `JitterConfig`."""

    def __init__(self, config: JitterConfig) -> None:
        self.config, self.image_size = config, config.image_size

    def __call__(self, image: Image.Image | Pixels, rng: np.random.Generator) -> Tensor:
        return self.look(image, rng)[0]

    def look(self, image: Image.Image | Pixels, rng: np.random.Generator) -> tuple[Tensor, Placement]:
        image, size = as_picture(image), self.image_size
        times, x, y, side = rng.random(4).tolist()
        low, high = self.config.scale
        ratio = size * (low + times * (high - low)) / max(image.size)
        width, height = (max(1, round(length * ratio)) for length in image.size)
        scale = (width / image.width, height / image.height)
        left, top = (int(chance * (max(0, length - size) + 1)) for chance, length in ((x, width), (y, height)))
        across, down = min(width, size), min(height, size)
        part = (left / scale[0], top / scale[1], (left + across) / scale[0], (top + down) / scale[1])
        canvas = Image.new("RGB", (size, size), GREY)
        canvas.paste(image.resize((across, down), FILTERS[self.config.interpolation], box=part), (0, 0))
        flip = self.config.flip and side < 0.5
        if flip:
            canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return as_tensor(canvas), Placement((size, size), scale, (-float(left), -float(top)), flip)
