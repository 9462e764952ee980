"""Each corruption against a form of it that is plain to read, or by what is known of it."""

import colorsys
import io
import math

import numpy as np
import pytest
from PIL import Image

from pictura.data.corruptions import SEVERITIES, Pixels, corrupt
from pictura.data.filters import Floats

EVERY = pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])


def picture(y: int = 24, x: int = 20) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (y, x, 3), dtype=np.uint8)


def grey(level: int, y: int = 224, x: int = 224) -> Pixels:
    return np.full((y, x, 3), level, np.uint8)


def rounded(x: Floats) -> Pixels:
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)


def done(image: Pixels, name: str, severity: int, seed: int = 0) -> Pixels:
    return corrupt(image, name, severity, np.random.default_rng(seed))


def off_by_one(a: Pixels, b: Pixels) -> bool:
    return int(np.abs(a.astype(int) - b.astype(int)).max()) <= 1


# Noise


@EVERY
def test_gaussian_noise_has_its_deviation(severity: int) -> None:
    c = SEVERITIES["gaussian_noise"][severity - 1]
    out = done(grey(127), "gaussian_noise", severity) / 255 - 127 / 255
    share = math.erf(127 / 255 / c / math.sqrt(2))  # that is not cut off
    inside = out[np.abs(out) < 0.25]
    assert np.median(np.abs(out)) == pytest.approx(0.6745 * c, rel=0.03)
    assert abs(inside.mean()) < 0.01
    assert (np.abs(out) < 0.497).mean() == pytest.approx(share, abs=0.01)


@EVERY
def test_photons_are_counted(severity: int) -> None:
    c = SEVERITIES["shot_noise"][severity - 1]
    out = done(grey(64), "shot_noise", severity) / 255
    counts = out * c
    assert np.abs(counts - np.rint(counts)).max() < 0.5 * c / 255 + 1e-6, "whole ones"
    mean = 64 / 255 * c
    assert (counts < 0.5).mean() == pytest.approx(math.exp(-mean), abs=0.01)
    assert (np.rint(counts) == 1).mean() == pytest.approx(mean * math.exp(-mean), abs=0.01)


@EVERY
def test_impulses_are_as_many(severity: int) -> None:
    c = SEVERITIES["impulse_noise"][severity - 1]
    out = done(grey(100), "impulse_noise", severity)
    assert {*np.unique(out).tolist()} == {0, 100, 255}
    for level in (0, 255):
        assert (out == level).mean() == pytest.approx(c / 2, rel=0.05)


def test_speckle_is_noise_in_the_light() -> None:
    dark, light = (np.median(np.abs(done(grey(v), "speckle_noise", 1) / 255 - v / 255)) for v in (20, 100))
    assert light == pytest.approx(0.6745 * 0.15 * 100 / 255, rel=0.05)
    assert light / dark == pytest.approx(5, rel=0.1)
    assert not done(grey(0), "speckle_noise", 5).any()


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "jpeg_compression"])
def test_of_a_large_picture_made_small_as_much_is_left(name: str) -> None:
    small = np.tile(np.linspace(60, 190, 56, dtype=np.uint8)[:, None, None], (4, 224, 3))
    large = small.repeat(3, 0).repeat(3, 1)
    of_small = done(small, name, 3).astype(float) - small
    seen = np.asarray(Image.fromarray(done(large, name, 3)).reduce(3)).astype(float) - small
    assert seen.std() == pytest.approx(of_small.std(), rel=0.05)


# Blur


@pytest.mark.parametrize("side", [64, 224, 600])
def test_blurs_grow_with_the_picture(side: int) -> None:
    """An edge of black and white: how wide it is when blurred, of the picture's side."""
    image = grey(0, side, side)
    image[:, side // 2 :] = 255
    place = (np.arange(side) + 0.5) / side - 0.5
    for name, severity, width in (("gaussian_blur", 5, 6), ("defocus_blur", 5, 5), ("glass_blur", 5, 6.0)):
        slope = np.diff(done(image, name, severity)[side // 4 : -side // 4].mean((0, 2)), prepend=0)
        wide = math.sqrt((slope * place**2).sum() / slope.sum()) * 224
        assert wide == pytest.approx(width, rel=0.1 if name != "glass_blur" else 0.5), name


def test_glass_copies_pixels_and_takes_none_away() -> None:
    image = grey(0, 224, 224)
    image[np.arange(224) // 8 % 2 == 0] = 255
    out = done(image, "glass_blur", 5)
    assert out.mean() == pytest.approx(image.mean(), rel=0.05)
    assert out[20:-20, 20:-20].std(1).mean() > 15, "grains are left along each row, unlike in a plain blur"


@EVERY
def test_zooms_are_those_of_a_ramp(severity: int) -> None:
    below, by = SEVERITIES["zoom_blur"][severity - 1]
    zooms = np.arange(1, below, by)
    x = np.tile(np.linspace(0, 255, 201, dtype=np.uint8)[None, :, None], (201, 1, 3))
    place = np.arange(201) - 100
    expected = (x[0, :, 0] + sum(x[0, 100, 0] + 255 / 200 * place / z for z in zooms)) / (len(zooms) + 1)
    np.testing.assert_allclose(done(x, "zoom_blur", severity)[100, :, 0], expected, atol=1.6)


def test_motion_smears_along_one_line() -> None:
    image = grey(0, 224, 224)
    image[112, 112] = 255
    smears = []
    for seed in range(4):
        out = done(image, "motion_blur", 1, seed)[..., 0].astype(float)
        y, x = np.nonzero(out)
        spread = np.linalg.eigvalsh(np.cov(np.stack([y, x]), aweights=out[y, x]))
        assert spread[1] > 8 * spread[0]
        smears.append(np.arctan2(out[y, x] @ (y - 112), out[y, x] @ (x - 112)))
    assert max(smears) - min(smears) > 0.2, "in a direction of chance"
    assert max(map(abs, smears)) < math.pi / 4 + 0.05


# Weather


@EVERY
def test_brightness_is_that_of_hsv(severity: int) -> None:
    image, c = picture(), SEVERITIES["brightness"][severity - 1]
    image[0, :3] = [[0, 0, 0], [255, 255, 255], [9, 9, 9]]
    expected = np.zeros(image.shape)
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] / 255).tolist())
        expected[place] = colorsys.hsv_to_rgb(hue, saturation, min(1, value + c))
    assert off_by_one(done(image, "brightness", severity), rounded(expected))


@EVERY
def test_saturation_is_that_of_hsv(severity: int) -> None:
    image, (times, plus) = picture(), SEVERITIES["saturate"][severity - 1]
    image[0, :3] = [[0, 0, 0], [255, 255, 255], [99, 99, 99]]
    expected = np.zeros(image.shape)
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] / 255).tolist())
        expected[place] = colorsys.hsv_to_rgb(hue, min(1, saturation * times + plus), value)
    assert off_by_one(done(image, "saturate", severity), rounded(expected))


def test_fog_lies_between_the_picture_and_its_brightest() -> None:
    image = grey(50, 100, 130)
    image[:, 65:] = 200
    out = done(image, "fog", 1) / 255
    c, most = SEVERITIES["fog"][0][0], 200 / 255
    layer = (out * (most + c) / most - image / 255) / c
    assert layer.min() > -0.02 and layer.max() < 1.02
    assert np.abs(layer[:, 65] - layer[:, 64]).max() < 0.1, "one cloud over both halves"
    assert not done(grey(0, 30, 30), "fog", 5).any()


@EVERY
def test_frost_is_ice_laid_over(severity: int) -> None:
    share, _ = SEVERITIES["frost"][severity - 1]
    black, dark = (done(grey(v, 100, 90), "frost", severity).astype(float) for v in (0, 40))
    whole = dark < 255
    np.testing.assert_allclose((dark - black)[whole], 40 * share, atol=1.01)
    assert black.std() > 15


def test_snow_falls_and_whitens() -> None:
    out = done(grey(60), "snow", 1).astype(float)
    kept = 0.8
    ground = kept * 60 + (1 - kept) * (1.5 * 60 + 127.5)
    assert out.min() == pytest.approx(ground, abs=1)
    flakes = out[..., 0] - out.min()
    np.testing.assert_allclose(flakes, flakes[::-1, ::-1], atol=1.01, err_msg="the layer, and it turned round")
    along, across = (np.abs(np.diff(flakes, axis=axis)).mean() for axis in (0, 1))
    assert along < across, "streaks go down"


def test_mud_is_brown_and_water_pale() -> None:
    mud, water = (done(grey(128, 100, 100), "spatter", severity) for severity in (5, 2))
    brown = np.abs(mud.astype(int) - [63, 42, 20]).max(2) < 12
    assert 0.03 < brown.mean() < 0.5
    assert (water >= 128).all() and (water > 140).any()


# Digital


@EVERY
def test_contrast_shrinks_to_the_mean(severity: int) -> None:
    image, c = picture(), SEVERITIES["contrast"][severity - 1]
    mean = (image / 255).mean((0, 1))
    assert off_by_one(done(image, "contrast", severity), rounded((image / 255 - mean) * c + mean))


@EVERY
def test_pixelate_is_two_box_resizes(severity: int) -> None:
    image, c = picture(100, 80), SEVERITIES["pixelate"][severity - 1]
    small = Image.fromarray(image).resize((int(80 * c), int(100 * c)), Image.Resampling.BOX)
    expected = np.asarray(small.resize((80, 100), Image.Resampling.BOX))
    assert np.array_equal(done(image, "pixelate", severity), expected)
    large = done(picture(448, 448), "pixelate", severity).astype(int)
    edges = (np.abs(np.diff(large[0], axis=0)).sum(1) > 0).sum()
    assert edges < 224 * c * 2.2, "a pixel or its graded edge, and no more of them in a larger picture"


@EVERY
def test_jpeg_is_a_file_of_that_quality(severity: int) -> None:
    image, file = picture(), io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=SEVERITIES["jpeg_compression"][severity - 1])
    assert np.array_equal(done(image, "jpeg_compression", severity), np.asarray(Image.open(file)))


def test_waves_bend_more_and_wander_less() -> None:
    """Ramps tell where each pixel was taken from: an affine map, and what is left of it."""
    y, x = np.indices((224, 224))
    image = np.stack([y, x, np.zeros_like(x)], -1).astype(np.uint8)
    moved, bent = [], []
    inner = (slice(60, -60), slice(60, -60))
    for severity in (1, 2, 3, 4, 5):
        taken = [done(image, "elastic_transform", severity, seed)[inner][..., :2].astype(float) for seed in range(3)]
        place = np.stack([y, x], -1)[inner]
        moved.append(np.mean([np.abs(one - place).mean() for one in taken]))
        columns = np.column_stack([place.reshape(-1, 2), np.ones(place.shape[0] * place.shape[1])])
        rest = [one.reshape(-1, 2) - columns @ np.linalg.lstsq(columns, one.reshape(-1, 2))[0] for one in taken]
        bent.append(np.mean([np.abs(one).mean() for one in rest]))
    assert min(moved[:2]) > 2 * max(moved[2:]), "the first two wander"
    assert bent[2] < bent[3] < bent[4] and bent[0] < bent[4]
    assert bent[4] == pytest.approx(0.577 * 244 * 0.12 / (2 * math.sqrt(math.pi) * 2.44) * 0.798, rel=0.1)
