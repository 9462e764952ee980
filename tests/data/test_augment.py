import numpy as np
import pytest
import torch
from PIL import Image

from pictura.data.augment import rand_augment


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
