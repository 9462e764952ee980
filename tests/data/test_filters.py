import math

import numpy as np
import pytest

from pictura.data.filters import Border, Floats, convolve, disc, gaussian, resized, sampled, shuffled, streak


def picture(y: int = 13, x: int = 17, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((y, x, 3), np.float32)


@pytest.mark.parametrize("border", ["edge", "reflect", "symmetric"])
@pytest.mark.parametrize("size", [(3, 5), (9, 1), (31, 41)])
def test_a_convolution_is_that_of_a_plain_loop(border: Border, size: tuple[int, int]) -> None:
    image, kernel = picture(), np.random.default_rng(1).random(size, np.float32)
    u, v = (side // 2 for side in size)
    padded = np.pad(image, [(u, u), (v, v), (0, 0)], border)
    expected = np.zeros_like(image)
    for j in range(size[0]):
        for i in range(size[1]):
            expected += kernel[j, i] * padded[2 * u - j : 2 * u - j + 13, 2 * v - i : 2 * v - i + 17]
    np.testing.assert_allclose(convolve(image, kernel, border), expected, rtol=1e-4)
    np.testing.assert_allclose(convolve(image[..., 0], kernel, border), expected[..., 0], rtol=1e-4)


def test_a_gaussian_has_its_width_and_its_sum() -> None:
    point = np.zeros((81, 81), np.float32)
    point[40, 40] = 1
    blurred = gaussian(point, 5)
    away = np.arange(81) - 40
    assert blurred.sum() == pytest.approx(1, abs=1e-4)
    for axis in (0, 1):
        assert math.sqrt((blurred.sum(axis) * away**2).sum()) == pytest.approx(5, rel=0.01)
    assert gaussian(point, 0.1) is point


@pytest.mark.parametrize(("radius", "blur"), [(0.86, 0.03), (3, 0.1), (10, 0.5), (45.5, 2)])
def test_a_disc_has_its_area(radius: float, blur: float) -> None:
    kernel = disc(radius, blur)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert 1 / kernel.max() == pytest.approx(math.pi * radius**2, rel=0.2 if radius < 2 else 0.03)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-7)


def test_a_streak_lies_on_its_line() -> None:
    kernel = streak(20, 6, 30)
    n = len(kernel) // 2
    y, x = np.indices(kernel.shape) - n
    away = x * math.sin(math.radians(30)) + y * math.cos(math.radians(30))
    along = x * math.cos(math.radians(30)) - y * math.sin(math.radians(30))
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(away[kernel > 0]).max() < 1.5
    assert (kernel * along).sum() == pytest.approx(6 * math.sqrt(2 / math.pi), rel=0.05), "mean of half a normal one"


def test_resizing_grades_and_averages() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32), (4, 1))
    assert np.diff(resized(ramp, (4, 32))[0]).min() >= 0
    small = resized(np.stack([ramp, 2 * ramp], -1), (2, 4))
    np.testing.assert_allclose(small[0, :, 1], 2 * small[0, :, 0])
    np.testing.assert_allclose(small[0, 1:3, 0], [2.5, 4.5], atol=0.01)


def test_sampling_is_that_of_a_plain_loop() -> None:
    image, rng = picture(5, 7), np.random.default_rng(2)
    y, x = rng.uniform(0, 4, (6, 6)).astype(np.float32), rng.uniform(0, 6, (6, 6)).astype(np.float32)
    out = sampled(image, y, x)
    for j in range(6):
        for i in range(6):
            top, left = min(int(y[j, i]), 3), min(int(x[j, i]), 5)
            v, u = y[j, i] - top, x[j, i] - left
            corners = image[top : top + 2, left : left + 2]
            weights = np.array([[(1 - v) * (1 - u), (1 - v) * u], [v * (1 - u), v * u]])
            np.testing.assert_allclose(out[j, i], (corners * weights[..., None]).sum((0, 1)), atol=1e-5)
    y, x = np.indices((5, 7), np.float32)
    np.testing.assert_allclose(sampled(image, y - 5, x), image[::-1], atol=1e-5, err_msg="mirrored above")


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_shuffling_is_the_published_loop(reach: int) -> None:
    image = picture(30, 23)
    expected = image.copy()
    rows, columns = range(reach + 1, 30 - reach + 1), range(reach + 1, 23 - reach + 1)
    dy, dx = np.random.default_rng(3).integers(-reach, reach, (2, len(rows), len(columns)))
    for h in reversed(rows):
        for w in reversed(columns):
            v, u = h + dy[h - rows[0], w - columns[0]], w + dx[h - rows[0], w - columns[0]]
            expected[h, w], expected[v, u] = expected[v, u], expected[h, w]
    assert np.array_equal(shuffled(image, reach, np.random.default_rng(3)), expected)
    assert not np.array_equal(expected, image)


def test_of_a_shorter_reach_fewer_pixels_are_copies() -> None:
    image = picture(60, 60)
    shares = [(shuffled(image, reach, np.random.default_rng(0)) != image).mean() for reach in (0.25, 0.5, 1)]
    assert shares == pytest.approx([shares[2] / 4, shares[2] / 2, shares[2]], rel=0.15)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (3, 3)])
def test_of_a_picture_without_room_nothing_is_shuffled_beyond_its_edge(size: tuple[int, int]) -> None:
    assert shuffled(picture(*size), 4, np.random.default_rng(0)).shape == (*size, 3)
