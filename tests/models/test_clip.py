import math
import re
from dataclasses import replace

import pytest
import torch

from pictura.config import load, sized, to_dict
from pictura.layers.stems import ConvStemConfig, PatchStemConfig
from pictura.models.base import ModelConfig
from pictura.models.clip import CLIP, CLIPConfig
from pictura.models.clip_resnet import CLIPResNetConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig

TINY = CLIPConfig(
    image=ViTConfig(
        image_size=16, patch_size=8, width=24, depth=2, heads=3, pre_norm=True, stem=PatchStemConfig(bias=False)
    ),
    text=TextTransformerConfig(vocab_size=50, context_length=12, width=16, depth=2, heads=2),
    embed_dim=10,
)
TEXT = torch.tensor([[48, 3, 4, 49], [48, 5, 49, 0]])


def tiny(**changes: object) -> CLIP:
    torch.manual_seed(0)
    return replace(TINY, **changes).build().eval()


@pytest.mark.parametrize(
    ("size", "millions", "for_pictures"),
    [
        ("RN50", 102.01, 38.32),
        ("RN101", 119.69, 56.26),
        ("RN50x4", 178.30, 87.14),
        ("RN50x16", 290.98, 167.33),
        ("RN50x64", 623.26, 420.38),
        ("ViT-B/32", 151.28, 87.85),
        ("ViT-B/16", 149.62, 86.19),
        ("ViT-L/14", 427.62, 303.97),
        ("ViT-L/14@336", 427.94, 304.29),
    ],
)
def test_published_sizes(size: str, millions: float, for_pictures: float) -> None:
    """Counted from OpenAI's weights, whose picture tower has its projection."""
    with torch.device("meta"):
        model = sized(CLIPConfig, size).build()
    counts = {name: p.numel() for name, p in model.named_parameters()}
    assert round(sum(counts.values()) / 1e6, 2) == millions
    assert round(sum(n for name, n in counts.items() if name.startswith("image")) / 1e6, 2) == for_pictures


@pytest.mark.parametrize("size", sorted(CLIPConfig.sizes.keys() - CLIPConfig.ours))
def test_published_sizes_are_openais_in_all_that_no_shape_shows(size: str) -> None:
    config = sized(CLIPConfig, size)
    assert isinstance(config.text, TextTransformerConfig)
    assert config.text.heads == config.text.width // 64
    assert config.text.activation == "quick_gelu"
    assert config.text.eps == 1e-5
    assert config.projection_bias == isinstance(config.image, CLIPResNetConfig)
    if isinstance(config.image, ViTConfig):
        assert (config.image.activation, config.image.eps) == ("quick_gelu", 1e-5)
    assert config.tower.features // 64 == config.image.heads
    assert (config.resize, config.interpolation, config.text.end_token) == ("shortest", "bicubic", None)
    assert config.logit_scale == pytest.approx(2.6593, abs=1e-4)
    assert load(ModelConfig, to_dict(config)) == config


@pytest.mark.parametrize(("size", "millions"), [("tiny/16@64", 7.67), ("small/16@64", 14.02)])
def test_our_own_sizes(size: str, millions: float) -> None:
    config = sized(CLIPConfig, size)
    assert size in CLIPConfig.ours
    assert isinstance(config.image, ViTConfig) and isinstance(config.image.stem, ConvStemConfig)
    assert (config.image.image_size, config.image.patch_size, config.image.pool) == (64, 16, "average")
    with torch.device("meta"):
        count = sum(p.numel() for p in config.build().parameters())
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"embed_dim": 0}, "^embed_dim: 0 must be above zero$"),
        ({"std": [0.2, 0.0, 0.2]}, r"^std: \(0.2, 0.0, 0.2\) must be above zero for each colour$"),
        ({"text": {"kind": "transformer", "heads": 7}}, "^text.heads: 7 does not divide width 512; try 4$"),
    ],
)
def test_mistakes_are_named_with_their_path(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(ModelConfig, {"kind": "clip"} | change)


@pytest.mark.parametrize("key", ["mean", "std"])
def test_three_colours(key: str) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: \(0.5,\) must be 3 numbers"):
        replace(TINY, **{key: (0.5,)})


NAMES = """
image.blocks.{}.attn.proj.bias [w]
image.blocks.{}.attn.proj.weight [w, w]
image.blocks.{}.attn.qkv.bias [3w]
image.blocks.{}.attn.qkv.weight [3w, w]
image.blocks.{}.mlp.fc1.bias [4w]
image.blocks.{}.mlp.fc1.weight [4w, w]
image.blocks.{}.mlp.fc2.bias [w]
image.blocks.{}.mlp.fc2.weight [w, 4w]
image.blocks.{}.norm1.bias [w]
image.blocks.{}.norm1.weight [w]
image.blocks.{}.norm2.bias [w]
image.blocks.{}.norm2.weight [w]
image.cls_token [1, 1, w]
image.norm.bias [w]
image.norm.weight [w]
image.norm_pre.bias [w]
image.norm_pre.weight [w]
image.patch_embed.proj.weight [w, 3, 8, 8]
image.pos_embed [1, 5, w]
image_projection.weight [10, w]
logit_bias []
logit_scale []
text.blocks.{}.attn.proj.bias [d]
text.blocks.{}.attn.proj.weight [d, d]
text.blocks.{}.attn.qkv.bias [3d]
text.blocks.{}.attn.qkv.weight [3d, d]
text.blocks.{}.mlp.fc1.bias [4d]
text.blocks.{}.mlp.fc1.weight [4d, d]
text.blocks.{}.mlp.fc2.bias [d]
text.blocks.{}.mlp.fc2.weight [d, 4d]
text.blocks.{}.norm1.bias [d]
text.blocks.{}.norm1.weight [d]
text.blocks.{}.norm2.bias [d]
text.blocks.{}.norm2.weight [d]
text.norm.bias [d]
text.norm.weight [d]
text.pos_embed [12, d]
text.token_embedding.weight [50, d]
text_projection.weight [10, d]
"""


def test_names_and_shapes_are_an_interface() -> None:
    """Model folders hold these names: renaming one makes every folder unreadable. w is 24, d is 16."""
    lengths = {24: "w", 72: "3w", 96: "4w"}, {16: "d", 48: "3d", 64: "4d"}
    found = set()
    for name, tensor in tiny(logit_bias=-10.0).state_dict().items():
        words = lengths[name.startswith("text")]
        shape = ", ".join(words.get(n, str(n)) for n in tensor.shape)
        found.add(f"{re.sub('[.][0-9]+[.]', '.{}.', name)} [{shape}]")
    assert "\n".join(sorted(found)) == NAMES.strip()


def test_features_are_the_towers_projected() -> None:
    model, image = tiny(), torch.randn(2, 3, 16, 16)
    expected = model.image(image) @ model.image_projection.weight.T
    torch.testing.assert_close(model.encode_image(image), expected)
    torch.testing.assert_close(model.encode_text(TEXT), model.text(TEXT) @ model.text_projection.weight.T)
    assert model.encode_image(image).shape == model.encode_text(TEXT).shape == (2, 10)
    assert (model.encode_image(image).norm(dim=1) - 1).abs().min() > 1e-3, "not of unit length, as promised"


def test_decoded_pictures_are_normalised_inside() -> None:
    model = tiny(mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    before = image.clone()
    mean, std = torch.tensor([0.1, 0.5, 0.9])[:, None, None], torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    by_hand = (image.float() / 255 - mean) / std
    torch.testing.assert_close(model.encode_image(image), model.encode_image(by_hand))
    assert torch.equal(image, before)
    kept = by_hand.clone()
    model.encode_image(by_hand)
    assert torch.equal(by_hand, kept), "given pictures were changed in place"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    model, image = tiny(), torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    expected = model.encode_image(image), model.encode_text(TEXT)
    model = model.to(dtype)
    for found, whole in zip((model.encode_image(image), model.encode_text(TEXT)), expected, strict=True):
        assert found.dtype == dtype
        error = (found.double() - whole.double()).norm() / whole.double().norm()
        assert error < (0.03 if dtype == torch.bfloat16 else 1e-5)
    assert model.encode_image(torch.randn(2, 3, 16, 16)).dtype == dtype


def test_temperature_and_bias() -> None:
    assert float(tiny().logit_scale.detach()) == pytest.approx(math.log(1 / 0.07))
    assert tiny().logit_bias is None
    model = tiny(logit_scale=math.log(10), logit_bias=-10.0)
    assert float(model.logit_scale.detach().exp()) == pytest.approx(10)
    assert float(model.logit_bias.detach()) == -10
    assert model.logit_scale.shape == model.logit_bias.shape == ()


def test_every_parameter_is_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    given = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: given(*a, **k).fill_(torch.nan))
    for name, parameter in tiny(logit_bias=-10.0).named_parameters():
        assert parameter.isfinite().all(), name


def test_every_parameter_of_the_towers_gets_a_gradient() -> None:
    model = tiny().train()
    (model.encode_image(torch.randn(2, 3, 16, 16)).sum() + model.encode_text(TEXT).square().sum()).backward()
    for name, parameter in model.named_parameters():
        if name != "logit_scale":
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_projections_begin_at_the_inverse_root_of_the_width() -> None:
    torch.manual_seed(0)
    text, image = replace(TINY.text, width=64, heads=4), replace(TINY.image, width=256, heads=4)
    model = replace(TINY, text=text, image=image, embed_dim=512).build()
    assert float(model.image_projection.weight.detach().std()) == pytest.approx(256**-0.5, rel=0.02)
    assert float(model.text_projection.weight.detach().std()) == pytest.approx(64**-0.5, rel=0.02)


def test_the_seed_decides() -> None:
    one, two = tiny().state_dict(), tiny().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    torch.manual_seed(1)
    assert not torch.equal(TINY.build().text.pos_embed, one["text.pos_embed"])
