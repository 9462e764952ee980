"""Where the pixels of a picture went when a view changed it, so that boxes and masks go with them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Placement:
    """x becomes scale x + shift, then, where `flip`, the view's width minus that. scale, shift: of (x, y), in pixels;
    size: (y, x) of what came out."""

    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)
    flip: bool = False

    @property
    def whole(self) -> tuple[int, int]:
        """(y, x) of the picture, where the view shows all of it."""
        return round(self.size[0] / self.scale[1]), round(self.size[1] / self.scale[0])

    def boxes(self, boxes: Boxes) -> tuple[Boxes, npt.NDArray[np.bool_]]:
        """[k 4] of the picture -> [k 4] of the view, cut off at its edge, and which are still there, [k]."""
        moved = boxes * self._twice(self.scale) + self._twice(self.shift)
        if self.flip:
            moved[:, [0, 2]] = self.size[1] - moved[:, [2, 0]]
        moved = np.clip(moved, 0, self._twice(self.size[::-1]))
        there: npt.NDArray[np.bool_] = ((moved[:, 2:] - moved[:, :2]) >= 1e-3).all(1)
        return moved, there

    def _twice(self, pair: tuple[float, float]) -> Boxes:
        """(x, y) for both corners of a box."""
        return np.array(pair * 2, np.float32)

    def masks(self, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """[k y x] of the picture -> [k y x] of the view, by the nearest pixel."""
        out = np.zeros((len(masks), *self.size), bool)
        height, width = masks.shape[1:]
        sides = (max(1, round(width * self.scale[0])), max(1, round(height * self.scale[1])))
        left, top = round(self.shift[0]), round(self.shift[1])
        x0, y0 = max(0, left), max(0, top)  # what the view shows of it, in pixels of the view
        x1, y1 = min(self.size[1], left + sides[0]), min(self.size[0], top + sides[1])
        if x0 >= x1 or y0 >= y1:
            return out
        across, down = width / sides[0], height / sides[1]
        part = ((x0 - left) * across, (y0 - top) * down,
                min(width, (x1 - left) * across), min(height, (y1 - top) * down))  # fmt: skip
        for own, mask in zip(out, masks, strict=True):
            picture = Image.fromarray(mask.astype(np.uint8))
            own[y0:y1, x0:x1] = picture.resize((x1 - x0, y1 - y0), Image.Resampling.NEAREST, box=part)
        return np.ascontiguousarray(out[:, :, ::-1]) if self.flip else out
