import numpy as np
import pytest
import torch
from PIL import Image

from pictura.data.augment import VILT, rand_augment


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))


def test_it_is_torchvision_s_and_a_function_of_the_generator() -> None:
    from torchvision.transforms import v2

    rng = np.random.default_rng(5)
    found = rand_augment(picture(), 2, 10, rng)
    torch.manual_seed(int(np.random.default_rng(5).integers(2**63)))
    assert np.array_equal(found, v2.RandAugment(2, 30)(picture()))
    assert np.array_equal(found, rand_augment(picture(), 2, 10, np.random.default_rng(5)))
    others = [np.asarray(rand_augment(picture(), 2, 10, np.random.default_rng(seed))) for seed in range(8)]
    assert len({other.tobytes() for other in others}) > 4


def test_the_random_state_of_training_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    rand_augment(picture(), 2, 5, np.random.default_rng(0))
    assert torch.equal(torch.rand(3), expected)


def test_no_distortions_change_nothing() -> None:
    assert np.array_equal(rand_augment(picture(), 0, 10, np.random.default_rng(0)), np.asarray(picture()))


def test_a_random_crop_distorts_when_asked() -> None:
    from pictura.data.views import RandomCropConfig

    plain, distorted = (RandomCropConfig(image_size=24, rand_augment=rand).build() for rand in (None, (2, 10)))
    seeds = [np.random.default_rng(seed) for seed in range(6)]
    pairs = [(plain(picture(), rng), distorted(picture(), np.random.default_rng(i))) for i, rng in enumerate(seeds)]
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert all(a.shape == b.shape and b.dtype == torch.uint8 for a, b in pairs)


@pytest.mark.parametrize("wrong", [(2, 11), (-1, 5), (2, -1)])
def test_strengths_end_at_ten(wrong: tuple[int, float]) -> None:
    from pictura.data.views import RandomCropConfig

    with pytest.raises(ValueError, match="rand_augment: "):
        RandomCropConfig(rand_augment=wrong)


# ViLT's list


class Given(np.random.Generator):
    """Draws op `which`, and `sign` for its side."""

    def __init__(self, which: int, chance: float) -> None:
        super().__init__(np.random.Philox(0))
        self.which, self.chance = which, chance

    def integers(self, *_: object, **__: object) -> int:  # type: ignore[override]
        return self.which

    def random(self, *_: object, **__: object) -> float:  # type: ignore[override]
        return self.chance


def moved(pixels: np.ndarray, place: object) -> np.ndarray:
    """`place(x, y)` -> where each pixel comes from, in pixels with whole numbers at their left upper corners."""
    out = np.zeros_like(pixels)
    for y in range(len(pixels)):
        for x in range(len(pixels[0])):
            from_x, from_y = place(x + 0.5, y + 0.5)  # type: ignore[operator]
            if 0 <= from_x < len(pixels[0]) and 0 <= from_y < len(pixels):
                out[y, x] = pixels[int(from_y), int(from_x)]
    return out


def mixed(pixels: np.ndarray, other: np.ndarray | float) -> np.ndarray:
    """0.64 of the picture, the rest of another: what a factor of 0.1 + 0.3 x 1.8 means."""
    return np.clip(0.64 * pixels + 0.36 * other, 0, 255)


def grey(pixels: np.ndarray) -> np.ndarray:
    return (pixels @ np.array([0.299, 0.587, 0.114])).round()


def solarised(pixels: np.ndarray, level: float) -> np.ndarray:
    return np.where(pixels < level, pixels, 255 - pixels)


def stretched(pixels: np.ndarray) -> np.ndarray:
    low, high = pixels.min((0, 1)), pixels.max((0, 1))
    return (pixels - low) * (255 / (high - low))


def blurred(pixels: np.ndarray) -> np.ndarray:
    """PIL's smoothing: the middle counts 5, its eight neighbours 1 each; the border stays."""
    out = pixels.copy()
    for y in range(1, len(pixels) - 1):
        for x in range(1, len(pixels[0]) - 1):
            out[y, x] = (pixels[y - 1 : y + 2, x - 1 : x + 2].sum((0, 1)) + 4 * pixels[y, x]) / 13
    return out


NAIVE = {  # by position, at strength 9 of 30 as the code has them, and the difference that rounding may make
    0: (stretched, 1),
    3: (lambda p: np.where(p < 128, 0, 128), 0),  # one bit
    4: (lambda p: solarised(p, 76.8), 0),
    5: (lambda p: solarised(np.minimum(p + 33, 255), 128), 0),
    6: (lambda p: mixed(p, grey(p)[..., None]), 1),
    7: (lambda p: mixed(p, int(grey(p).mean() + 0.5)), 1),
    8: (lambda p: mixed(p, 0.0), 1),
    9: (lambda p: mixed(p, blurred(p)), 2),
    10: (lambda p: moved(p, lambda x, y: (x + 0.09 * y, y)), 0),
    11: (lambda p: moved(p, lambda x, y: (x, y + 0.09 * x)), 0),
    12: (lambda p: moved(p, lambda x, y: (x + 0.0625 * 20, y)), 0),
    13: (lambda p: moved(p, lambda x, y: (x, y + 0.0625 * 20)), 0),
}


@pytest.mark.parametrize("which", NAIVE)
def test_an_op_of_vilt_s_is_the_naive_one(which: int) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(20, 250, (20, 30, 3), dtype=np.uint8))
    ours = np.asarray(rand_augment(image, 1, 3.0, Given(which, 0.9), VILT)).astype(int)
    naive, off = NAIVE[which]
    assert np.abs(ours - naive(np.asarray(image).astype(float))).max() <= off  # type: ignore[no-untyped-call]


def test_vilt_s_ops_turn_and_equalise() -> None:
    image = Image.fromarray((250 * np.random.default_rng(1).random((60, 100, 3)) ** 2).astype(np.uint8))  # mostly dark
    equal = np.asarray(rand_augment(image, 1, 3.0, Given(1, 0.9), VILT))
    assert np.abs(np.sort(equal[..., 0].ravel()) - np.linspace(0, 255, 6000)).max() < 25
    assert np.array_equal(rand_augment(image, 1, 3.0, Given(2, 0.9), VILT), image.rotate(9))


def test_the_ops_with_a_side_take_either() -> None:
    image = picture()
    for which, op in enumerate(VILT):
        one, other = (np.asarray(rand_augment(image, 1, 3.0, Given(which, chance), VILT)) for chance in (0.1, 0.9))
        assert np.array_equal(one, other) != op.signed, which
    assert sum(op.signed for op in VILT) == 5


def test_vilt_s_list_has_no_inversion_and_no_mirror_and_draws_each_of_its_ops() -> None:
    image = picture()
    pixels = np.asarray(image)
    alone = [np.asarray(rand_augment(image, 1, 3.0, np.random.default_rng(seed), VILT)) for seed in range(300)]
    assert len({out.tobytes() for out in alone}) == 14 + 5
    for wrong in (255 - pixels, pixels[:, ::-1], pixels[::-1]):
        assert not any(np.array_equal(out, wrong) for out in alone)


def test_several_of_vilt_s_ops_follow_each_other() -> None:
    rng, image = np.random.default_rng(4), picture()
    for _ in range(3):
        image = rand_augment(image, 1, 5.0, rng, VILT)
    assert np.array_equal(image, rand_augment(picture(), 3, 5.0, np.random.default_rng(4), VILT))
