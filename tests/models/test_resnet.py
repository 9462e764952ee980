import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from pictura.config import load, sized, to_dict
from pictura.models.base import ImageTowerConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.resnet import ResNet, ResNetConfig
from pictura.training.precision import Masters
from pictura.weights.folder import load_folder, save_folder

TINY = ResNetConfig(block="basic", layers=(1, 1, 1, 1), stem="cifar", image_size=16)
DEEP = ResNetConfig(layers=(1, 2, 1, 1), image_size=64)
PEERS = {
    **{size: f"resnet{size}" for size in ("18", "34", "50", "101", "152")},
    **{f"{size}-2": f"wide_resnet{size}_2" for size in ("50", "101")},
    **{size: f"resnext{size.replace('-', '_')}" for size in ("50-32x4d", "101-32x8d", "101-64x4d")},
}


def stirred(config: ResNetConfig) -> ResNet:
    """A model no tensor of which is zero or one throughout, its running statistics neither."""
    torch.manual_seed(0)
    model = config.build()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                tensor.add_(torch.randn_like(tensor), alpha=0.1)
            elif name.endswith("running_var") or tensor.dim() == 1:
                tensor.copy_(0.5 + torch.rand_like(tensor))
    return model.eval()


def close(found: Tensor, expected: Tensor, far: float) -> bool:
    return float((found.detach().float() - expected).norm() / expected.norm()) < far


def test_every_size_has_a_peer() -> None:
    assert PEERS.keys() == ResNetConfig.sizes.keys()


@pytest.mark.parametrize("size", ["18", "50"])
@pytest.mark.parametrize("training", [False, True])
def test_against_torchvision_by_its_own_names(size: str, training: bool) -> None:
    """In float64: our maps lie in memory as [b y x c], so that sums are taken in another order."""
    model, peer = stirred(sized(ResNetConfig, size)).train(training), get_model(PEERS[size]).train(training)
    peer.fc = nn.Identity()
    peer.load_state_dict(model.state_dict())
    image = torch.randn(3, 3, 64, 64).double()
    torch.testing.assert_close(model.double()(image), peer.double()(image))
    found = model.state_dict()
    for name, expected in peer.state_dict().items():
        torch.testing.assert_close(found[name], expected, msg=f"{name}: statistics moved as far")
    assert found["bn1.num_batches_tracked"] == training


@pytest.mark.parametrize(("size", "image_size"), [("50", (65, 47)), ("50-32x4d", (64, 64))])
def test_against_timm_by_the_same_names(size: str, image_size: tuple[int, int]) -> None:
    model = stirred(sized(ResNetConfig, size))
    peer = timm.create_model({"50": "resnet50", "50-32x4d": "resnext50_32x4d"}[size], num_classes=0)
    peer.load_state_dict(model.state_dict())
    image = torch.randn(2, 3, *image_size).double()
    torch.testing.assert_close(model.double()(image), peer.eval().double()(image))


@pytest.mark.parametrize("size", PEERS)
def test_parameters_are_as_many_as_published(size: str) -> None:
    config = load(ImageTowerConfig, {"kind": "resnet", "size": size})
    with torch.device("meta"):
        model, peer = config.build(), get_model(PEERS[size])
    expected = {name: tensor.shape for name, tensor in peer.state_dict().items() if not name.startswith("fc.")}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == expected
    published = next(iter(get_model_weights(PEERS[size]))).meta["num_params"]
    assert sum(p.numel() for p in model.parameters()) + 1000 * (config.features + 1) == published


def test_cifar_has_as_many_as_published() -> None:
    with torch.device("meta"):
        model = replace(sized(ResNetConfig, "18"), stem="cifar", image_size=32).build()
    held = sum(p.numel() for p in model.parameters()) + 10 * (512 + 1)
    assert held == 11_173_962, "as of the ResNet18 of kuangliu/pytorch-cifar"


@pytest.mark.parametrize(
    ("stem", "image_size", "sides"),
    [
        ("imagenet", (224, 224), [(56, 56), (28, 28), (14, 14), (7, 7)]),
        ("imagenet", (65, 97), [(17, 25), (9, 13), (5, 7), (3, 4)]),
        ("cifar", (32, 32), [(32, 32), (16, 16), (8, 8), (4, 4)]),
        ("cifar", (33, 9), [(33, 9), (17, 5), (9, 3), (5, 2)]),
    ],
)
@pytest.mark.parametrize(("block", "features"), [("basic", 512), ("bottleneck", 2048)])
def test_shapes(
    stem: Any, image_size: tuple[int, int], sides: list[tuple[int, int]], block: Any, features: int
) -> None:
    config = ResNetConfig(block=block, layers=(1, 1, 1, 1), stem=stem)
    seen: list[tuple[int, int]] = []
    with torch.device("meta"):
        model = config.build()
        for stage in model.stages:
            stage.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[2:])))
        out = model(torch.empty(2, 3, *image_size))
    assert seen == sides
    assert out.shape == (2, features) == (2, config.features)


@pytest.mark.parametrize("config", [TINY, DEEP], ids=["basic", "bottleneck"])
def test_bf16_is_near_float32(config: ResNetConfig) -> None:
    model, image = stirred(config), torch.randn(4, 3, config.image_size, config.image_size)
    expected, state = model(image).detach(), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert close(model.bfloat16()(image.bfloat16()), expected, 0.02), "all of it, as a folder is loaded in bf16"
    model = config.build()
    model.load_state_dict(state)
    Masters(model, torch.bfloat16)
    assert close(model.eval()(image.bfloat16()), expected, 0.02), "weights alone, as it is trained"


@pytest.mark.parametrize("config", [TINY, DEEP], ids=["basic", "bottleneck"])
def test_training_in_bf16_is_as_exact_as_autocast(config: ResNetConfig) -> None:
    """Which casts every weight again at each use, batch norm's excepted. Small maps are summed in another order."""
    image, direction = torch.randn(4, 3, config.image_size, config.image_size), torch.randn(config.features)
    exact, peer, model = (stirred(config).train() for _ in range(3))
    (exact(image) * direction).square().mean().backward()
    with torch.autocast("cpu", torch.bfloat16):
        out = peer(image)
    (out.float() * direction).square().mean().backward()
    masters = Masters(model, torch.bfloat16)
    (model(image.bfloat16()).float() * direction).square().mean().backward()
    masters.collect()
    right, grads = ({name: p.grad for name, p in of.named_parameters()} for of in (exact, peer))
    assert grads.keys() == dict(masters.trainable()).keys()
    for name, master in masters.trainable():
        wanted, theirs = right[name], grads[name]
        assert master.grad is not None and theirs is not None and wanted is not None and wanted.abs().sum() > 0, name
        off = float((theirs - wanted).norm() / wanted.norm())
        assert off < 1 and close(master.grad, wanted, 1.3 * off + 2e-3), name
    for name, tensor in model.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(
                tensor, peer.state_dict()[name], rtol=2e-2, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("zero_init", [True, False])
@pytest.mark.parametrize("config", [TINY, replace(DEEP, stem="cifar")], ids=["basic", "bottleneck"])
def test_fresh_weights(monkeypatch: pytest.MonkeyPatch, config: ResNetConfig, zero_init: bool) -> None:
    given = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: given(*a, **k).fill_(torch.nan))
    torch.manual_seed(0)
    model = replace(config, zero_init=zero_init).build()
    last = "bn2" if config.block == "basic" else "bn3"
    for name, tensor in model.state_dict().items():
        if name.endswith((".running_mean", ".bias", ".num_batches_tracked")):
            assert not tensor.any(), name
        elif tensor.dim() == 1:
            assert (tensor == (not zero_init or f"{last}.weight" not in name)).all(), name
        else:
            fan_out = tensor.shape[0] * tensor[0, 0].numel()
            assert float(tensor.std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1), name


def test_a_fresh_residual_branch_adds_nothing() -> None:
    torch.manual_seed(0)
    block = DEEP.build().layer2[1]  # type: ignore[index]  # the one that keeps the shape of its map
    x = torch.randn(2, 512, 4, 4).relu()
    assert torch.equal(block(x), x)


def test_a_folder_keeps_the_statistics(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ClassifierConfig(image=TINY, classes=3).build()
    model.image.load_state_dict(stirred(TINY).state_dict())
    assert model.head is not None
    nn.init.normal_(model.head.weight)
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    expected = model.eval().classify(image)
    save_folder(tmp_path / "model", model, None)
    again, _ = load_folder(tmp_path / "model")
    assert torch.equal(again.eval().classify(image), expected)  # type: ignore[operator]
    assert to_dict(again.config) == to_dict(model.config)  # type: ignore[arg-type]


def test_torchvision_is_imported_where_it_is_needed() -> None:
    """It takes a second, and every verb imports all models to know their kinds."""
    code = "import sys, pictura.models.resnet; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("config", "size", "complaint"),
    [
        (TINY, (7, 20), r"^picture of 7 x 20 pixels are too few for stem cifar: it needs 8 x 8 at least$"),
        (DEEP, (64, 31), r"64 x 31 pixels .* stem imagenet: it needs 32 x 32 at least, or stem cifar$"),
        (DEEP, (7, 31), r"7 x 31 pixels .* it needs 32 x 32 at least$"),
    ],
)
def test_pictures_that_are_too_small(config: ResNetConfig, size: tuple[int, int], complaint: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=complaint):
        config.build()(torch.zeros(2, 3, *size))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"layers": [2, 2, 2]}, r"^layers: \[2, 2, 2\] must be 4 numbers above zero, such as \[3, 4, 6, 3\]$"),
        ({"layers": [2, 0, 2, 2]}, r"^layers: \[2, 0, 2, 2\] must be"),
        ({"groups": 0}, "^groups: 0 must be above zero$"),
        ({"width_per_group": 0}, "^width_per_group: 0 must be above zero$"),
        ({"size": "18", "width_per_group": 128}, "^block: basic has .* not 1 and 128; take bottleneck$"),
        ({"image_size": 16}, "^image_size: 16 x 16 pixels are too few .* 32 x 32 at least, or stem cifar$"),
        (
            {"stem": "cifar", "image_size": 4},
            "^image_size: 4 x 4 pixels are too few for stem cifar: .* 8 x 8 at least$",
        ),
        ({"size": "51"}, "^size: no size '51' among 18, 34, 50, "),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(ImageTowerConfig, {"kind": "resnet"} | change)
