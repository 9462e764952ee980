"""Boxes and masks go where a view puts their pixels: shown on pictures in which the pixels themselves can be found."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from pictura.data.fit import FitConfig
from pictura.data.jitter import JitterConfig
from pictura.data.placement import Placement
from pictura.data.views import CropConfig, NoViewConfig, View


def drawn(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    """A red rectangle on blue."""
    image = Image.new("RGB", (width, height), (0, 0, 255))
    image.paste((255, 0, 0), box)
    return image


def found(pixels: np.ndarray) -> list[float]:
    """Where the red is, [y x c]."""
    red = (pixels[..., 0].astype(int) - pixels[..., 2]) > 60
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


VIEWS: dict[str, Callable[[], View]] = {
    "fit": FitConfig(image_size=90, patch_size=1).build,
    "jitter": JitterConfig(image_size=96, scale=(0.4, 1.9)).build,
    "small": JitterConfig(image_size=96, scale=(0.3, 0.9), flip=False).build,
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("size", [(120, 80), (61, 133), (96, 96)])
def test_boxes_and_masks_lie_where_the_pixels_are(name: str, size: tuple[int, int]) -> None:
    box = (20, 30, 50, 60)
    image, view = drawn(*size, box), VIEWS[name]()
    mask = np.zeros((1, size[1], size[0]), bool)
    mask[0, box[1] : box[3], box[0] : box[2]] = True
    seen_whole = 0
    for seed in range(40):
        pixels, placement = view.look(image, np.random.default_rng(seed))
        assert placement is not None and placement.size == tuple(pixels.shape[1:])
        again = view(image, np.random.default_rng(seed))
        assert (pixels == again).all()
        boxes, there = placement.boxes(np.float32([box]))
        masked = placement.masks(mask)[0]
        assert masked.shape == tuple(pixels.shape[1:])
        if there[0] and (boxes[0, 2:] - boxes[0, :2]).min() > 4:
            seen_whole += 1
            assert boxes[0] == pytest.approx(found(pixels.permute(1, 2, 0).numpy()), abs=1.6)
            rows, columns = np.flatnonzero(masked.any(1)), np.flatnonzero(masked.any(0))
            assert boxes[0] == pytest.approx([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], abs=1.6)
    assert seen_whole > 5


def test_what_is_out_of_sight_is_gone() -> None:
    placement = Placement((50, 60), (2.0, 0.5), (-10.0, -3.0), flip=True)
    boxes = np.float32([[10, 20, 30, 60], [0, 0, 4, 90], [32, 10, 60, 20]])
    moved, there = placement.boxes(boxes)
    assert moved[0].tolist() == [10, 7, 50, 27]
    assert there.tolist() == [True, False, True]
    assert moved[2].tolist() == [0, 2, 6, 7], "cut off at the edge"
    assert boxes[0].tolist() == [10, 20, 30, 60], "nobody's array is written to"


def test_some_views_do_not_say() -> None:
    image, rng = drawn(40, 40, (5, 5, 9, 9)), np.random.default_rng(0)
    assert CropConfig(image_size=32).build().look(image, rng)[1] is None
    assert FitConfig(image_size=32, patch_size=8, rand_augment=(2, 9)).build().look(image, rng)[1] is None
    assert NoViewConfig(image_size=40).build().look(image, rng)[1] == Placement((40, 40))
    boxes = np.float32([[1, 2, 3, 4]])
    assert (Placement((40, 40)).boxes(boxes)[0] == boxes).all()


@pytest.mark.parametrize("scale", [(0.0, 1.0), (2.0, 1.0), (1.0, 50.0)])
def test_a_wrong_range_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"scale: .* try \[0.1, 2\]"):
        JitterConfig(scale=scale)


def naive(placement: Placement, mask: np.ndarray) -> np.ndarray:
    """Every pixel of the view is asked for the pixel of the picture that its centre lies in."""
    out = np.zeros(placement.size, bool)
    for y in range(placement.size[0]):
        for x in range(placement.size[1]):
            across = placement.size[1] - 1 - x if placement.flip else x
            column = int((across + 0.5 - placement.shift[0]) // placement.scale[0])
            row = int((y + 0.5 - placement.shift[1]) // placement.scale[1])
            if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]:
                out[y, x] = mask[row, column]
    return out


@pytest.mark.parametrize("shift", [(0, 0), (-31, -17), (12, 9), (-30, 6), (40, 0), (0, -900)])
@pytest.mark.parametrize("scale", [(1, 1), (4, 3), (0.5, 0.25), (1.6, 2 / 3)])
@pytest.mark.parametrize("flip", [False, True])
def test_masks_are_those_of_the_pixels_one_by_one(
    shift: tuple[float, float], scale: tuple[float, float], flip: bool
) -> None:
    masks = np.random.default_rng(0).random((2, 24, 30)) < 0.5
    placement = Placement((20, 28), scale, shift, flip)
    for own, mask in zip(placement.masks(masks), masks, strict=True):
        assert np.array_equal(own, naive(placement, mask))


def test_a_mask_of_which_little_is_seen_is_not_made_whole() -> None:
    masks = np.zeros((1, 1200, 1600), bool)
    masks[0, 1000:, 1500:] = True
    placement = Placement((40, 50), (2000.0, 2000.0), (20 - 1500 * 2000.0, 10 - 1000 * 2000.0))
    own = placement.masks(masks)[0]  # the whole, of 8 * 10 ** 12 pixels, fits in no memory
    assert own.sum() == pytest.approx(30 * 30, abs=60)
    assert own[11:, 21:].all() and not own[:9].any() and not own[:, :19].any()
