from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import resnet as their_resnet
from torchvision.models.vision_transformer import ConvStemConfig as TheirStem
from torchvision.models.vision_transformer import VisionTransformer

from pictura.layers.stems import ConvStemConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.mixer import MixerConfig
from pictura.models.resnet import ResNetConfig
from pictura.models.vit import ViTConfig
from pictura.weights.family import families
from pictura.weights.folder import empty
from pictura.weights.torchvision import Torchvision
from tests.weights.classifier_peers import found, loaded, ours, pictures, read, read_again, read_alike, shapes, stirred
from tests.weights.peers import alike, identical, undrawn

FAMILY = Torchvision()
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bilinear", "crop": 0.875}
SHAPE: dict[str, Any] = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 128}
TOWER = ViTConfig(image_size=32, patch_size=8, depth=2, heads=2, width=128, mlp_ratio=1.5)
SMALL = {"layers": (1, 2, 1, 1), "image_size": 64}


def vit(**changes: Any) -> nn.Module:
    return stirred(VisionTransformer(**SHAPE | {"mlp_dim": 192, "num_classes": 5} | changes))


def resnet(block: str = "Bottleneck", **changes: Any) -> nn.Module:
    block_type = getattr(their_resnet, block)
    return stirred(their_resnet.ResNet(block_type, **{"layers": [1, 2, 1, 1], "num_classes": 5} | changes))


@pytest.mark.parametrize("units", [None, 24])
def test_a_vit_is_read(units: int | None) -> None:
    peer = vit(representation_size=units)
    config = read_alike(FAMILY, found(peer.state_dict()), peer)
    assert config == ClassifierConfig(image=TOWER, classes=5, pre_logits=units, **IMAGENET)


@pytest.mark.parametrize(
    ("block", "changes", "expected"),
    [
        ("BasicBlock", {}, {"block": "basic"}),
        ("Bottleneck", {}, {}),
        ("Bottleneck", {"width_per_group": 128}, {"width_per_group": 128}),
        ("Bottleneck", {"groups": 32, "width_per_group": 4}, {"groups": 32, "width_per_group": 4}),
    ],
)
def test_a_resnet_is_read(block: str, changes: dict[str, Any], expected: dict[str, Any]) -> None:
    peer = resnet(block, **changes)
    config = read_alike(FAMILY, found(peer.state_dict()), peer)
    tower = ResNetConfig(layers=(1, 2, 1, 1), **expected)
    assert config == ClassifierConfig(image=tower, classes=5, **IMAGENET)


@torch.inference_mode()
@pytest.mark.parametrize("units", [None, 24])
def test_torchvision_takes_our_vit(units: int | None) -> None:
    """With more heads than the width says, which the arguments beside it tell."""
    config = ClassifierConfig(
        image=replace(TOWER, heads=4),
        classes=3,
        class_names=("cat", "dog", "owl"),
        pre_logits=units,
        crop=0.5,
        resize="squash",
    )
    model = ours(config)
    written = FAMILY.write(config, model.state_dict())
    peer = VisionTransformer(**written.beside["torchvision.json"]["model"]).eval()
    peer.load_state_dict(written.state)
    alike(peer(pictures(32)), model.classify(pictures(32)))
    read_again(FAMILY, config, model.state_dict())


@torch.inference_mode()
@pytest.mark.parametrize(
    "tower",
    [
        ResNetConfig(block="basic", **SMALL),
        ResNetConfig(**SMALL),
        ResNetConfig(groups=32, width_per_group=4, **SMALL),
    ],
)
def test_torchvision_takes_our_resnet(tower: ResNetConfig) -> None:
    config = ClassifierConfig(image=tower, classes=3, crop=0.5)
    model = ours(config)
    written = FAMILY.write(config, model.state_dict())
    arguments = dict(written.beside["torchvision.json"]["model"])
    peer = their_resnet.ResNet(getattr(their_resnet, arguments.pop("block")), **arguments).eval()
    peer.load_state_dict(written.state)
    alike(peer(pictures(64)), model.classify(pictures(64)))
    read_again(FAMILY, config, model.state_dict())


def test_every_model_of_theirs_is_known_or_not() -> None:
    """Of torchvision's own classifiers, what we take has the parameters that theirs has."""
    taken = set()
    for name in torchvision.models.list_models(module=torchvision.models, include=["*res*", "vit*", "vgg11", "swin_t"]):
        with torch.device("meta"), undrawn():
            state = torchvision.models.get_model(name).state_dict()
        if FAMILY.knows(found(state)):
            config, tensors = FAMILY.read(found(state))
            assert shapes(empty(config).state_dict()) == shapes(tensors), name
            taken.add(name)
    assert taken == {
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"),
        *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
        *("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"),
    }


def test_names_of_before_torchvision_013() -> None:
    peer = vit()
    state = {
        name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): t
        for name, t in peer.state_dict().items()
    }
    assert "encoder.layers.encoder_layer_1.mlp.linear_2.bias" in state
    config, tensors = read(FAMILY, found(state))
    identical(FAMILY.write(config, tensors).state, peer.state_dict())


@torch.inference_mode()
def test_files_without_counters_of_batches() -> None:
    peer = resnet("BasicBlock")
    state = {name: t for name, t in peer.state_dict().items() if not name.endswith("num_batches_tracked")}
    config, tensors = read(FAMILY, found(state))
    alike(loaded(config, tensors).classify(pictures(64)), peer(pictures(64)))
    assert tensors["image.layer2.0.downsample.1.num_batches_tracked"].dtype == torch.int64
    peer.load_state_dict(FAMILY.write(config, tensors).state)


@torch.inference_mode()
def test_trap_e_the_epsilon_is_torchvisions() -> None:
    """Where all numbers are small, an epsilon of 1e-5 would give others."""
    peer = vit()
    for name in ("conv_proj.weight", "conv_proj.bias", "class_token", "encoder.pos_embedding"):
        peer.get_parameter(name).mul_(1e-3)
    config = read_alike(FAMILY, found(peer.state_dict()), peer)
    other = loaded(replace(config, image=replace(config.tower, eps=1e-5)), FAMILY.read(found(peer.state_dict()))[1])
    assert not torch.allclose(other.classify(pictures(32)), peer(pictures(32)), rtol=0.01)


@pytest.mark.parametrize("name", ["ViT_B_16", "ViT_B_32", "ViT_L_32", "ResNet18", "ResNet50"])
def test_trap_g_pictures_are_prepared_as_torchvision_does(name: str) -> None:
    """As the weights' own preset says, and as it can be built from what we write."""
    theirs = getattr(torchvision.models, f"{name}_Weights").IMAGENET1K_V1.transforms()
    peer = vit() if name.startswith("ViT") else resnet()
    config, state = read(FAMILY, found(peer.state_dict()))
    told = dict(FAMILY.write(config, state).beside["torchvision.json"]["transforms"])
    assert (list(config.mean), list(config.std), config.interpolation) == (
        *(theirs.mean, theirs.std),
        theirs.interpolation.value,
    )
    assert config.resize == "shortest"
    assert config.crop == theirs.crop_size[0] / theirs.resize_size[0]
    assert (told["mean"], told["std"], told["interpolation"]) == (theirs.mean, theirs.std, "bilinear")
    assert told["crop_size"] / told["resize_size"] == pytest.approx(0.875, abs=0.02)


def test_trap_h_a_head_of_zeros_is_read() -> None:
    peer = VisionTransformer(**SHAPE, mlp_dim=192)
    assert not peer.heads.head.weight.any()
    config, state = read(FAMILY, found(peer.state_dict()))
    assert config.classes == 1000
    assert not loaded(config, state).classify(pictures(32)).any()


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "encoder.", "model.", "module.backbone.", "_orig_mod."])
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_trap_j_a_wrapper_is_taken_off_whole(prefix: str, kind: str) -> None:
    """`bn1` begins with letters of `backbone.`, `encoder.ln` with a wrapper's name."""
    peer = vit() if kind == "vit" else resnet("BasicBlock")
    state = peer.state_dict()
    config, tensors = read(FAMILY, found({prefix + name: tensor for name, tensor in state.items()}))
    identical(FAMILY.write(config, tensors).state, state)


@torch.inference_mode()
def test_trap_j_the_backbone_of_a_simclr() -> None:
    """As lightly and solo-learn save it for CIFAR-10: a 3x3 stem, no pool, no head, and the projection beside it."""
    backbone = their_resnet.resnet18()
    backbone.conv1, backbone.maxpool, backbone.fc = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity(), nn.Identity()
    parts = {"backbone": backbone, "projection_head": nn.Linear(512, 8), "online_classifier": nn.Linear(512, 10)}
    parts |= {"projector": nn.Linear(512, 8), "classifier": nn.Linear(512, 10)}
    peer = stirred(nn.ModuleDict(parts))
    config, state = read(FAMILY, found(peer.state_dict()))
    assert config == ClassifierConfig(image=ResNetConfig(block="basic", layers=(2, 2, 2, 2), stem="cifar"), **IMAGENET)
    alike(loaded(config, state).encode_image(pictures(32)), backbone(pictures(32)))
    identical(FAMILY.write(config, state).state, backbone.state_dict())


def test_a_resnet_of_timm_is_left_to_timm() -> None:
    what = found(resnet().state_dict(), config={"architecture": "resnet50"})
    assert not FAMILY.knows(what)
    assert FAMILY.knows(found(resnet().state_dict(), config={"architectures": ["Other"]}))


def test_no_other_family_knows_these() -> None:
    for peer in (vit(), resnet()):
        assert [name for name, one in families().items() if one.knows(found(peer.state_dict()))] == ["torchvision"]


@pytest.mark.parametrize(
    ("peer", "complaint"),
    [
        (
            partial(vit, conv_stem_configs=[TheirStem(out_channels=8, kernel_size=3, stride=8)]),
            r"our ViT has no place for conv_proj.conv_bn_relu_0.0.weight, .* and \d more",
        ),
        (
            partial(torchvision.models.segmentation.fcn_resnet50, weights=None, weights_backbone=None),
            r"our ResNet has no place for classifier.0.weight",
        ),
        (partial(resnet, norm_layer=partial(nn.GroupNorm, 32)), "needs image.bn1.running_mean, which is not there"),
        (partial(vit, hidden_dim=96), "heads: not known for a width of 96"),
    ],
)
def test_models_that_ours_cannot_be(peer: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        FAMILY.read(found(peer().state_dict()))


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (
            ClassifierConfig(image=replace(TOWER, pool="average")),
            "image.pool: average; torchvision's ViT has class alone",
        ),
        (ClassifierConfig(image=replace(TOWER, activation="gelu_tanh")), "image.activation: gelu_tanh"),
        (ClassifierConfig(image=replace(TOWER, eps=1e-12)), "image.eps: 1e-12; torchvision's ViT has 1e-06 alone"),
        (ClassifierConfig(image=replace(TOWER, stem=ConvStemConfig())), "image.stem"),
        (
            ClassifierConfig(image=MixerConfig()),
            "image.kind: mixer; torchvision has classifiers alone, of vit or resnet",
        ),
        (
            ClassifierConfig(image=ResNetConfig(), pre_logits=8),
            "pre_logits: torchvision has a layer before the head in",
        ),
    ],
)
def test_models_that_torchvision_cannot_take(config: ClassifierConfig, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        FAMILY.write(config, {})


@pytest.mark.parametrize(
    "beside", [{"transforms": {"resize_size": 0}}, {"transforms": {"resize_size": []}}, {"model": 3}]
)
def test_what_lies_beside_is_wrong(beside: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"torchvision.json: crop_size 224 and resize_size|model: expected a JSON obj"):
        FAMILY.read(found(resnet().state_dict(), torchvision=beside))


def test_a_resnet_of_another_width_is_read_and_not_written() -> None:
    config = ClassifierConfig(image=ResNetConfig(width=16, block="basic", layers=(1, 1, 1, 1)), classes=3)
    state = {name.removeprefix("image.").replace("head.", "fc."): t for name, t in config.build().state_dict().items()}
    there, _ = Torchvision().read(found(state))
    assert there.tower == config.tower
    with pytest.raises(ValueError, match=r"image\.width: 16; torchvision's ResNets begin with 64 channels"):
        Torchvision().write(config, config.build().state_dict())
