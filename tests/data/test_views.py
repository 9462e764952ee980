"""Views: evaluation to the last bit against open_clip, training against torchvision and naive counting."""

from typing import Any, Literal

import numpy as np
import open_clip
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import Normalize

from pictura.config import kinds, load
from pictura.data.views import CropConfig, NoViewConfig, RandomCropConfig, View, ViewConfig, _turn_hue


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    return picture(4, 4).resize((width, height), Image.Resampling.BICUBIC)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def open_clip_pixels(image: Image.Image, size: int, resize: str, interpolation: str) -> torch.Tensor:
    """open_clip's own evaluation transform, without its normalisation, as uint8."""
    transform = open_clip.transform.image_transform(
        size, is_train=False, resize_mode=resize, interpolation=interpolation
    )
    assert isinstance(transform.transforms.pop(), Normalize)
    return (transform(image) * 255).round().to(torch.uint8)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 48),
    st.sampled_from(["shortest", "squash", "longest"]),
    st.sampled_from(["bicubic", "bilinear"]),
)
def test_crop_is_open_clips_to_the_last_bit(
    width: int,
    height: int,
    size: int,
    resize: Literal["shortest", "squash", "longest"],
    interpolation: Literal["bicubic", "bilinear"],
) -> None:
    ratio = max(width, height) / size
    if resize == "longest" and min(round(width / ratio), round(height / ratio)) == 0:
        return  # open_clip cannot do these
    image = picture(width, height)
    ours = CropConfig(image_size=size, resize=resize, interpolation=interpolation).build()(image, rng())
    assert torch.equal(ours, open_clip_pixels(image, size, resize, interpolation))


@pytest.mark.parametrize("size", [(640, 480), (333, 500), (224, 224), (225, 224), (1000, 230)])
def test_crop_at_the_published_size(size: tuple[int, int]) -> None:
    image = smooth(*size)
    ours = CropConfig().build()(image, rng())
    assert torch.equal(ours, open_clip_pixels(image, 224, "shortest", "bicubic"))


def test_a_line_of_pixels_is_no_trouble() -> None:
    out = CropConfig(image_size=8, resize="longest").build()(picture(300, 1), rng())
    assert out.shape == (3, 8, 8)


MODES = {"bicubic": F.InterpolationMode.BICUBIC, "bilinear": F.InterpolationMode.BILINEAR}


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 48),
    st.integers(0, 30),
    st.sampled_from(["shortest", "squash"]),
    st.sampled_from(["bicubic", "bilinear"]),
)
def test_a_crop_share_is_torchvisions_resize_and_center_crop(
    width: int,
    height: int,
    size: int,
    more: int,
    resize: Literal["shortest", "squash"],
    interpolation: Literal["bicubic", "bilinear"],
) -> None:
    """Whatever side torchvision's recipes resize to (232 for 224, say), the share of the two brings back that side."""
    to, image = size + more, picture(width, height)
    side = to if resize == "shortest" else [to, to]
    theirs = T.Compose([T.Resize(side, MODES[interpolation]), T.CenterCrop(size), T.PILToTensor()])
    config = CropConfig(image_size=size, crop=size / to, resize=resize, interpolation=interpolation)
    assert config.resized_to == to
    assert torch.equal(config.build()(image, rng()), theirs(image))


@pytest.mark.parametrize(("image_size", "to"), [(224, 256), (224, 232), (224, 236), (384, 384), (288, 303)])
def test_a_crop_share_at_published_sizes(image_size: int, to: int) -> None:
    theirs = T.Compose([T.Resize(to, MODES["bicubic"]), T.CenterCrop(image_size), T.PILToTensor()])
    for image in (smooth(500, 333), smooth(300, 640)):
        ours = CropConfig(image_size=image_size, crop=image_size / to).build()(image, rng())
        assert torch.equal(ours, theirs(image))


@pytest.mark.parametrize("crop", [0.9, 0.875, 0.95, 0.965, 1.0])
@pytest.mark.parametrize("image_size", [224, 384, 96])
@pytest.mark.parametrize(("resize", "mode"), [("shortest", "center"), ("squash", "squash")])
def test_a_crop_share_is_timms(crop: float, image_size: int, resize: Literal["shortest", "squash"], mode: str) -> None:
    theirs = create_transform(
        image_size, crop_pct=crop, crop_mode=mode, interpolation="bicubic", is_training=False, normalize=False
    )
    ours = CropConfig(image_size=image_size, crop=crop, resize=resize).build()
    for image in (smooth(500, 333), smooth(250, 400)):
        assert torch.equal(ours(image, rng()), theirs(image))


def test_a_crop_share_asks_the_decoder_for_more_pixels() -> None:
    assert CropConfig(image_size=224, crop=0.875).build().at_least == 512


@pytest.mark.parametrize("kind", kinds(ViewConfig))
def test_every_view(kind: str) -> None:
    """Shape, type, memory order, and chance from the generator alone."""
    patches = {"patch_size": 4} if kind == "fit" else {}
    config = load(ViewConfig, {"kind": kind, "image_size": 12} | patches)  # type: ignore[type-abstract]
    view: View = config.build()
    assert view.image_size == 12
    image = picture(12, 12)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    out = view(image, rng(1))
    assert (out.shape, out.dtype) == ((3, 12, 12), torch.uint8)
    assert out.permute(1, 2, 0).is_contiguous()
    assert torch.equal(out, view(image, rng(1)))
    assert torch.equal(out, view(np.asarray(image), rng(1)))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    assert np.array_equal(np.asarray(image), np.asarray(picture(12, 12))), "the picture itself was changed"


def test_no_view_copies_nothing_and_checks_the_size() -> None:
    view = NoViewConfig(image_size=5).build()
    pixels = np.zeros((5, 5, 3), np.uint8)
    out = view(pixels, rng())
    pixels[1, 2, 0] = 9
    assert out[0, 1, 2] == 9
    pixels.flags.writeable = False
    assert view(pixels, rng())[0, 1, 2] == 9
    with pytest.raises(
        ValueError, match=r"view `none` needs pictures of 5 x 5 pixels, this one has 7 x 6; try kind: crop"
    ):
        view(np.zeros((6, 7, 3), np.uint8), rng())
    with pytest.raises(ValueError, match="try kind: crop"):
        view(picture(7, 6), rng())


# random_crop


def test_random_crop_is_torchvisions_of_the_same_rectangle() -> None:
    """Apart from the border, where torchvision's crop hides the neighbours that our filter sees."""
    view = RandomCropConfig(image_size=32, scale=(0.2, 0.5)).build()
    image = smooth(90, 70)
    for seed in range(10):
        left, top, width, height = view._rectangle(90, 70, rng(seed))
        cropped = F.resized_crop(image, top, left, height, width, [32, 32], F.InterpolationMode.BICUBIC)
        ours = view(image, rng(seed)).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(ours - np.asarray(cropped).astype(int))[3:-3, 3:-3].max() <= 1


def test_rectangles_lie_inside_and_keep_their_ranges() -> None:
    view = RandomCropConfig(image_size=8, scale=(0.1, 0.6), ratio=(0.5, 2.0)).build()
    shares, ratios = [], []
    for seed in range(2000):
        left, top, width, height = view._rectangle(100, 80, rng(seed))
        assert 0 <= left <= 100 - width
        assert 0 <= top <= 80 - height
        shares.append(width * height / 8000)
        ratios.append(width / height)
    assert 0.09 < min(shares) < 0.13
    assert 0.55 < max(shares) < 0.63
    assert 0.48 < min(ratios) < 0.6
    assert 1.7 < max(ratios) < 2.1
    assert abs(np.mean(np.log(ratios))) < 0.05, "upright and lying crops must be as likely as each other"


@pytest.mark.parametrize(("width", "height"), [(1000, 10), (10, 1000), (1, 1), (3, 1)])
def test_a_picture_that_no_crop_fits_gives_its_middle(width: int, height: int) -> None:
    view = RandomCropConfig(image_size=8, scale=(1.0, 1.0)).build()
    left, top, w, h = view._rectangle(width, height, rng())
    assert (w, h) == {(1000, 10): (13, 10), (10, 1000): (10, 13), (1, 1): (1, 1), (3, 1): (1, 1)}[width, height]
    assert abs((2 * left + w) - width) <= 1
    assert abs((2 * top + h) - height) <= 1
    assert view(picture(width, height), rng()).shape == (3, 8, 8)


def test_the_whole_of_a_picture_of_the_right_size_is_untouched() -> None:
    view = RandomCropConfig(image_size=16, scale=(1.0, 1.0), ratio=(1.0, 1.0)).build()
    image = picture(16, 16)
    assert np.array_equal(view(image, rng()).permute(1, 2, 0).numpy(), np.asarray(image))


def test_flip_mirrors_half_of_the_pictures() -> None:
    config: dict[str, Any] = {"image_size": 16, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    image = picture(16, 16)
    plain = RandomCropConfig(**config).build()(image, rng())
    view, flipped = RandomCropConfig(**config, flip=True).build(), 0
    for seed in range(400):
        out = view(image, rng(seed))
        assert torch.equal(out, plain) or torch.equal(out, plain.flip(-1))
        flipped += torch.equal(out, plain.flip(-1))
    assert 150 < flipped < 250


def test_grey_has_no_colour_and_its_probability() -> None:
    view, grey = RandomCropConfig(image_size=8, grey=0.25).build(), 0
    for seed in range(400):
        out = view(picture(20, 20), rng(seed))
        grey += torch.equal(out[0], out[1]) and torch.equal(out[1], out[2])
    assert 60 < grey < 140


@pytest.mark.parametrize("what", range(4))
def test_jitter_is_torchvisions_and_keeps_its_range(what: int) -> None:
    strength = (0.4, 0.6, 0.8, 0.1)[what]
    strengths = tuple(strength if place == what else 0.0 for place in range(4))
    view = RandomCropConfig(image_size=8, colour_jitter=strengths).build()  # type: ignore[arg-type]
    adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)[what]
    image = picture(12, 12)
    factors = []
    for seed in range(50):
        random = rng(seed)
        places, chances = random.permutation(4).tolist(), random.random(4).tolist()
        chance = chances[places.index(what)]
        factor = (2 * chance - 1) * strength if what == 3 else 1 - strength + 2 * strength * chance
        ours, theirs = view._jittered(image, rng(seed)), adjust(image, factor)
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
        factors.append(factor)
    middle = 0 if what == 3 else 1
    assert middle - strength <= min(factors) < middle - 0.8 * strength
    assert middle + 0.8 * strength < max(factors) <= middle + strength


def test_jitter_has_its_probability() -> None:
    config: dict[str, Any] = {"image_size": 8, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    image = picture(8, 8)
    view = RandomCropConfig(**config, colour_jitter=(0.5, 0.5, 0.5, 0.2), jitter=0.3).build()
    plain = RandomCropConfig(**config).build()(image, rng())
    changed = sum(not torch.equal(view(image, rng(seed)), plain) for seed in range(400))
    assert 80 < changed < 160


def test_a_whole_turn_of_the_hue_is_none() -> None:
    image = picture(8, 8)
    there = _turn_hue(image, 0.0)
    assert np.abs(np.asarray(there).astype(int) - np.asarray(image).astype(int)).max() <= 8  # what HSV in 8 bits loses
    red = Image.new("RGB", (1, 1), (255, 0, 0))
    assert np.abs(np.asarray(_turn_hue(red, 1 / 3))[0, 0].astype(int) - (0, 255, 0)).max() <= 6


def test_a_decoder_may_not_scale_below_what_the_smallest_crop_needs() -> None:
    view = RandomCropConfig(image_size=224, scale=(0.08, 1.0), ratio=(0.75, 4 / 3)).build()
    assert view.at_least is not None
    for seed in range(300):
        _, _, width, height = view._rectangle(view.at_least, view.at_least, rng(seed))
        assert min(width, height) >= 223
    assert CropConfig(image_size=224).build().at_least == 448


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "crop", "image_size": 0}, "^image_size: 0 is below 1"),
        ({"kind": "crop", "crop": 0.0}, r"^crop: 0\.0 must be above 0 and at most 1"),
        ({"kind": "crop", "crop": 1.5}, r"^crop: 1\.5 must be above 0 and at most 1"),
        ({"kind": "random_crop", "scale": [0.5, 0.2]}, r"^scale: \[0\.5, 0\.2\] is not a range"),
        ({"kind": "random_crop", "scale": [0.0, 1.0]}, r"^scale: \[0\.0, 1\.0\] is not a range"),
        ({"kind": "random_crop", "ratio": [0.0, 1.0]}, "^ratio: "),
        ({"kind": "random_crop", "colour_jitter": [0.1, 0.1, 0.1, 0.6]}, "^colour_jitter: .*hue"),
        ({"kind": "random_crop", "grey": 2.0}, r"^grey: 2\.0 is not a probability"),
    ],
)
def test_mistakes(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(ViewConfig, config)  # type: ignore[type-abstract]
