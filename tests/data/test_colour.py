import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as theirs

from pictura.data.colour import ROOM, brightness_, contrast_, grey, grey_, hue_, saturation_, solarised


def pictures() -> Tensor:
    """Six, with grey, black and white pixels and equal channels among them, where hues have no direction."""
    image = torch.rand(6, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    image[0, :, 0] = 0.0
    image[0, :, 1] = 1.0
    image[1, :, :3] = image[1, :1, :3]
    image[2, 1] = image[2, 0]
    image[3, 2] = image[3, 1]
    return image


def room() -> Tensor:
    """What lies there does not matter."""
    return torch.full((ROOM, 6, 9, 7), torch.nan)


@pytest.mark.parametrize(
    ("ours", "peer", "low", "high"),
    [
        (brightness_, theirs.adjust_brightness, 0.2, 1.8),
        (contrast_, theirs.adjust_contrast, 0.2, 1.8),
        (saturation_, theirs.adjust_saturation, 0.2, 1.8),
        (hue_, theirs.adjust_hue, -0.5, 0.5),
    ],
)
def test_each_picture_changes_as_torchvision_would_change_it_alone(ours, peer, low: float, high: float) -> None:  # type: ignore[no-untyped-def]
    image, factor = pictures(), torch.linspace(low, high, 6)
    expected = torch.stack([peer(one, float(f)) for one, f in zip(image, factor, strict=True)])
    ours(image, factor, room())
    torch.testing.assert_close(image, expected, atol=2e-6, rtol=0)


def test_a_hue_that_goes_round_the_circle_comes_back() -> None:
    image = pictures()
    for _ in range(5):
        hue_(image, torch.full((6,), 0.2), room())
    torch.testing.assert_close(image, pictures(), atol=1e-5, rtol=0)


def test_grey_and_solarise_are_torchvisions() -> None:
    image, expected = pictures(), theirs.rgb_to_grayscale(pictures())
    torch.testing.assert_close(grey(image, room()[0])[:, None], expected)
    grey_(image, room())
    torch.testing.assert_close(image, expected.expand(-1, 3, -1, -1))
    torch.testing.assert_close(solarised(pictures()), theirs.solarize(pictures(), 0.5))
