import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from torch import nn

from pictura.config import sized
from pictura.data.text import Tokenizer
from pictura.layers.stems import ConvStemConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIP, CLIPConfig
from pictura.models.clip_resnet import CLIPResNetConfig
from pictura.models.mixer import MixerConfig
from pictura.weights.family import Found, Written, families
from pictura.weights.folder import empty, unfit
from pictura.weights.open_clip import (
    CONFIG,
    OpenCLIP,
    config_from,
    config_from_json,
    config_to_json,
    from_pictura,
    to_pictura,
)
from tests.weights.peers import PUBLISHED, RESNETS, alike, examples, identical, loaded, ours, published, stir, undrawn

NAMES = {
    "ViT-B/32": "ViT-B-32-quickgelu",
    "ViT-B/16": "ViT-B-16-quickgelu",
    "ViT-L/14": "ViT-L-14-quickgelu",
    "ViT-L/14@336": "ViT-L-14-336-quickgelu",
} | {size: f"{size}-quickgelu" for size in RESNETS}
Make = Callable[..., CLIP]


def theirs(size: str, depth: int | None = None, cls: type[nn.Module] = open_clip.CLIP, **changes: Any) -> nn.Module:
    """open_clip's own configuration of that size, with stirred weights."""
    given = copy.deepcopy(open_clip.get_model_config(NAMES[size])) | changes
    if depth is not None:
        given["text_cfg"]["layers"] = depth
        given["vision_cfg"]["layers"] = [depth] * 4 if size in RESNETS else depth
    with undrawn():
        model = cls(**given)
    return stir(model, 1)


@torch.inference_mode()
def agree(size: str, depth: int | None) -> None:
    config, peer = published(size, depth), theirs(size, depth)
    image, text = examples(config)
    state = peer.state_dict()
    converted = to_pictura(state)
    assert config_from(state, activation="quick_gelu") == config
    identical(from_pictura(converted), state)
    model = loaded(config, converted)
    alike(model.encode_image(image), peer.encode_image(image))
    alike(model.encode_text(text[:, :30]), peer.encode_text(text))
    assert model.logit_scale == peer.logit_scale
    model = ours(config, 2)
    peer.load_state_dict(from_pictura(model.state_dict()))
    alike(peer.encode_image(image), model.encode_image(image))
    alike(peer.encode_text(text), model.encode_text(text[:, :30]))


@pytest.mark.parametrize(
    ("size", "depth"),
    [("ViT-B/32", None), ("ViT-B/16", 1), ("ViT-L/14", 1), ("ViT-L/14@336", 2), ("RN50", 1), ("RN50x4", 1)],
)
def test_parity(size: str, depth: int | None) -> None:
    agree(size, depth)


@pytest.mark.slow
@pytest.mark.parametrize("size", [size for size in PUBLISHED | RESNETS if size != "ViT-B/32"])
def test_parity_at_full_depth(size: str) -> None:
    agree(size, None)


@pytest.mark.parametrize("size", PUBLISHED | RESNETS)
def test_published_configurations(size: str) -> None:
    assert config_from_json(open_clip.get_model_config(NAMES[size])) == sized(CLIPConfig, size)


@torch.inference_mode()
def test_custom_text_fsdp_and_ddp_forms() -> None:
    """A `CustomTextCLIP` with a bias and temperatures of shape (1), as a process group saved it."""
    config = replace(published("ViT-B/32", 1), logit_bias=-10.0)
    peer = theirs("ViT-B/32", 1, open_clip.CustomTextCLIP, init_logit_bias=-10, nonscalar_logit_scale=True)
    state = {f"module.{name}": tensor for name, tensor in peer.state_dict().items()}
    assert state["module.logit_scale"].shape == state["module.logit_bias"].shape == (1,)
    assert "module.text.ln_final.weight" in state
    assert config_from(state, activation="quick_gelu") == config
    model = loaded(config, to_pictura(state))
    image, text = examples(config)
    alike(model.encode_image(image), peer.encode_image(image))
    alike(model.encode_text(text[:, :30]), peer.encode_text(text))
    assert (model.logit_scale, model.logit_bias) == (peer.logit_scale, peer.logit_bias)


@torch.inference_mode()
def test_open_clip_reads_our_file_into_a_custom_text_model(tmp_path: Path) -> None:
    config = published("ViT-B/32", 1)
    model, peer = ours(config, 2), theirs("ViT-B/32", 1, open_clip.CustomTextCLIP)
    torch.save(from_pictura(model.state_dict()), tmp_path / "model.pt")
    open_clip.load_checkpoint(peer, str(tmp_path / "model.pt"))
    _, text = examples(config)
    alike(peer.encode_text(text), model.encode_text(text[:, :30]))


def test_openai_archives_form(make: Make) -> None:
    """Half precision, with three numbers that are no weights."""
    model = make()
    expected = {name: tensor.half() for name, tensor in model.state_dict().items()}
    numbers = {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}
    identical(to_pictura(from_pictura(expected) | numbers), expected)
    fresh = make(1)
    fresh.load_state_dict(to_pictura(from_pictura(expected)))
    assert {parameter.dtype for parameter in fresh.parameters()} == {torch.float32}


def test_projections_are_transposed(make: Make) -> None:
    state = make().state_dict()
    out = from_pictura(state)
    for mine, name in (("image_projection.weight", "visual.proj"), ("text_projection.weight", "text_projection")):
        assert out[name].shape == (64, 24)
        assert out[name].is_contiguous()
        assert torch.equal(out[name], state[mine].T)


def test_the_activation_matters_and_must_be_told(make: Make) -> None:
    state = from_pictura(make().state_dict())
    with pytest.raises(TypeError):
        config_from(state)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="activation: no 'swish' among gelu, gelu_tanh, quick_gelu"):
        config_from(state, activation="swish")  # type: ignore[arg-type]
    image = torch.randn(1, 3, 32, 32)
    quick, exact = (
        loaded(config_from(state, activation=name, image_heads=2, text_heads=4), to_pictura(state)).encode_image(image)
        for name in ("quick_gelu", "gelu")
    )
    assert (quick - exact).abs().max() > 1e-3


def test_a_configuration_from_shapes(make: Make, tokenizer: Any) -> None:
    model = make(logit_bias=-10.0)
    state = from_pictura(model.state_dict())
    assert config_from(state, activation="quick_gelu", image_heads=2, text_heads=4) == model.config
    with pytest.raises(ValueError, match="image_heads: 3 for a width of 64; give a number that divides it"):
        config_from(state, activation="gelu", image_heads=3)
    assert config_from(state, activation="gelu").image.heads == 1


def test_heads_of_odd_widths_must_be_told(make: Make) -> None:
    state = from_pictura(make().state_dict())
    state["visual.conv1.weight"] = state["visual.conv1.weight"][:48]
    with pytest.raises(ValueError, match="image_heads: not known for a width of 48"):
        config_from(state, activation="gelu")


def test_what_does_not_fit_is_named(make: Make) -> None:
    state = from_pictura(make().state_dict())
    with pytest.raises(
        ValueError, match=r"our CLIP of a ViT and a text Transformer has no place for visual.ls, x.1.y$"
    ):
        to_pictura(state | {"visual.ls": torch.ones(1), "x.1.y": torch.ones(1)})
    with pytest.raises(ValueError, match=r"open_clip's CLIP with a ViT needs visual.proj, which is not there"):
        to_pictura({name: tensor for name, tensor in state.items() if name != "visual.proj"})
    with pytest.raises(ValueError, match="blocks: numbered \\[1\\], not from 0 on"):
        config_from({name: t for name, t in state.items() if ".0." not in name}, activation="gelu")
    state["visual.positional_embedding"] = torch.ones(8, 64)
    with pytest.raises(ValueError, match="7 patches make no square"):
        config_from(state, activation="gelu")


@pytest.mark.parametrize("size", RESNETS)
def test_every_resnet_from_its_shapes(size: str) -> None:
    """At full depth, without memory for the weights."""
    with torch.device("meta"), undrawn():
        peer = open_clip.CLIP(**open_clip.get_model_config(NAMES[size]))
    state = peer.state_dict()
    config = sized(CLIPConfig, size)
    assert config_from(state, activation="quick_gelu") == config
    converted = to_pictura(state)
    assert not unfit(
        dict.fromkeys(converted, torch.zeros(())), dict.fromkeys(empty(config).state_dict(), torch.zeros(()))
    )
    back = from_pictura(converted)
    assert {name: (t.shape, t.dtype) for name, t in back.items()} == {n: (t.shape, t.dtype) for n, t in state.items()}


def test_a_resnets_parts_that_do_not_fit_are_named() -> None:
    with undrawn():
        state = theirs("RN50", 1).state_dict()
    with pytest.raises(ValueError, match=r"our CLIP of a ResNet and a text Transformer has no place for visual.proj$"):
        to_pictura(state | {"visual.proj": torch.ones(1)})
    with pytest.raises(ValueError, match=r"with a ResNet needs visual.bn1.running_mean, which is not there"):
        to_pictura({name: tensor for name, tensor in state.items() if name != "visual.bn1.running_mean"})
    with pytest.raises(ValueError, match=r"^image.layer3: numbered \[\], not from 0 on"):
        config_from({name: t for name, t in state.items() if ".layer3." not in name}, activation="gelu")
    with pytest.raises(ValueError, match=r"^image_heads: 7 for a width of 2048; give a number that divides it"):
        config_from(state, activation="gelu", image_heads=7)
    assert config_from(state, activation="gelu", image_heads=8).image.heads == 8


def test_average_pooling_has_no_place_there(make: Make) -> None:
    state = {name: tensor for name, tensor in make().state_dict().items() if name != "image.cls_token"}
    with pytest.raises(ValueError, match=r"needs image.cls_token"):
        from_pictura(state)


def test_a_whole_json(tmp_path: Path) -> None:
    file = tmp_path / "open_clip_config.json"
    file.write_text(
        """{"model_cfg": {"embed_dim": 64, "custom_text": true, "init_logit_bias": -10, "init_logit_scale": 2.3,
        "vision_cfg": {"image_size": [96, 96], "layers": 3, "width": 160, "head_width": 80, "patch_size": 16,
                       "mlp_ratio": 2.5, "no_ln_pre": true, "norm_kwargs": {"eps": 1e-6}, "timm_pool": "avg"},
        "text_cfg": {"width": 128, "heads": 4, "layers": 2, "vocab_size": 100, "context_length": 8,
                     "hf_tokenizer_name": "a/b", "pool_type": "eos", "eos_id": 99}},
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear",
                           "resize_mode": "squash", "size": 96, "mode": "RGB"}}"""
    )
    config = config_from_json(file)
    image, text = config.image, config.text
    assert (image.image_size, image.depth, image.width, image.heads, image.patch_size) == (96, 3, 160, 2, 16)
    assert (image.mlp_ratio, image.pre_norm, image.eps, image.activation) == (2.5, False, 1e-6, "gelu")
    assert (text.width, text.heads, text.depth, text.vocab_size, text.context_length) == (128, 4, 2, 100, 8)
    assert (text.end_token, text.eps) == (99, 1e-5)
    assert (config.embed_dim, config.logit_bias, config.logit_scale) == (64, -10.0, 2.3)
    assert (config.mean, config.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (config.resize, config.interpolation) == ("squash", "bilinear")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("ViT-B-16-SigLIP", "timm_model_name: 'vit_base_patch16_siglip_224' changes what the weights mean"),
        ("roberta-ViT-B-32", "text_cfg.hf_model_name: 'roberta-base' changes"),
        ("ViT-L-14-CLIPA", "vision_cfg.pool_type: 'avg'|text_cfg.pool_type: 'last'|no_causal_mask"),
        ("EVA02-B-16", "vision_cfg.timm_model_name"),
    ],
)
def test_other_models_are_refused(name: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        config_from_json(open_clip.get_model_config(name))


def test_every_model_of_theirs_is_right_or_refused() -> None:
    """Of open_clip's own list, what we take for a CLIP has the parameters that theirs has."""
    taken = 0
    for name in open_clip.list_models():
        given = open_clip.get_model_config(name)
        try:
            config = config_from_json(given)
        except ValueError:
            continue
        with torch.device("meta"), undrawn():
            cls = open_clip.CustomTextCLIP if given.pop("custom_text", False) else open_clip.CLIP
            state = cls(**{k: v for k, v in given.items() if k != "multimodal_cfg"}).state_dict()
            model = config.build()
        found = to_pictura(state)
        assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in model.state_dict().items()}, name
        taken += 1
    assert taken > 20


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "cannot|Expecting"),
        ("[1]", r"expected a JSON object, got \[1\]"),
        ("{}", "embed_dim: missing"),
        ('{"embed_dim": "many"}', "embed_dim: expected int, got 'many'"),
        ('{"embed_dim": 8, "vision_cfg": 3}', "vision_cfg: expected a JSON object, got 3"),
        ('{"embed_dim": 8, "vision_cfg": {"norm_kwargs": {"bias": false}}}', "norm_kwargs"),
        ('{"embed_dim": 8, "text_cfg": {"act_kwargs": {"approximate": "tanh"}}}', "act_kwargs"),
        ('{"model_cfg": {"embed_dim": 8}, "preprocess_cfg": {"resize_mode": "longest"}}', "resize: expected one of"),
    ],
)
def test_json_that_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "open_clip_config.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^{file}: .*({complaint})"):
        config_from_json(file)


def test_json_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no.json: No such file"):
        config_from_json(tmp_path / "no.json")


def found(written: Written, **changes: Any) -> Found:
    return replace(Found(file=Path("x") / written.file, state=written.state, beside=written.beside), **changes)


def small_resnet(seed: int = 0, **changes: Any) -> CLIP:
    text = sized(CLIPConfig, "RN50").text
    image = CLIPResNetConfig(image_size=64, layers=(1, 2, 1, 1), width=16, heads=4)
    changes = {"image": image, "text": replace(text, width=64, depth=1, heads=4)} | changes
    return ours(CLIPConfig(embed_dim=24, projection_bias=True, **changes), seed)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["vit", "clip_resnet"])
def test_open_clip_opens_our_folder(kind: str, make: Make, tmp_path: Path) -> None:
    """Its architecture, its weights and how pictures are prepared, all from what we write."""
    rule = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "resize": "squash", "interpolation": "bilinear"}
    model = (make if kind == "vit" else small_resnet)(2, **rule, logit_scale=2.0, logit_bias=-7.0).eval()
    written = OpenCLIP().write(model.config, model.state_dict())
    assert written.file == "open_clip_model.safetensors"
    save_file(written.state, tmp_path / written.file)
    (tmp_path / CONFIG).write_text(json.dumps(written.beside[CONFIG]))
    peer, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}", require_pretrained=True)
    size = model.config.image.image_size
    image, text = torch.randn(2, 3, size, size), torch.randint(1, 500, (3, model.config.text.context_length))
    alike(peer.eval().encode_image(image), model.encode_image(image))
    alike(peer.encode_text(text), model.encode_text(text))
    assert (peer.logit_scale, peer.logit_bias) == (model.logit_scale, model.logit_bias)
    assert (prepare.transforms[-1].mean, prepare.transforms[-1].std) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert prepare.transforms[0].size in (size, (size, size))
    assert prepare.transforms[0].interpolation.value == "bilinear"
    assert peer.visual.preprocess_cfg["resize_mode"] == "squash"


def test_open_clip_finds_our_tokenizer(make: Make, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Left to itself it takes CLIP's, whose ids another model has no place for."""
    written = OpenCLIP().write(make().config, make().state_dict())
    (tmp_path / CONFIG).write_text(json.dumps(written.beside[CONFIG]))
    tokenizer.save(tmp_path / "tokenizer.json")
    texts = ["a red dog", "the old house"]
    assert torch.equal(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(texts), tokenizer(texts))
    assert "hf_tokenizer_name" not in config_to_json(sized(CLIPConfig, "RN50"))["model_cfg"]["text_cfg"]


@pytest.mark.parametrize("kind", ["vit", "clip_resnet"])
def test_a_family_both_ways(kind: str, make: Make) -> None:
    family = OpenCLIP()
    model = (make if kind == "vit" else small_resnet)(1, logit_bias=-10.0)
    written = family.write(model.config, model.state_dict())
    assert family.knows(found(written))
    config, state = family.read(found(written))
    assert config == model.config
    identical(state, model.state_dict())
    identical(family.write(config, state).state, written.state)
    half = {name: t.half() if t.is_floating_point() else t for name, t in written.state.items()}
    identical(from_pictura(family.read(found(written, state=half))[1]), half)


@pytest.mark.parametrize("size", PUBLISHED | RESNETS)
def test_configurations_both_ways(size: str) -> None:
    config = sized(CLIPConfig, size)
    found = config_to_json(config)
    assert config_from_json(json.loads(json.dumps(found))) == config
    given = open_clip.get_model_config(NAMES[size])
    assert {key: found["model_cfg"][key] for key in ("embed_dim", "quick_gelu")} == {
        key: given[key] for key in ("embed_dim", "quick_gelu")
    }
    for tower in ("vision_cfg", "text_cfg"):
        assert found["model_cfg"][tower].items() >= given[tower].items()


def test_unusual_configurations_both_ways(make: Make) -> None:
    config = make(logit_bias=-3.0, logit_scale=1.5, std=(0.1, 0.2, 0.3), resize="squash").config
    image = replace(config.image, pre_norm=False, eps=1e-6, mlp_ratio=2.5, patch_dropout=0.5, activation="gelu")
    text = replace(config.text, end_token=3, eps=1e-7, activation="gelu")
    config = replace(config, image=image, text=text)
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config
    trained = replace(config, image=replace(image, drop_path=0.1), text=replace(text, dropout=0.1))
    assert config_from_json(config_to_json(trained)) == config
    config = small_resnet().config
    assert config_to_json(config)["model_cfg"]["vision_cfg"]["head_width"] == 128
    assert config_from_json(config_to_json(config)) == config
    ordinary = replace(config, image=replace(config.image, heads=None))
    assert config_from_json(config_to_json(ordinary)) == replace(config, image=replace(config.image, heads=8))


@pytest.mark.parametrize(
    ("tower", "change", "complaint"),
    [
        ("image", {"pool": "average"}, "no place for image.pool: average$"),
        ("image", {"activation": "gelu"}, "no place for image.activation: gelu$"),
        ("text", {"activation": "gelu_tanh"}, "no place for image.activation: quick_gelu, text.activation: gelu_tanh$"),
        ("image", {"stem": ConvStemConfig()}, "no place for image.stem.channels: 32, image.stem.kind: conv$"),
        ("", {"crop": 0.875}, "no place for crop: 0.875$"),
        ("", {"projection_bias": True}, "no place for projection_bias: True$"),
        ("", {"image": MixerConfig()}, "no place for the towers mixer and transformer$"),
    ],
)
def test_models_that_have_no_place_there(tower: str, change: Any, complaint: str, make: Make) -> None:
    model = make()
    config = model.config
    config = replace(config, **({tower: replace(getattr(config, tower), **change)} if tower else change))
    with pytest.raises(ValueError, match=complaint):
        config_to_json(config)


def test_a_classifier_has_no_place_there() -> None:
    config = ClassifierConfig(image=CLIPResNetConfig(), classes=2)
    with pytest.raises(ValueError, match=r"open_clip has no place for a classifier, only for a clip$"):
        OpenCLIP().write(config, {})


def test_bare_weights_are_refused(make: Make) -> None:
    """Unless three numbers among them say that they are OpenAI's, and so with which activation they were trained."""
    for model in (make(1), small_resnet(1)):
        state = from_pictura(model.state_dict())
        bare = Found(file=Path("model.pt"), state=state)
        assert OpenCLIP().knows(bare)
        with pytest.raises(ValueError, match=r"^no shape tells .* put the model's open_clip_config.json beside it"):
            OpenCLIP().read(bare)
        numbers = {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}
        openais = replace(bare, state=state | numbers)
        assert [name for name, family in families().items() if family.knows(openais)] == ["openai"]


def test_mistakes_name_the_configuration(make: Make) -> None:
    written = OpenCLIP().write(make().config, make().state_dict())
    del written.beside[CONFIG]["model_cfg"]["embed_dim"]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"^open_clip_config.json: embed_dim: missing"):
        OpenCLIP().read(found(written))


def test_what_it_knows(make: Make) -> None:
    family = OpenCLIP()
    state = from_pictura(make().state_dict())
    with torch.device("meta"):
        custom = open_clip.CustomTextCLIP(**open_clip.get_model_config("RN50")).state_dict()
        given = open_clip.get_model_config("ViT-B-16-SigLIP")
        siglip = open_clip.CustomTextCLIP(**{k: v for k, v in given.items() if k != "custom_text"}).state_dict()
        hugging = transformers.CLIPModel(transformers.CLIPConfig()).state_dict()
        resnet, vit = (timm.create_model(name).state_dict() for name in ("resnet18", "vit_tiny_patch16_224"))
    wrapped = {f"module.{name}": tensor for name, tensor in custom.items()}
    beside = {CONFIG: {"model_cfg": given}}
    for mine in (state, custom, wrapped):
        knowing = [name for name, other in families().items() if other.knows(Found(file=Path("x"), state=mine))]
        assert knowing == ["open_clip"]
    for other in (siglip, hugging, resnet, vit, torchvision.models.resnet18().state_dict()):
        assert not family.knows(Found(file=Path("x"), state=other))
    for other in (hugging, resnet, vit):
        assert not family.knows(Found(file=Path("x"), state=other, beside=beside))
    claimed = Found(file=Path("x"), state=siglip, beside=beside)
    assert family.knows(claimed)
    with pytest.raises(
        ValueError, match=r"^open_clip_config.json: .*timm_model_name: .* changes what the weights mean"
    ):
        family.read(claimed)
