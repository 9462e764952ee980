import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from pictura.config import sized
from pictura.models.clip import CLIP, CLIPConfig
from pictura.weights.open_clip import config_from, config_from_json, from_pictura, to_pictura
from tests.weights.peers import PUBLISHED, alike, examples, identical, loaded, ours, published, stir, undrawn

NAMES = {
    "ViT-B/32": "ViT-B-32-quickgelu",
    "ViT-B/16": "ViT-B-16-quickgelu",
    "ViT-L/14": "ViT-L-14-quickgelu",
    "ViT-L/14@336": "ViT-L-14-336-quickgelu",
}
Make = Callable[..., CLIP]


def theirs(size: str, depth: int | None = None, cls: type[nn.Module] = open_clip.CLIP, **changes: Any) -> nn.Module:
    """open_clip's own configuration of that size, with stirred weights."""
    given = copy.deepcopy(open_clip.get_model_config(NAMES[size])) | changes
    for tower in ("vision_cfg", "text_cfg"):
        given[tower]["layers"] = depth or given[tower]["layers"]
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


@pytest.mark.parametrize(("size", "depth"), [("ViT-B/32", None), ("ViT-B/16", 1), ("ViT-L/14", 1), ("ViT-L/14@336", 2)])
def test_parity(size: str, depth: int | None) -> None:
    agree(size, depth)


@pytest.mark.slow
@pytest.mark.parametrize("size", [size for size in PUBLISHED if size != "ViT-B/32"])
def test_parity_at_full_depth(size: str) -> None:
    agree(size, None)


@pytest.mark.parametrize("size", PUBLISHED)
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


def test_a_resnet_is_refused() -> None:
    with undrawn():
        peer = open_clip.CLIP(**open_clip.get_model_config("RN50"))
    with pytest.raises(ValueError, match=r"a ViT needs visual.class_embedding"):
        to_pictura(peer.state_dict())
    with pytest.raises(ValueError, match=r"image.depth: expected int, got"):
        config_from_json(open_clip.get_model_config("RN50"))


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
