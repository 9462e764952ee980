from fractions import Fraction

import numpy as np
import pytest

from pictura.data.animations import check_size, middles, on_white, within
from pictura.data.source import BadSample


def test_middles() -> None:
    assert middles(4, Fraction(1), Fraction(8)) == [2, 4, 6, 8]
    assert middles(1, Fraction(0), Fraction(1)) == [Fraction(1, 2)]


def test_within() -> None:
    assert within(640, 480, 320) == (320, 240)
    assert within(480, 640, 320) == (240, 320)
    assert within(64, 48, 512) == (64, 48)
    assert within(100, 1, 10) == (10, 1)


def test_on_white_against_a_naive_mixture() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    share = pixels[..., 3:] / 255
    np.testing.assert_allclose(on_white(pixels), pixels[..., :3] * share + 255 * (1 - share), atol=0.51)


def test_sizes() -> None:
    check_size(7680, 4320, "8K")
    with pytest.raises(BadSample, match="10,000 x 10,000 pixels a frame, more than"):
        check_size(10_000, 10_000, "")
    with pytest.raises(BadSample, match="1 x 101 pixels a frame, too long and thin"):
        check_size(1, 101, "")
