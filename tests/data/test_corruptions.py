from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictura.data.corruption_kinds import KINDS
from pictura.data.corruptions import GROUPS, NAMES, SEVERITIES, STANDARD, Pixels, corrupt
from pictura.data.scenes import ScenesConfig

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos" / "images"


def scene(side: int) -> Pixels:
    source = ScenesConfig(image_size=side, objects=(3, 3), count=3, gives=("image",)).build()
    return np.asarray(source[0]["image"])


def change(image: Pixels, name: str, severity: int, seed: int) -> float:
    out = corrupt(image, name, severity, np.random.default_rng(seed))
    if name == "frost":  # which takes light as it gives some: what counts is how little goes with the picture
        return float(100 * (1 - np.corrcoef(image.ravel(), out.ravel())[0, 1]))
    return float(np.abs(out.astype(float) - image).mean())


def test_fifteen_and_four() -> None:
    assert (len(STANDARD), len(NAMES), len({*NAMES})) == (15, 19, 19)
    assert set(KINDS) == set(SEVERITIES) == set(NAMES) == {name for group in GROUPS.values() for name in group}
    assert all(len(five) == 5 for five in SEVERITIES.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [64, 224])
def test_the_worst_changes_more_than_the_mildest(name: str, side: int) -> None:
    image = scene(side)
    before = image.copy()
    mild, bad = (np.mean([change(image, name, severity, seed) for seed in range(2)]) for severity in (1, 5))
    assert np.array_equal(image, before), "it is left as it is"
    assert bad > 1
    if name != "elastic_transform":  # its first severity moves the whole; see test_corruption_kinds
        assert bad > 1.2 * mild


@pytest.mark.parametrize("name", NAMES)
def test_chance_is_all_the_generator_s(name: str) -> None:
    image = scene(64)
    first, again, other = (corrupt(image, name, 4, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    certain = ("defocus_blur", "gaussian_blur", "zoom_blur", "brightness", "contrast", "saturate", "pixelate")
    assert np.array_equal(first, other) == (name in (*certain, "jpeg_compression"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (5, 4)])
def test_tiny_and_thin_pictures_are_pictures(name: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for severity in (1, 5) if min(shape) > 3 else (5,):
        out = corrupt(image, name, severity, np.random.default_rng(0))
        assert out.shape == image.shape and out.dtype == np.uint8


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_pictures_are_pictures(name: str, level: int) -> None:
    image = np.full((40, 48, 3), level, np.uint8)
    with np.errstate(all="raise", under="ignore"):
        outs = [corrupt(image, name, severity, np.random.default_rng(0)) for severity in (1, 4, 5)]
    blurs = (*GROUPS["blur"], "gaussian_blur", "pixelate", "contrast", "elastic_transform", "jpeg_compression")
    if name in blurs:
        assert max(np.abs(out.astype(int) - level).max() for out in outs) <= 1, "nothing is there to blur or to move"


@pytest.mark.skipif(not PHOTOS.exists(), reason=f"{PHOTOS} is not there")
@pytest.mark.parametrize("name", NAMES)
def test_of_a_photograph_it_stays_a_picture_of_the_same(name: str) -> None:
    """Except where contrast is nearly gone, corrupted and clean go together, pixel by pixel."""
    with Image.open(sorted(PHOTOS.iterdir())[4]) as opened:
        image = np.asarray(opened.convert("RGB"))
    out = corrupt(image, name, 1, np.random.default_rng(0))
    assert np.corrcoef(image.ravel(), out.ravel())[0, 1] > (0.3 if name == "elastic_transform" else 0.7)


def test_what_it_does_not_know_is_named() -> None:
    image, rng = np.zeros((4, 4, 3), np.uint8), np.random.default_rng(0)
    with pytest.raises(ValueError, match="there is no 'gausian_noise'; did you mean 'gaussian_noise'"):
        corrupt(image, "gausian_noise", 1, rng)
    with pytest.raises(ValueError, match=r"there is no .*; there are gaussian_noise, shot_noise"):
        corrupt(image, "??", 1, rng)
    for severity in (0, 6):
        with pytest.raises(ValueError, match=f"severity: {severity} must be 1, 2, 3, 4 or 5"):
            corrupt(image, "fog", severity, rng)
    for wrong in (image[..., 0], image.astype(np.float32), image[:0]):
        with pytest.raises(ValueError, match=r"pixels must be uint8 \[y x 3\], not"):
            corrupt(wrong, "fog", 1, rng)
