import pytest
import torch
from torchvision.transforms.v2 import functional as theirs

from pictura.data import resample as module
from pictura.data.resample import blur_matrix, resample, resize_matrix, resized_crops

IMAGE = torch.rand(5, 3, 20, 24, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[0, 0, 24, 20], [3, 5, 7, 6], [10, 2, 14, 18], [23, 19, 1, 1], [4, 4, 11, 13]])  # left top w h


@pytest.mark.parametrize("size", [4, 11, 16, 30])
def test_a_crop_is_torchvisions_with_antialias(size: int) -> None:
    left, top, width, height = BOXES.unbind(1)
    ours = resample(IMAGE, resize_matrix(top, height, 20, size), resize_matrix(left, width, 24, size))
    for image, (x, y, w, h), found in zip(IMAGE, BOXES.tolist(), ours, strict=True):
        expected = theirs.resized_crop(image, y, x, h, w, [size, size], antialias=True)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("small", [0, 96])
@pytest.mark.parametrize("size", [7, 16, 30])
def test_crops_are_torchvisions_of_bytes_or_of_floats(size: int, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALL", small)
    image = (IMAGE * 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)
    which, flip = torch.tensor([4, 1, 1, 0, 3]), torch.tensor([True, False, True, False, False])
    found = resized_crops(image, which, BOXES, flip, size)
    for i, (x, y, w, h) in enumerate(BOXES.tolist()):
        given = image[which[i]] if small == 0 else image[which[i]].float()
        expected = theirs.resized_crop(given, y, x, h, w, [size, size], antialias=True)
        torch.testing.assert_close(
            found[i].float(), (expected.flip(2) if flip[i] else expected).float(), atol=1e-3, rtol=0
        )


def test_a_mirrored_axis_runs_the_other_way() -> None:
    left, _, width, _ = BOXES.unbind(1)
    plain, flip = resize_matrix(left, width, 24, 8), torch.tensor([True, False, True, False, True])
    mirrored = resize_matrix(left, width, 24, 8, flip)
    torch.testing.assert_close(mirrored[flip], plain[flip].flip(1))
    assert torch.equal(mirrored[~flip], plain[~flip])


def test_a_blur_is_torchvisions() -> None:
    sigma, square = torch.tensor([0.1, 0.5, 1.0, 1.9, 2.0]), IMAGE[..., :20]
    matrix = blur_matrix(sigma, 4, 20)
    ours = resample(square, matrix, matrix)
    for image, s, found in zip(square, sigma.tolist(), ours, strict=True):
        torch.testing.assert_close(found, theirs.gaussian_blur(image, [9, 9], [s, s]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(matrix.sum(2), torch.ones(5, 20))
