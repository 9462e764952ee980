"""The view that keeps the aspect ratio: to the last bit Hugging Face's, and sound where theirs fails."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViltImageProcessorPil

from pictura.config import load
from pictura.data.decode import decode
from pictura.data.fit import FitConfig
from pictura.data.source import BadSample
from pictura.data.views import ViewConfig
from tests.data.files import encoded, photo

COCO = [(640, 480), (480, 640), (640, 427), (426, 640), (500, 375), (612, 612)]
ODD = [(30, 20), (384, 384), (385, 384), (1000, 53), (53, 1000), (1280, 960), (97, 31), (383, 640), (2000, 1201)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(rng().integers(0, 256, (height, width, 3), dtype=np.uint8))


def theirs(image: Image.Image, size: int = 384, patch: int = 32) -> torch.Tensor:
    """Hugging Face's pixels, before they are scaled and padded."""
    processor = ViltImageProcessorPil(size={"shortest_edge": size}, size_divisor=patch)
    (pixels,) = processor(image, do_rescale=False, do_normalize=False, do_pad=False)["pixel_values"]
    return torch.from_numpy(np.asarray(pixels))


@pytest.mark.parametrize("size", COCO + ODD)
def test_it_is_hugging_face_s_to_the_last_bit(size: tuple[int, int]) -> None:
    image = noise(*size)
    ours = FitConfig().build()(image, rng())
    assert ours.dtype == torch.uint8
    assert ours.permute(1, 2, 0).is_contiguous()
    assert torch.equal(ours, theirs(image).to(torch.uint8))


def test_so_are_the_sizes_of_pictures_of_any_shape() -> None:
    """Small ones, so that many can be tried; where Hugging Face's have no pixels, ours have one patch."""
    config = FitConfig(image_size=24, patch_size=4)
    refused = 0
    for seed in range(60):
        width, height = rng(seed).integers(1, 120, 2).tolist()
        across, down = config.fitted(width, height)
        try:
            expected = theirs(noise(width, height), 24, 4).shape
        except ValueError:
            refused += 1
            assert min(across, down) == 4
        else:
            assert (3, down, across) == expected
    assert refused


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000), (1, 1), (100, 1), (400, 8)])
def test_a_picture_of_any_shape_has_at_least_one_patch_each_way(size: tuple[int, int]) -> None:
    out = FitConfig().build()(noise(*size), rng())
    y, x = out.shape[1:]
    assert y % 32 == x % 32 == 0
    assert 32 <= y <= 639 and 32 <= x <= 639
    longest = 384 if size == (1, 1) else 608
    assert max(x, y) == longest
    assert (x > y) == (size[0] > size[1])


def test_a_file_one_pixel_high_is_seen_or_refused_by_name() -> None:
    view = FitConfig(image_size=64).build()
    assert view(decode(encoded(photo((90, 1))), at_least=view.at_least, key="line.png"), rng()).shape == (3, 32, 96)
    with pytest.raises(BadSample, match=r"line\.png: "):
        decode(encoded(photo((2000, 1))), at_least=view.at_least, key="line.png")


def test_the_papers_limit_is_one_patch_wider_than_the_codes() -> None:
    assert FitConfig().fitted(900, 500) == (608, 352)
    assert FitConfig(longest=640).fitted(900, 500) == (640, 352)
    assert FitConfig(longest=384).fitted(900, 500) == (384, 192)


def test_a_decoder_leaves_enough_pixels() -> None:
    """A JPEG scaled down while it is decoded still gives as many as come out, and nearly the same picture."""
    view = FitConfig(image_size=64, patch_size=16).build()
    for size in [(1000, 700), (300, 2900), (513, 512)]:
        file = encoded(photo(size), "JPEG", quality=95)
        whole, drafted = decode(file), decode(file, at_least=view.at_least)
        out = view(drafted, rng())
        assert drafted.width < whole.width
        assert drafted.width >= 2 * out.shape[2] and drafted.height >= 2 * out.shape[1]
        assert (out.int() - view(whole, rng()).int()).abs().max() <= 6


def test_the_same_picture_always_unless_distorted() -> None:
    image = noise(60, 40)
    generator = rng()
    plain = FitConfig(image_size=64).build()
    assert torch.equal(plain(image, generator), plain(image, rng(7)))
    assert generator.random() == rng().random(), "it drew from the generator"
    distorting = FitConfig(image_size=64, rand_augment=(2, 9)).build()
    outs = [distorting(image, rng(seed)) for seed in range(12)]
    assert {out.shape for out in outs} == {(3, 64, 96)}
    assert torch.equal(outs[5], distorting(image, rng(5)))
    assert len({out.numpy().tobytes() for out in outs}) > 8


def test_strength_thirty_is_the_strongest() -> None:
    """Nine of thirty is what ViLT's code does with M = 9: its bits, thresholds and factors."""
    from pictura.data.augment import VILT, rand_augment

    image = noise(64, 64)
    view = FitConfig(image_size=64, rand_augment=(2, 9)).build()
    for seed in range(10):
        expected = rand_augment(image, 2, 3.0, rng(seed), VILT)
        assert np.array_equal(view(image, rng(seed)).permute(1, 2, 0).numpy(), np.asarray(expected))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"patch_size": 0}, "^patch_size: 0 is below 1"),
        ({"image_size": 12}, "^image_size: 12 holds no patch; patch_size is 32"),
        ({"longest": 300}, "^longest: 300 is below image_size, the shorter side: 384"),
        ({"rand_augment": [2, 31]}, r"^rand_augment: \[2, 31.*\] is no number and strength 0 to 30; try \[2, 9\]"),
        ({"rand_augment": [-1, 9]}, "^rand_augment: "),
    ],
)
def test_mistakes(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(ViewConfig, {"kind": "fit"} | config)  # type: ignore[type-abstract]
