from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from pictura.config import load, sized
from pictura.layers.positions import resize_positions
from pictura.layers.stems import ConvStemConfig, PatchStemConfig
from pictura.models.base import ImageTowerConfig
from pictura.models.clip import CLIPConfig
from pictura.models.vit import ViT, ViTConfig

TINY = ViTConfig(image_size=32, patch_size=8, width=24, depth=3, heads=3)


def stirred(config: ViTConfig, seed: int = 0) -> ViT:
    """A model no tensor of which is zero or one throughout."""
    torch.manual_seed(seed)
    model = config.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


@pytest.mark.parametrize("pool", ["class", "average"])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_against_timm_by_its_own_names(pool: str, pre_norm: bool) -> None:
    config = replace(TINY, pool=pool, pre_norm=pre_norm, stem=PatchStemConfig(bias=not pre_norm))
    model, rule = stirred(config), "token" if pool == "class" else "avg"
    peer = timm.models.VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=3,
        num_heads=3,
        num_classes=0,
        global_pool=rule,
        class_token=pool == "class",
        fc_norm=False,
        pre_norm=pre_norm,
    )
    peer.load_state_dict(model.state_dict())
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(image), peer.eval()(image))


TIMM = {"Ti/16": "tiny_patch16", "S/16": "small_patch16", "S/32": "small_patch32", "B/8": "base_patch8"}
TIMM |= {"B/16": "base_patch16", "B/32": "base_patch32", "L/14": "large_patch14", "L/16": "large_patch16"}
TIMM |= {"H/14": "huge_patch14"}


@pytest.mark.parametrize("size", TIMM)
def test_published_sizes(size: str) -> None:
    with torch.device("meta"):
        peer = timm.create_model(f"vit_{TIMM[size]}_224", num_classes=0)
        model = sized(ViTConfig, size).build()
    found = {name: p.shape for name, p in model.named_parameters()}
    expected = {name: p.shape for name, p in peer.named_parameters()}
    assert found == expected
    assert sized(ViTConfig, size).heads == peer.blocks[0].attn.num_heads


def test_every_size_builds() -> None:
    for size in ViTConfig.sizes:
        config = load(ImageTowerConfig, {"kind": "vit", "size": size, "image_size": 224})
        with torch.device("meta"):
            assert config.build().width == config.width


@pytest.mark.parametrize("pool", ["class", "average"])
def test_larger_pictures(pool: str) -> None:
    """Positions are resized on the way; a model built for that size, with them resized before, gives the same."""
    model = stirred(replace(TINY, pool=pool))
    larger = replace(TINY, pool=pool, image_size=48).build().eval()
    state = dict(model.state_dict())
    state["pos_embed"] = resize_positions(state["pos_embed"], (4, 4), (6, 6))
    larger.load_state_dict(state)
    image = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(model(image), larger(image))
    assert model(torch.randn(2, 3, 16, 40)).shape == (2, 24)
    with pytest.raises(ValueError, match="picture of 33 x 32 pixels"):
        model(torch.randn(2, 3, 33, 32))


def test_where_a_patch_stands_matters() -> None:
    model, image = stirred(TINY), torch.randn(1, 3, 32, 32)
    assert not torch.allclose(model(image), model(image.flip(3).unfold(3, 8, 8).flip(4).flatten(3)))
    nowhere = stirred(replace(TINY, pool="average"))
    nn.init.zeros_(nowhere.pos_embed)
    turned = torch.cat([image[..., 16:], image[..., :16]], 3)
    torch.testing.assert_close(nowhere(turned), nowhere(image))


@pytest.mark.parametrize("pool", ["class", "average"])
def test_patch_dropout(pool: str) -> None:
    model = stirred(replace(TINY, pool=pool, patch_dropout=0.5))
    lengths: list[int] = []
    model.blocks[0].register_forward_hook(lambda module, given, out: lengths.append(given[0].shape[1]))
    image = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(model(image), stirred(replace(TINY, pool=pool))(image))
    model.train()
    assert not torch.equal(model(image), model(image))
    assert lengths == [16 + (pool == "class"), *[8 + (pool == "class")] * 2]


def test_the_class_token_is_never_dropped() -> None:
    """Nor loses its place: with one patch left, and patches all alike, the class token alone decides."""
    model = stirred(replace(TINY, patch_dropout=0.95)).train()
    with torch.no_grad():
        model.pos_embed[:, 1:] = model.pos_embed[:, 1:2]
    image = torch.ones(4, 3, 32, 32)
    found = model(image)
    torch.testing.assert_close(found, found[:1].expand(4, -1))
    assert not torch.allclose(found, model.eval()(image), atol=1e-3)
    with torch.no_grad():
        model.train().cls_token.add_(torch.randn(24))
    assert not torch.allclose(model(image), found, atol=1e-3)


def test_drop_path_grows_with_depth() -> None:
    model = replace(TINY, drop_path=0.2).build()
    assert [block.drop_path for block in model.blocks] == pytest.approx([0, 0.1, 0.2])
    assert [block.drop_path for block in replace(TINY, depth=1, drop_path=0.2).build().blocks] == [0]


def test_every_parameter_is_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory begins as NaN here: what no rule fills would show."""
    given = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: given(*a, **k).fill_(torch.nan))
    for config in (TINY, replace(TINY, pool="average", pre_norm=True, stem=ConvStemConfig(channels=8))):
        for name, parameter in config.build().named_parameters():
            assert parameter.isfinite().all(), name


@pytest.mark.parametrize(
    "config",
    [TINY, replace(TINY, pool="average", pre_norm=True), replace(TINY, stem=ConvStemConfig(channels=8))],
    ids=["class", "average", "conv"],
)
def test_every_parameter_gets_a_gradient(config: ViTConfig) -> None:
    model = stirred(config).train()
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_scales_of_fresh_weights() -> None:
    torch.manual_seed(0)
    model = ViTConfig(image_size=128, patch_size=8, width=256, depth=8, heads=4).build()
    stds = {name: float(p.detach().std()) for name, p in model.named_parameters()}
    assert stds["pos_embed"] == pytest.approx(256**-0.5, rel=0.02)
    assert stds["blocks.7.attn.qkv.weight"] == pytest.approx(256**-0.5, rel=0.02)
    assert stds["blocks.7.mlp.fc2.weight"] == pytest.approx((256 * 16) ** -0.5, rel=0.02)


def test_a_convolutional_stem_takes_the_place_of_patches() -> None:
    model = replace(TINY, stem=ConvStemConfig(channels=8)).build()
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 24)
    assert "patch_embed.convs.0.weight" in model.state_dict()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image_size": 30}, r"^image.image_size: 30 is no multiple of patch_size 8; try 32$"),
        ({"image_size": 3}, r"^image.image_size: 3 is no multiple of patch_size 8; try 8$"),
        ({"patch_dropout": 1.0}, r"^image.patch_dropout: 1.0 must be at least 0 and below 1$"),
        ({"patch_dropout": -0.1}, r"^image.patch_dropout: -0.1 must be"),
        ({"dropout": 1.0}, r"^image.dropout: 1.0 must be at least 0 and below 1$"),
        ({"drop_path": 1.5}, r"^image.drop_path: 1.5 must be at least 0 and below 1$"),
        ({"drop_path": float("nan")}, r"^image.drop_path: nan must be"),
        ({"patch_size": 0}, r"^image.patch_size: 0 must be above zero$"),
        ({"image_size": 0}, r"^image.image_size: 0 must be above zero$"),
        ({"depth": 0}, r"^image.depth: 0 must be above zero$"),
        ({"width": -24}, r"^image.width: -24 must be above zero$"),
        ({"mlp_ratio": 0}, r"^image.mlp_ratio: 0.0 must be above zero$"),
        ({"eps": -1e-6}, r"^image.eps: -1e-06 must be above zero$"),
        ({"width": 24, "heads": 5}, r"^image.heads: 5 does not divide width 24; try 4$"),
        ({"stem": {"kind": "conv", "channels": 0}}, r"^image.stem.channels: 0 must be at least 1$"),
    ],
)
def test_mistakes_are_named_with_their_path(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(CLIPConfig, {"image": {"kind": "vit", "patch_size": 8, "image_size": 32} | change})


def test_the_stem_is_a_choice() -> None:
    image = load(CLIPConfig, {"image": {"kind": "vit", "stem": {"kind": "patch", "bias": False}}}).image
    assert image.stem == PatchStemConfig(bias=False)
    assert ViTConfig().stem == PatchStemConfig(bias=True)
    with pytest.raises(ValueError, match=r"image.patch_bias: no such key"):
        load(CLIPConfig, {"image": {"kind": "vit", "patch_bias": False}})
