import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as theirs

from pictura.config import load
from pictura.data import batch_views
from pictura.data.batch_views import USED, BatchViewConfig, Chances, SimCLRViewConfig
from pictura.data.fused_views import FusedSimCLRViewConfig
from pictura.data.randomness import uniforms
from pictura.data.resample import SMALL
from pictura.data.views import RandomCropConfig

EVERYTHING = SimCLRViewConfig(image_size=24, solarise=0.3)


def pictures(n: int, height: int = 40, width: int = 32) -> Tensor:
    """Smooth ones, in memory [b y x c] as a loader gives them."""
    coarse = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 255
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return fine.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def one_by_one(image: Tensor, chances: Chances, side: int) -> Tensor:
    """torchvision's functions on each picture alone, in the order of its chances."""
    adjust = (theirs.adjust_brightness, theirs.adjust_contrast, theirs.adjust_saturation, theirs.adjust_hue)
    out = []
    for i in range(len(chances.flip)):
        left, top, width, height = chances.box[i].tolist()
        given = image[i % len(image)].to(torch.uint8 if side > SMALL else torch.float32)
        crop = theirs.resized_crop(given, top, left, height, width, [side, side], antialias=True)
        x = (theirs.horizontal_flip(crop) if chances.flip[i] else crop).float() / 255
        for what in chances.order[i].tolist() if chances.jitter[i] else ():
            x = adjust[what](x, float(chances.factor[i, what]))
        x = theirs.rgb_to_grayscale(x, 3) if chances.grey[i] else x
        if chances.sigma[i] > 0:
            taps = 2 * (side // 20) + 1
            x = theirs.gaussian_blur(x, [taps, taps], [float(chances.sigma[i])] * 2)
        out.append(theirs.solarize(x, 0.5) if chances.solarise[i] else x)
    return torch.stack(out)


def test_every_view_is_what_torchvision_makes_of_its_picture_alone() -> None:
    n = 60
    chances = EVERYTHING.chances(uniforms(range(n), USED), 40, 32)
    for some in (chances.jitter, chances.grey, chances.flip, chances.sigma > 0, chances.solarise):
        assert 0 < some.sum() < n
    for config, size in ((EVERYTHING, (40, 32)), (replace(EVERYTHING, image_size=120), (160, 128))):
        image, chances = pictures(30, *size), config.chances(uniforms(range(n), USED), *size)
        off = (config.build().apply(image, chances) - one_by_one(image, chances, config.image_size)).abs()
        assert (off > 1e-4).float().mean() < 1e-4, "but at the threshold of the inversion, where little decides"


def test_a_seed_gives_the_same_views_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    image, view = pictures(8), EVERYTHING.build()
    both = view(image, range(8), 2).unflatten(0, (2, 8))
    assert not torch.equal(both[0], both[1])
    torch.testing.assert_close(view(image[3:5], [3, 4], 2).unflatten(0, (2, 2)), both[:, 3:5], atol=1e-6, rtol=0)
    torch.testing.assert_close(view(image, range(8)), both[0], atol=1e-6, rtol=0)
    monkeypatch.setattr(batch_views, "IN_CACHE", 1)
    torch.testing.assert_close(view(image, range(8)), both[0], atol=1e-6, rtol=0)


def test_chances_have_the_papers_distribution() -> None:
    n = 20_000
    chances = SimCLRViewConfig(solarise=0.2).chances(uniforms(range(n), USED), 64, 48)
    for found, expected in (
        (chances.flip, 0.5),
        (chances.jitter, 0.8),
        (chances.grey, 0.2),
        (chances.sigma > 0, 0.5),
        (chances.solarise, 0.2),
    ):
        assert abs(found.float().mean() - expected) < 4 * math.sqrt(0.25 / n)
    assert chances.factor[:, :3].min() >= 0.2 and chances.factor[:, :3].max() <= 1.8
    torch.testing.assert_close(chances.factor.mean(0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(chances.factor.std(0), torch.tensor([1.6, 1.6, 1.6, 0.4]) / 12**0.5, atol=0.01, rtol=0)
    sigma = chances.sigma[chances.sigma > 0]
    assert sigma.min() >= 0.1 and sigma.max() <= 2.0 and abs(sigma.mean() - 1.05) < 0.03
    orders = (chances.order * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(orders) == 24 and orders.min() > n / 24 * 0.85 and orders.max() < n / 24 * 1.15
    numbers = torch.stack([chances.flip.float(), chances.jitter.float(), chances.factor[:, 0], chances.sigma])
    off = torch.corrcoef(numbers).fill_diagonal_(0)
    assert off.abs().max() < 0.04, "they do not hang together"


def test_rectangles_are_distributed_as_those_of_the_view_for_one_picture() -> None:
    config, n = SimCLRViewConfig(), 4000
    ours = config.chances(uniforms(range(n), USED), 48, 64).box.float()
    left, top, width, height = ours.unbind(1)
    assert left.min() >= 0 and top.min() >= 0 and (left + width).max() <= 64 and (top + height).max() <= 48
    alone = RandomCropConfig(scale=config.scale, ratio=config.ratio).build()
    random = np.random.default_rng(0)
    theirs = torch.tensor([alone._rectangle(64, 48, random) for _ in range(n)]).float()
    for found, expected in zip(ours.T, theirs.T, strict=True):
        spread = expected.std()
        assert abs(found.mean() - expected.mean()) < 5 * spread * (2 / n) ** 0.5
        assert abs(found.std() / spread - 1) < 0.06


def test_views_have_the_moments_of_those_of_the_view_for_one_picture() -> None:
    """PIL rounds to whole numbers after each step, and its contrast and hue are a little different; otherwise equal."""
    image, n = pictures(40, 32, 32), 1600
    seeds = range(n)
    config = SimCLRViewConfig(blur=0.0, strength=0.5)
    ours = config.build()(image[torch.arange(n) % 40], seeds)
    alone = RandomCropConfig(
        image_size=32,
        scale=(0.08, 1.0),
        interpolation="bilinear",
        flip=True,
        colour_jitter=(0.4, 0.4, 0.4, 0.1),
        grey=0.2,
    ).build()
    random = np.random.default_rng(0)
    pil = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in image]
    peer = torch.stack([alone(pil[i % 40], random) for i in seeds]).float() / 255
    for moment in (lambda x: x.mean((0, 2, 3)), lambda x: x.std((0, 2, 3)), lambda x: x.mean((2, 3)).std(0)):
        torch.testing.assert_close(moment(ours), moment(peer), atol=0.015, rtol=0.04)


def test_the_fused_form_is_near_the_exact_one() -> None:
    image = pictures(64, 48, 48)
    exact, fused = (
        config.build()(image, range(64)).float() for config in (SimCLRViewConfig(), FusedSimCLRViewConfig())
    )
    assert fused.min() >= 0 and fused.max() <= 1
    assert (exact - fused).abs().mean() < 0.06
    torch.testing.assert_close(fused.mean((0, 2, 3)), exact.mean((0, 2, 3)), atol=0.04, rtol=0)
    plain = {"strength": 0.0, "grey": 0.0}
    exact, fused = (
        config.build()(image, range(64)).float()
        for config in (SimCLRViewConfig(**plain), FusedSimCLRViewConfig(**plain))
    )
    torch.testing.assert_close(fused, exact, atol=0.016, rtol=0)  # without colours it is the same but for bf16


@pytest.mark.parametrize("what", range(3))
def test_one_fused_change_of_colour_is_exact_where_nothing_is_cut_off(what: int) -> None:
    image = (pictures(12, 24, 24).float() / 4 + 80).to(torch.uint8)
    config = FusedSimCLRViewConfig(blur=0.0, grey=0.0, jitter=1.0)
    chances = config.chances(uniforms(range(12), USED), 24, 24)
    factor = torch.ones(12, 4)
    factor[:, 3] = 0
    factor[:, what] = torch.linspace(0.7, 1.3, 12)
    chances = replace(chances, factor=factor)
    exact = SimCLRViewConfig(blur=0.0, grey=0.0).build().apply(image, chances)
    torch.testing.assert_close(config.build().apply(image, chances).float(), exact, atol=0.012, rtol=0)


def test_a_square_of_uniforms_looks_random() -> None:
    u = uniforms(range(2000), 50)
    assert u.min() >= 0 and u.max() < 1 and u.dtype == torch.float32
    assert abs(u.mean() - 0.5) < 0.004 and abs(u.std() - 12**-0.5) < 0.003
    for x in (u, u.T):
        assert torch.corrcoef(x[:50]).fill_diagonal_(0).abs().max() < (0.12 if x is u.T else 0.65)
    assert torch.equal(uniforms([7], 3), uniforms([7], 9)[:, :3])
    assert torch.equal(uniforms([5, 2**62 + 1], 4)[1:], uniforms([2**62 + 1], 4))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": [0.0, 1.0]}, r"scale: \[0.0, 1.0\] is not a range of shares of the picture; try \[0.08, 1\]"),
        ({"ratio": [2.0, 1.0]}, r"ratio: .* is not a range"),
        ({"strength": 3.0}, r"strength: 3.0 must be at least 0 and at most 2.5"),
        ({"grey": 1.2}, r"grey: 1.2 is not a probability"),
        ({"sigma": [0.0, 1.0]}, r"sigma: .* is not a range of pixels"),
        ({"image_size": 0}, r"image_size: 0 is below 1"),
    ],
)
def test_a_wrong_number_is_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(BatchViewConfig, {"kind": "simclr"} | wrong)


def test_views_larger_than_the_pictures_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"image_size: views of 64 pixels are cut out of pictures of 32; pictures must have 64"
    ):
        SimCLRViewConfig(image_size=64).build()(pictures(2), [0, 1])


def test_the_variant_for_small_pictures() -> None:
    config = load(BatchViewConfig, {"kind": "simclr", "size": "cifar"})
    assert (config.strength, config.blur, config.grey) == (0.5, 0.0, 0.2)
