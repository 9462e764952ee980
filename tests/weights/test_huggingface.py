import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig as TheirConfig
from transformers import CLIPModel

from pictura.config import sized
from pictura.models.clip import CLIP, CLIPConfig
from pictura.weights.huggingface import config_from, config_from_json, from_pictura, to_pictura
from tests.weights.peers import PUBLISHED, alike, examples, identical, loaded, ours, published, stir, undrawn

Make = Callable[..., CLIP]
B32 = {
    "projection_dim": 512,
    "text_config": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8},
    "vision_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
    },
}
L14 = {
    "projection_dim": 768,
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
}
JSON: dict[str, dict[str, Any]] = {
    "ViT-B/32": B32,
    "ViT-B/16": B32 | {"vision_config": B32["vision_config"] | {"patch_size": 16}},  # type: ignore[operator]
    "ViT-L/14": L14,
    "ViT-L/14@336": L14 | {"vision_config": L14["vision_config"] | {"image_size": 336}},  # type: ignore[operator]
}
"""What matters in the config.json of openai/clip-vit-base-patch32 and so on."""


def theirs(size: str, depth: int | None = None, **text: Any) -> CLIPModel:
    config = TheirConfig(**JSON[size])
    for tower in (config.text_config, config.vision_config):
        tower.num_hidden_layers = depth or tower.num_hidden_layers
    for name, value in text.items():
        setattr(config.text_config, name, value)
    with undrawn():
        return stir(CLIPModel(config), 1)


def features(given: Tensor | Any) -> Tensor:
    return given if isinstance(given, Tensor) else given.pooler_output  # transformers 4 or 5


@torch.inference_mode()
def agree(size: str, depth: int | None) -> None:
    config, peer = published(size, depth), theirs(size, depth)
    image, text = examples(config)
    state = peer.state_dict()
    converted = to_pictura(state)
    assert config_from(state, activation="quick_gelu") == config
    identical(from_pictura(converted), state)
    model = loaded(config, converted)
    alike(model.encode_image(image), features(peer.get_image_features(pixel_values=image)))
    alike(model.encode_text(text[:, :30]), features(peer.get_text_features(input_ids=text)))
    assert model.logit_scale == peer.logit_scale
    model = ours(config, 2)
    peer.load_state_dict(from_pictura(model.state_dict()))
    alike(features(peer.get_image_features(pixel_values=image)), model.encode_image(image))
    alike(features(peer.get_text_features(input_ids=text)), model.encode_text(text[:, :30]))


@pytest.mark.parametrize(("size", "depth"), [("ViT-B/32", None), ("ViT-B/16", 1), ("ViT-L/14", 1), ("ViT-L/14@336", 2)])
def test_parity(size: str, depth: int | None) -> None:
    agree(size, depth)


@pytest.mark.slow
@pytest.mark.parametrize("size", [size for size in PUBLISHED if size != "ViT-B/32"])
def test_parity_at_full_depth(size: str) -> None:
    agree(size, None)


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_configurations(size: str) -> None:
    written = json.loads(TheirConfig(**JSON[size]).to_json_string(use_diff=False))
    for given in (written, {"model_type": "clip"} | JSON[size]):  # with everything spelt out, and with the least
        config = config_from_json(given)
        text = replace(config.text, end_token=None)
        assert config.text.end_token == 49407
        assert config.logit_scale == pytest.approx(sized(CLIPConfig, size).logit_scale, abs=1e-4)
        assert replace(config, text=text, logit_scale=sized(CLIPConfig, size).logit_scale) == sized(CLIPConfig, size)


@torch.inference_mode()
@pytest.mark.parametrize(("eos", "end_token"), [(2, None), (49407, 49407), (320, 320)])
def test_where_the_text_is_read(eos: int, end_token: int | None) -> None:
    """eos_token_id 2 stands in old files and means the highest id; any other is read where it first stands."""
    peer = theirs("ViT-B/32", 1, eos_token_id=eos)
    config = config_from_json({"model_type": "clip"} | peer.config.to_dict())
    assert config.text.end_token == end_token
    model = loaded(config, to_pictura(peer.state_dict()))
    text = torch.tensor([[49406, 5, 320, 9, 49407, 49407, 0], [49406, 320, 2, 49407, 320, 2, 0]])
    alike(model.encode_text(text), features(peer.get_text_features(input_ids=text)))
    read = [2, 1] if eos == 320 else [4, 3]
    for row, at in zip(text, read, strict=True):
        alike(model.encode_text(row[None, : at + 1]), features(peer.get_text_features(input_ids=row[None])))


def test_queries_keys_and_values_in_this_order(make: Make) -> None:
    state = make().state_dict()
    out = from_pictura(state)
    for part in ("weight", "bias"):
        whole = state[f"image.blocks.1.attn.qkv.{part}"]
        for i, one in enumerate("qkv"):
            third = out[f"vision_model.encoder.layers.1.self_attn.{one}_proj.{part}"]
            assert torch.equal(third, whole[64 * i : 64 * (i + 1)])


def test_a_written_file_is_read_again(tmp_path: Path, make: Make) -> None:
    """Safetensors refuses tensors that share memory: nothing of ours may be a view of another."""

    state = make().state_dict()
    save_file({n: t.contiguous() for n, t in from_pictura(state).items()}, tmp_path / "model.safetensors")
    identical(to_pictura(load_file(tmp_path / "model.safetensors")), state)


def test_old_files_positions_and_half_precision(make: Make) -> None:
    expected = {name: tensor.half() for name, tensor in make().state_dict().items()}
    positions = {f"{t}_model.embeddings.position_ids": torch.arange(5)[None] for t in ("text", "vision")}
    identical(to_pictura(from_pictura(expected) | positions), expected)


def test_a_configuration_from_shapes(make: Make) -> None:
    model = make()
    found = config_from(from_pictura(model.state_dict()), activation="quick_gelu", image_heads=2, text_heads=4)
    assert found == model.config


def test_what_does_not_fit_is_named(make: Make) -> None:
    model = make()
    state = from_pictura(model.state_dict())
    key = "text_model.encoder.layers.0.self_attn.k_proj.bias"
    with pytest.raises(ValueError, match=rf"Hugging Face's CLIPModel needs {key}, beside "):
        to_pictura({name: tensor for name, tensor in state.items() if name != key})
    with pytest.raises(ValueError, match=r"needs vision_model.pre_layrnorm.bias, which is not there"):
        to_pictura({name: tensor for name, tensor in state.items() if name != "vision_model.pre_layrnorm.bias"})
    with pytest.raises(ValueError, match=r"has no place for vision_model.head.weight$"):
        to_pictura(state | {"vision_model.head.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"Hugging Face's CLIPModel has no place for logit_bias$"):
        from_pictura(make(logit_bias=-10.0).state_dict())
    with pytest.raises(ValueError, match=r"CLIPModel needs image.norm_pre.bias, image.norm_pre.weight, which are not"):
        from_pictura({name: tensor for name, tensor in model.state_dict().items() if "norm_pre" not in name})


def test_the_towers_of_a_json_are_read() -> None:
    config = config_from_json(
        {
            "model_type": "clip",
            "projection_dim": 24,
            "logit_scale_init_value": 2.0,
            "text_config": {"hidden_size": 32, "vocab_size": 99, "max_position_embeddings": 7, "hidden_act": "gelu"},
            "text_config_dict": {"hidden_size": 64},
            "vision_config": {"image_size": 64, "patch_size": 8, "num_hidden_layers": 3, "layer_norm_eps": 1e-6},
            "vision_config_dict": None,
        }
    )
    assert (config.embed_dim, config.logit_scale) == (24, 2.0)
    assert (config.text.width, config.text.mlp_ratio, config.text.vocab_size) == (64, 32.0, 99)
    assert (config.text.context_length, config.text.activation, config.text.heads) == (7, "gelu", 8)
    assert (config.image.image_size, config.image.patch_size, config.image.depth) == (64, 8, 3)
    assert (config.image.eps, config.image.activation, config.image.width) == (1e-6, "quick_gelu", 768)


@pytest.mark.parametrize(
    ("preprocessor", "expected"),
    [
        ({}, {}),
        ({"size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True}, {}),
        ({"size": 224, "resample": 2}, {"interpolation": "bilinear"}),
        ({"size": {"height": 96, "width": 96}, "do_center_crop": False}, {"resize": "squash"}),
        ({"image_mean": [0.5, 0.4, 0.3], "image_std": [1, 1, 1]}, {"mean": (0.5, 0.4, 0.3), "std": (1.0, 1.0, 1.0)}),
    ],
)
def test_what_pictures_go_through(preprocessor: dict[str, Any], expected: dict[str, Any]) -> None:
    plain = config_from_json({"model_type": "clip"})
    assert config_from_json({"model_type": "clip"}, preprocessor) == replace(plain, **expected)


@pytest.mark.parametrize(
    ("preprocessor", "complaint"),
    [
        ({"size": {"shortest_edge": 224}, "do_center_crop": False}, "pictures that are not square"),
        ({"size": {"height": 96, "width": 80}}, "pictures that are not square"),
        ({"resample": 1}, r"resample: 1 is neither 2 \(bilinear\) nor 3"),
        ({"do_normalize": False}, "do_normalize: false"),
        ({"image_mean": 0.5}, "mean: expected a list of 3"),
    ],
)
def test_pictures_that_we_could_not_prepare(tmp_path: Path, preprocessor: dict[str, Any], complaint: str) -> None:
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(preprocessor))
    with pytest.raises(ValueError, match=f"^{file}: .*{complaint}"):
        config_from_json({"model_type": "clip"}, file)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"model_type": "siglip"}, "model_type: expected 'clip', got 'siglip'"),
        ({}, "model_type: expected 'clip', got None"),
        ({"model_type": "clip", "vision_config": {"hidden_size": "wide"}}, "hidden_size and intermediate_size"),
        ({"model_type": "clip", "text_config": {"hidden_act": "relu"}}, "text.activation: expected one of 'gelu'"),
        ({"model_type": "clip", "text_config": [1]}, "text_config: expected a JSON object"),
    ],
)
def test_json_that_is_wrong(tmp_path: Path, given: dict[str, Any], complaint: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(given))
    with pytest.raises(ValueError, match=f"^{file}: {complaint}"):
        config_from_json(file)
