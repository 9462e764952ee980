from collections.abc import Callable
from dataclasses import replace
from functools import partial
from json import loads
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import Mlp
from timm.models import save_for_hf
from timm.models._hub import save_config_for_hf
from timm.models.mlp_mixer import MlpMixer
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import HybridEmbed, StdConv2dSame
from torch import nn
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from pictura.layers.resnet_stem import ResNetStemConfig
from pictura.layers.stems import PatchStemConfig
from pictura.models.base import ImageTowerConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.mixer import MixerConfig
from pictura.models.resnet import ResNetConfig
from pictura.models.vit import ViTConfig
from pictura.weights.family import families
from pictura.weights.folder import empty
from pictura.weights.timm import Timm
from tests.weights.classifier_peers import (
    found,
    in_folder,
    loaded,
    pictures,
    read,
    read_alike,
    shapes,
    stirred,
    store,
)
from tests.weights.peers import alike, identical, undrawn

FAMILY = Timm()
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
SMALL: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 5,
}
VIT = ViTConfig(image_size=32, patch_size=8, width=128, depth=2, heads=2)
GAP = {"class_token": False, "global_pool": "avg", "fc_norm": False}


def theirs(name: str = "vit_base_patch16_224", **changes: Any) -> nn.Module:
    return stirred(timm.create_model(name, **changes))


def saved(peer: nn.Module, folder: Path) -> Path:
    """As timm writes it for the hub."""
    save_for_hf(peer, str(folder), safe_serialization=True)
    return folder


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("vit_base_patch16_224", {}, {}),
        ("vit_base_patch16_224", {"num_classes": 0}, {}),
        ("vit_base_patch16_224", {"num_heads": 4, "mlp_ratio": 2.7}, {"heads": 4, "mlp_ratio": 345 / 128}),
        ("vit_base_patch16_224", GAP, {"pool": "average"}),
        ("vit_base_patch16_224", {"no_embed_class": True}, {}),
        ("vit_base_patch16_224", {"dynamic_img_size": True, "drop_path_rate": 0.1}, {}),
        ("vit_base_patch16_224", {"act_layer": "gelu_tanh"}, {"activation": "gelu_tanh"}),
        ("vit_base_patch16_clip_224", {}, {"eps": 1e-5, "pre_norm": True, "stem": PatchStemConfig(bias=False)}),
        (
            "vit_large_patch14_clip_quickgelu_224",
            {},
            {"eps": 1e-5, "pre_norm": True, "stem": PatchStemConfig(bias=False), "activation": "quick_gelu"},
        ),
        ("vit_so400m_patch16_siglip_gap_256", {"mlp_ratio": 4}, {"pool": "average", "activation": "gelu_tanh"}),
        ("deit_tiny_patch16_224", {}, {}),
    ],
)
def test_a_vit_is_read(name: str, changes: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    peer = theirs(name, **SMALL | changes)
    config = read_alike(FAMILY, in_folder(saved(peer, tmp_path / "model")), peer)
    assert config.tower == replace(VIT, **expected)
    assert config.classes == (SMALL | changes)["num_classes"]


@torch.inference_mode()
@pytest.mark.parametrize(("layers", "patch", "size"), [((), 8, 64), ((1,), 2, 32), ((1, 2), 2, 64), ((1, 1, 1), 1, 64)])
def test_a_hybrid_is_read(layers: tuple[int, ...], patch: int, size: int) -> None:
    """Of layers that no name of timm's has, but for ()."""
    conv = partial(StdConv2dSame, eps=1e-8)
    same = {"num_classes": 0, "global_pool": "", "preact": False, "stem_type": "same", "conv_layer": conv}
    backbone = ResNetV2(layers=layers, channels=(256, 512, 1024)[: len(layers)], **same) if layers else None
    if backbone is None:
        peer = theirs("vit_tiny_r_s16_p8_224", **SMALL | {"img_size": size})
    else:
        embed = partial(HybridEmbed, backbone=backbone)
        peer = stirred(VisionTransformer(embed_layer=embed, **SMALL | {"img_size": size, "patch_size": patch}))
    config, state = read(FAMILY, found(peer.state_dict()))
    stem = ResNetStemConfig(layers=layers)
    assert config.tower == replace(VIT, image_size=size, patch_size=patch * stem.stride, stem=stem)
    image = pictures(size).double()  # whose many layers lose digits
    alike(loaded(config, state).double().classify(image), peer.double()(image))


def test_a_mixer_is_read() -> None:
    shape = {"img_size": 48, "patch_size": 8, "embed_dim": 40, "num_blocks": 3, "mlp_ratio": (0.4, 1.5)}
    peer = stirred(MlpMixer(num_classes=5, **shape))
    what = found(peer.state_dict())
    config, state = read(FAMILY, what)
    expected = MixerConfig(image_size=48, patch_size=8, width=40, depth=3, tokens=16, channels=60)
    assert config == ClassifierConfig(image=expected, classes=5, crop=0.875, **HALF)
    with torch.inference_mode():
        alike(loaded(config, state).classify(pictures(48)), peer(pictures(48)))


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("resnet18", {"layers": [1, 2, 1, 1]}, {"block": "basic"}),
        ("resnet50", {"layers": [1, 2, 1, 1], "num_classes": 0}, {}),
        ("wide_resnet50_2", {"layers": [1, 2, 1, 1]}, {"width_per_group": 128}),
        ("resnext50_32x4d", {"layers": [1, 2, 1, 1]}, {"groups": 32, "width_per_group": 4}),
    ],
)
def test_a_resnet_is_read(name: str, changes: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    peer = theirs(name, **{"num_classes": 5} | changes)
    config = read_alike(FAMILY, in_folder(saved(peer, tmp_path / "model")), peer)
    assert config.tower == ResNetConfig(layers=(1, 2, 1, 1), **expected)


DEEP = ["resnet1*", "resnet2*", "resnetrs*", "resnext101*", "se*", "eca*", "*_24_*", "mixer_l*"]


@pytest.mark.parametrize(
    ("module", "least"),
    [
        ("vision_transformer", 66),
        ("vision_transformer_hybrid", 9),
        ("deit", 4),
        ("mlp_mixer", 4),
        pytest.param("resnet", 5, marks=pytest.mark.slow),
    ],
)
def test_every_model_of_theirs_is_right_or_refused(module: str, least: int, tmp_path: Path) -> None:
    """Of all that timm has of these kinds, what we take computes as theirs does, whatever its name alone says."""
    taken = 0
    for name in timm.list_models(module=module, exclude_filters=DEEP):
        with torch.device("meta"), undrawn():
            peer = timm.create_model(name, **({} if module in ("mlp_mixer", "resnet") else {"depth": 1}))
        save_config_for_hf(peer, str(tmp_path / "config.json"))
        json = loads((tmp_path / "config.json").read_text())
        json.pop("model_args", None)  # so that it is the name that says it
        if not FAMILY.knows(what := found(peer.state_dict(), config=json)):
            continue
        try:
            config, state = FAMILY.read(what)
        except ValueError:
            continue
        model = empty(config)
        if shapes(state) == shapes(model.state_dict()):
            same_facts(config.tower, peer, name)
            taken += 1
    assert taken >= least


def same_facts(tower: ImageTowerConfig, peer: nn.Module, name: str) -> None:
    """What no shape shows."""
    if isinstance(tower, ResNetConfig):
        plain = {"ResNet", "Sequential", "BasicBlock", "Bottleneck", "Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"}
        plain |= {"SelectAdaptivePool2d", "AdaptiveAvgPool2d", "Flatten", "Identity", "Linear"}
        assert {type(module).__name__ for module in peer.modules()} <= plain, name
        return
    block = peer.blocks[0]
    mlp = block.mlp if isinstance(tower, ViTConfig) else block.mlp_channels
    activation = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}[type(mlp.act).__name__]
    assert (tower.activation, tower.eps, type(mlp)) == (activation, block.norm1.eps, Mlp), name
    assert peer.pretrained_cfg["input_size"][1:] == (tower.image_size,) * 2, name
    if isinstance(tower, ViTConfig):
        pool = {"token": "class", "avg": "average"}[peer.global_pool]
        assert (tower.heads, tower.pool) == (block.attn.num_heads, pool), name


@torch.inference_mode()
@pytest.mark.parametrize("told", [True, False])
def test_trap_d_positions_without_a_row_for_the_class_token(told: bool, tmp_path: Path) -> None:
    """A row of zeros goes before them, and is left out again; 25 of them are 5 x 5, and 26 one more."""
    peer = theirs(**SMALL | {"img_size": 40, "no_embed_class": True})
    what = in_folder(saved(peer, tmp_path / "model")) if told else found(peer.state_dict())
    assert what.state["pos_embed"].shape == (1, 25, 128)
    config, state = read(FAMILY, what)
    assert state["image.pos_embed"].shape == (1, 26, 128)
    assert not state["image.pos_embed"][:, 0].any()
    alike(loaded(config, state).classify(pictures(40)), peer(pictures(40)))
    written = FAMILY.write(config, state)
    identical(written.state, what.state)
    again = timm.create_model(f"local-dir:{store(written, tmp_path / 'again')}", pretrained=True).eval()
    alike(again(pictures(40)), peer(pictures(40)))


@torch.inference_mode()
@pytest.mark.parametrize(("name", "eps"), [("vit_base_patch16_224", 1e-6), ("vit_base_patch16_clip_224", 1e-5)])
def test_trap_e_the_epsilon_is_timms(name: str, eps: float, tmp_path: Path) -> None:
    """Where all numbers are small, the other epsilon gives others."""
    peer = theirs(name, **SMALL)
    for part in ("patch_embed.proj.weight", "cls_token", "pos_embed", "norm_pre.weight", "norm_pre.bias"):
        if part in peer.state_dict():
            peer.get_parameter(part).mul_(1e-3)
    if eps == 1e-6:
        peer.get_parameter("patch_embed.proj.bias").mul_(1e-3)
    what = in_folder(saved(peer, tmp_path / "model"))
    config = read_alike(FAMILY, what, peer)
    assert isinstance(config.tower, ViTConfig)
    assert config.tower.eps == eps
    other = loaded(replace(config, image=replace(config.tower, eps=1.1e-5 - eps)), FAMILY.read(what)[1])
    assert not torch.allclose(other.classify(pictures(32)), peer(pictures(32)), rtol=0.01)


@torch.inference_mode()
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu"])
def test_trap_f_the_activation_goes_with_the_weights(activation: Any, tmp_path: Path) -> None:
    peer = theirs(**SMALL | {"act_layer": activation})
    what = in_folder(saved(peer, tmp_path / "model"))
    config, state = read(FAMILY, what)
    assert isinstance(config.tower, ViTConfig)
    assert config.tower.activation == activation
    alike(loaded(config, state).classify(pictures(32)), peer(pictures(32)))
    assert read(FAMILY, found(peer.state_dict()))[0].tower.activation == "gelu"  # type: ignore[attr-defined]
    folder = store(FAMILY.write(config, state), tmp_path / "again")
    alike(timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(pictures(32)), peer(pictures(32)))


def test_trap_g_pictures_are_prepared_as_the_weights_expect(tmp_path: Path) -> None:
    """What timm itself makes of the folder, before us and after us."""
    told = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.97, "interpolation": "bilinear"}
    told |= {"crop_mode": "squash"}
    peer = theirs(**SMALL, pretrained_cfg_overlay=told)
    config, state = read(FAMILY, in_folder(saved(peer, tmp_path / "model")))
    assert (config.mean, config.std, config.crop) == (told["mean"], told["std"], told["crop_pct"])
    assert (config.interpolation, config.resize) == ("bilinear", "squash")
    folder = store(FAMILY.write(config, state), tmp_path / "again")
    again = timm.create_model(f"local-dir:{folder}", pretrained=True)
    before, after = (timm.data.resolve_model_data_config(model) for model in (peer, again))
    assert {key: list(after[key]) for key in ("mean", "std")} == {key: list(before[key]) for key in ("mean", "std")}
    assert all(after[key] == before[key] for key in ("interpolation", "crop_pct", "crop_mode"))
    assert after["input_size"] == [3, 32, 32]


@pytest.mark.parametrize(
    ("peer", "config", "crop", "imagenet"),
    [
        (partial(theirs, **SMALL), None, 0.9, False),
        (partial(theirs, **SMALL), {"architecture": "vit_base_patch16_224"}, 0.875, True),
        (partial(theirs, **SMALL), {"architecture": "vit", "pretrained_cfg": {"crop_pct": 1.0}}, 1.0, True),
        (partial(MlpMixer, img_size=16, patch_size=8, embed_dim=8, num_blocks=1), None, 0.875, False),
        (partial(theirs, "resnet18", layers=[1, 1, 1, 1]), {"architecture": "resnet18"}, 0.875, True),
    ],
)
def test_trap_g_where_nothing_says_how(peer: Any, config: Any, crop: float, imagenet: bool) -> None:
    """timm's own models without a config.json; with one, what timm's `PretrainedCfg` has where nothing is given."""
    beside = {"config": config} if config else {}
    read_config, _ = read(FAMILY, found(peer().state_dict(), **beside))
    defaults = timm.models.PretrainedCfg()
    expected = (defaults.mean, defaults.std) if imagenet else tuple(HALF.values())
    assert (read_config.mean, read_config.std, read_config.crop) == (*expected, crop)
    assert (read_config.interpolation, read_config.resize) == ("bicubic", "shortest")


def test_trap_h_a_head_of_zeros_is_read() -> None:
    peer = theirs(**SMALL)
    with torch.no_grad():
        peer.head.weight.zero_(), peer.head.bias.zero_()
    config, state = read(FAMILY, found(peer.state_dict()))
    assert config.classes == 5
    assert not loaded(config, state).classify(pictures(32)).any()


@pytest.mark.parametrize("prefix", ["module.", "model.", "encoder.", "backbone.", "module.model.", "visual.trunk."])
def test_trap_j_a_wrapper_is_taken_off_whole(prefix: str) -> None:
    """`blocks` begins with letters of `backbone.`, `norm` with letters of `encoder.`."""
    state = theirs(**SMALL).state_dict()
    config, tensors = read(FAMILY, found({prefix + name: tensor for name, tensor in state.items()}))
    identical(FAMILY.write(config, tensors).state, state)
    assert not FAMILY.knows(found({f"other.{prefix}{name}": tensor for name, tensor in state.items()}))


def test_trap_j_the_tower_of_a_clip_is_no_classifier() -> None:
    state = {f"visual.trunk.{name}": tensor for name, tensor in theirs(**SMALL).state_dict().items()}
    assert not FAMILY.knows(found(state | {"text_projection": torch.zeros(3, 3)}))


@torch.inference_mode()
def test_the_layer_before_the_head_of_an_old_file() -> None:
    """timm had it until 2022; with a tanh, as the paper has it."""
    peer = theirs(**SMALL)
    old = stirred(nn.Sequential(nn.Linear(128, 24), nn.Tanh(), nn.Linear(24, 5)), 3)
    names = {"0": "pre_logits.fc", "2": "head"}
    head = {f"{names[name[0]]}{name[1:]}": tensor for name, tensor in old.state_dict().items()}
    config, state = read(FAMILY, found(peer.state_dict() | head))
    alike(
        loaded(config, state).classify(pictures(32)), old(peer.forward_head(peer.forward_features(pictures(32)), True))
    )
    with pytest.raises(ValueError, match=r"pre_logits: timm has left out the layer before the head since 2022"):
        FAMILY.write(config, state)


@torch.inference_mode()
def test_transformers_wrapper_around_timm(tmp_path: Path) -> None:
    args = {key: value for key, value in SMALL.items() if key != "num_classes"} | {"act_layer": "gelu_tanh"}
    theirs_config = TimmWrapperConfig(architecture="vit_tiny_patch16_224", num_labels=5, model_args=args)
    peer = stirred(TimmWrapperForImageClassification(theirs_config))
    peer.save_pretrained(tmp_path / "model")
    config, state = read(FAMILY, in_folder(tmp_path / "model"))
    assert config.class_names == ()
    alike(loaded(config, state).classify(pictures(32)), peer(pictures(32)).logits)


def test_names_of_classes(tmp_path: Path) -> None:
    peer = theirs(**SMALL | {"num_classes": 2})
    words = {"label_names": ["n01", "n02"], "label_descriptions": {"n01": "tench", "n02": "goldfish"}}
    save_for_hf(peer, str(tmp_path / "model"), words, safe_serialization=True)
    assert read(FAMILY, in_folder(tmp_path / "model"))[0].class_names == ("tench", "goldfish")
    alike_names = {"architecture": "vit_base_patch16_224", "num_classes": 2, "label_names": ["crane", "crane"]}
    assert read(FAMILY, found(peer.state_dict(), config=alike_names))[0].class_names == ()


def test_no_other_family_knows_these() -> None:
    resnet = found(theirs("resnet18", layers=[1, 1, 1, 1]).state_dict(), config={"architecture": "resnet18"})
    hybrid = theirs("vit_tiny_r_s16_p8_224", **SMALL | {"img_size": 64})
    mixer = MlpMixer(img_size=16, patch_size=8, embed_dim=8, num_blocks=1)
    others = [found(peer.state_dict()) for peer in (theirs(**SMALL), theirs(**SMALL | GAP), hybrid, mixer)]
    for what in (resnet, *others):
        assert [name for name, one in families().items() if one.knows(what)] == ["timm"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("vit_base_patch16_siglip_224", "our ViT has no place for attn_pool.latent, attn_pool"),
        ("vit_small_patch14_reg4_dinov2", "no place for reg_token, blocks.0.ls1.gamma, "),
        ("vit_base_patch16_rpn_224", "fc_norm.weight: a norm after the patches are averaged; our ViT has its norm bef"),
        ("deit_tiny_distilled_patch16_224", "no place for dist_token, head_dist.weight, head_dist.bias"),
        ("deit3_small_patch16_224", "no place for blocks.0.ls1.gamma"),
        ("vit_small_resnet26d_224", "no place for patch_embed.backbone.conv1.0.weight"),
        ("vit_so400m_patch14_siglip_gap_384", "input_size: 384 is no multiple of the patches' 14"),
        ("resnet18d", "our ResNet has no place for conv1.0.weight, conv1.1.weight"),
        ("seresnet50", "no place for layer1.0.se.fc1.weight"),
        ("resnetaa50", "architecture: 'resnetaa50' blurs its maps"),
        ("resnetblur18", "architecture: 'resnetblur18' blurs its maps"),
        ("resnet50_gn", "needs image.bn1.running_mean, which is not there"),
    ],
)
def test_models_that_ours_cannot_be(name: str, complaint: str, tmp_path: Path) -> None:
    with torch.device("meta"), undrawn():
        peer = timm.create_model(name)
    save_config_for_hf(peer, str(tmp_path / "config.json"))
    with pytest.raises(ValueError, match=complaint):
        FAMILY.read(found(peer.state_dict(), config=loads((tmp_path / "config.json").read_text())))


@pytest.mark.parametrize(
    "name", ["gmixer_12_224", "vit_base_patch16_224_miil", "resmlp_12_224", "vit_small_patch16_18x2_224"]
)
def test_models_that_do_not_fit(name: str) -> None:
    """Their tensors carry names of ours, and do not fit; or no family of ours knows them."""
    with torch.device("meta"), undrawn():
        what = found(timm.create_model(name).state_dict())
    if FAMILY.knows(what):
        config, state = FAMILY.read(what)
        assert shapes(state) != shapes(empty(config).state_dict())
    else:
        assert not any(family.knows(what) for family in families().values())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model_args": {"attn_layer": "diff"}}, "model_args.attn_layer: 'diff' changes what the weights mean"),
        ({"model_args": {"act_layer": "silu"}}, "image.activation: expected one of"),
        ({"model_args": {"num_heads": "two"}}, "image.heads: expected int, got 'two'"),
        ({"model_args": {"img_size": [32, 40]}}, r"input_size: \[32, 40\] is no square"),
        ({"model_args": 3}, "model_args: expected a JSON object, got 3"),
        ({"global_pool": "avg"}, "global_pool: 'avg', but with such tensors our vit does what timm calls 'token'"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode: 'border' is none of center, squash"),
        ({"pretrained_cfg": {"interpolation": "lanczos"}}, "interpolation: expected one of"),
        ({"pretrained_cfg": {"mean": [0.5]}}, "mean: expected"),
    ],
)
def test_configurations_that_are_refused(changes: dict[str, Any], complaint: str) -> None:
    json = {"architecture": "vit_base_patch16_224", "pretrained_cfg": {}} | changes
    with pytest.raises(ValueError, match=complaint):
        FAMILY.read(found(theirs(**SMALL).state_dict(), config=json))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("pos_embed"), "a configuration needs image.pos_embed, which is not there"),
        (lambda state: state.update(pos_embed=torch.zeros(1, 7, 128)), "image.pos_embed: 6 patches make no square"),
        (lambda state: state.update(pos_embed=torch.zeros(17)), r"image.pos_embed is \[17\], where 3 axes"),
        (lambda state: state.update({"blocks.3.norm1.bias": torch.zeros(1)}), r"image.blocks.: numbered \[0, 1, 3\]"),
        (
            lambda state: state.update({"blocks.1.attn.q_norm.bias": torch.zeros(1)}),
            "place for blocks.1.attn.q_norm.bias",
        ),
        (lambda state: state.update({"norm_pre.weight": torch.zeros(1)}), "norm_pre.weight: is of CLIP's towers"),
    ],
)
def test_tensors_that_are_refused(change: Callable[[dict[str, Any]], object], complaint: str) -> None:
    state = dict(theirs(**SMALL).state_dict())
    change(state)
    with pytest.raises(ValueError, match=complaint):
        FAMILY.read(found(state))


@pytest.mark.parametrize(
    "odd",
    [
        {"pretrained_cfg": {"input_size": [3, [32], {"a": 1}]}},
        {"pretrained_cfg": {"crop_mode": ["center"]}},
        {"label_names": [["a"], {"b": 1}]},
    ],
)
def test_a_configuration_of_other_types_is_no_crash(odd: dict[str, Any]) -> None:
    config = ClassifierConfig(image=ViTConfig(image_size=32, patch_size=16, width=64, depth=1, heads=1), classes=2)
    state = {name.removeprefix("image."): tensor for name, tensor in config.build().state_dict().items()}
    with pytest.raises(ValueError, match=r"input_size|crop_mode|label_names"):
        Timm().read(found(state, config={"architecture": "vit_tiny_patch16_224", **odd}))
