"""Parameters and arithmetic of every published ViT and Mixer: what timm counts, and what papers and tables say."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pictura.config import sized
from pictura.models.classifier import Classifier, ClassifierConfig
from pictura.models.mixer import MixerConfig
from pictura.models.vit import ViTConfig
from pictura.weights.folder import empty

VITS = {"Ti/16": "tiny_patch16", "S/32": "small_patch32", "S/16": "small_patch16", "B/32": "base_patch32"}
VITS |= {"B/16": "base_patch16", "L/32": "large_patch32", "L/16": "large_patch16", "H/14": "huge_patch14"}
VITS |= {"R+Ti/16": "tiny_r_s16_p8", "R26+S/32": "small_r26_s32", "R50+B/16": "base_r50_s16"}
VITS |= {"R50+L/32": "large_r50_s32"}
MIXERS = ["S/32", "S/16", "B/32", "B/16", "L/32", "L/16", "H/14"]


def ours(kind: type[ViTConfig | MixerConfig], size: str, **how: Any) -> Classifier:
    """With a head of 1,000 classes."""
    model = empty(ClassifierConfig(image=sized(kind, size, **how), classes=1000))
    assert isinstance(model, Classifier)
    return model


def timm_vit(size: str, **how: Any) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = timm.create_model(f"vit_{VITS[size]}_224", num_classes=1000, **how)
    return model


def timm_mixer(size: str, **how: Any) -> nn.Module:
    with torch.device("meta"):
        if size == "H/14":  # timm has its parts, but no name for it
            return timm.models.MlpMixer(**{"patch_size": 14, "num_blocks": 32, "embed_dim": 1280} | how)
        model: nn.Module = timm.create_model(f"mixer_{size.lower().replace('/', '')}_224", **how)
    return model


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def flops(model: nn.Module, forward: Callable[[Tensor], Tensor]) -> int:
    """Of one picture of 224 x 224; multiply and add count as two."""
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(torch.empty(1, 3, 224, 224, device="meta"))
    return int(counter.get_total_flops())


@pytest.mark.parametrize("size", VITS)
def test_a_vit_has_every_parameter_of_timms(size: str) -> None:
    """By name and shape; the tower under `image.`, the head of 1,000 classes beside it."""
    found = {name.removeprefix("image."): p.shape for name, p in ours(ViTConfig, size).state_dict().items()}
    assert found == {name: p.shape for name, p in timm_vit(size).state_dict().items()}


# In millions, with 1,000 classes: `param_count` of timm's results/results-imagenet.csv, which lists these resolutions.
LISTED = {("Ti/16", 224): 5.72, ("Ti/16", 384): 5.79, ("S/32", 224): 22.88, ("S/32", 384): 22.92}
LISTED |= {("S/16", 224): 22.05, ("S/16", 384): 22.20, ("B/32", 224): 88.22, ("B/32", 384): 88.30}
LISTED |= {("B/16", 224): 86.57, ("B/16", 384): 86.86, ("L/32", 384): 306.63, ("L/16", 224): 304.33}
LISTED |= {("L/16", 384): 304.72, ("R+Ti/16", 224): 6.34, ("R+Ti/16", 384): 6.36, ("R26+S/32", 224): 36.43}
LISTED |= {("R26+S/32", 384): 36.47, ("R50+B/16", 384): 98.95, ("R50+L/32", 224): 328.99, ("R50+L/32", 384): 329.09}


@pytest.mark.parametrize(("size", "image_size"), LISTED)
def test_a_vit_has_as_many_parameters_as_listed(size: str, image_size: int) -> None:
    assert round(parameters(ours(ViTConfig, size, image_size=image_size)) / 1e6, 2) == LISTED[size, image_size]


@pytest.mark.parametrize(("size", "millions"), [("B/16", 86), ("L/16", 307), ("H/14", 632)])
def test_the_rounded_numbers_of_the_paper(size: str, millions: int) -> None:
    """Table 1 of Dosovitskiy et al. 2021, which names neither patches nor head: so within 1 %."""
    assert parameters(ours(ViTConfig, size)) == pytest.approx(1e6 * millions, rel=0.01)


# Without a head: the published designs (table 1 of Tolstikhin et al. 2021), counted.
@pytest.mark.parametrize(
    ("size", "millions"), list(zip(MIXERS, (18.6, 18.0, 59.5, 59.1, 205.9, 207.2, 431.1), strict=True))
)
def test_a_mixer_has_as_many_parameters_as_timms(size: str, millions: float) -> None:
    headless = parameters(empty(ClassifierConfig(image=sized(MixerConfig, size))))
    assert round(headless / 1e6, 1) == millions
    assert headless == parameters(timm_mixer(size, num_classes=0))


def saved(config: ViTConfig) -> int:
    """Arithmetic of the last block's rows of which nothing is read: all but the class token's."""
    d, tokens = config.width, (224 // config.patch_size) ** 2 + 1
    query, keys, values, proj, mlp = d * d, tokens * d, tokens * d, d * d, 2 * 4 * d * d
    return 2 * (tokens - 1) * (query + keys + values + proj + mlp)


@pytest.mark.parametrize("size", VITS)
def test_a_vit_computes_what_timms_does_but_for_rows_that_nobody_reads(size: str) -> None:
    """In two blocks of it: all but the last are alike."""
    model, peer = ours(ViTConfig, size, depth=2), timm_vit(size, depth=2)
    assert flops(model, model.classify) + saved(sized(ViTConfig, size)) == flops(peer, peer)


def test_a_vit_that_averages_computes_all_rows() -> None:
    model = ours(ViTConfig, "S/16", pool="average", depth=2)
    peer = timm_vit("S/16", class_token=False, global_pool="avg", fc_norm=False, depth=2)
    assert flops(model, model.classify) == flops(peer, peer)


@pytest.mark.parametrize("size", MIXERS)
def test_a_mixer_computes_what_timms_does(size: str) -> None:
    """In two blocks of it: all are alike."""
    model, peer = ours(MixerConfig, size, depth=2), timm_mixer(size, num_classes=1000)
    peer.blocks = peer.blocks[:2]
    assert flops(model, model.classify) == flops(peer, peer)


@pytest.mark.parametrize(("size", "giga"), [("B/16", 35.1), ("S/16", 9.2), ("Ti/16", 2.5), ("R+Ti/16", 0.9)])
def test_arithmetic_of_a_vit_as_published(size: str, giga: float) -> None:
    """Twice the multiplications that timm lists (17.58, 4.61, 1.26, 0.44 billion), to the digits that they share."""
    model = ours(ViTConfig, size)
    assert round((flops(model, model.classify) + saved(sized(ViTConfig, size))) / 1e9, 1) == giga


@pytest.mark.parametrize(("size", "giga"), [("B/16", 12.62), ("S/16", 3.79), ("B/32", 3.24)])
def test_arithmetic_of_a_mixer_as_published(size: str, giga: float) -> None:
    """Twice `infer_gmacs` of timm's results/benchmark-infer-amp-nchw-pt113-cu117-rtx3090.csv, which counts a little
    beside the matrix products."""
    model = ours(MixerConfig, size)
    assert flops(model, model.classify) == pytest.approx(2e9 * giga, rel=0.005)
