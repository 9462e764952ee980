import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, CLIPProcessor
from transformers import CLIPConfig as TheirConfig

from pictura.config import sized
from pictura.data.text import Tokenizer
from pictura.data.views import CropConfig
from pictura.layers.stems import ConvStemConfig, PatchStemConfig
from pictura.models.clip import CLIP, CLIPConfig
from pictura.models.mixer import MixerConfig
from pictura.models.pictures import normalise
from pictura.weights.convert import write
from pictura.weights.family import Found
from pictura.weights.folder import empty
from pictura.weights.foreign import load_model
from pictura.weights.huggingface import config_from, config_from_json, from_pictura, to_pictura
from pictura.weights.huggingface_family import HuggingFace
from tests.weights.peers import alike, examples, identical, loaded, ours, published, stir, undrawn

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
@pytest.mark.parametrize("size", [size for size in JSON if size != "ViT-B/32"])
def test_parity_at_full_depth(size: str) -> None:
    agree(size, None)


@pytest.mark.parametrize("size", JSON)
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


def theirs_of(config: CLIPConfig) -> CLIPModel:
    """A `CLIPModel` whose weights are stirred, by the config.json that we write."""
    json = HuggingFace().write(config, config.build().state_dict()).beside["config.json"]
    return stir(CLIPModel(TheirConfig.from_dict(dict(json))), 3)


@torch.inference_mode()
@pytest.mark.parametrize("activations", [("quick_gelu", "quick_gelu"), ("gelu", "gelu_tanh"), ("gelu_tanh", "gelu")])
def test_a_written_folder_is_loaded_by_transformers(
    tmp_path: Path, make: Make, tokenizer: Tokenizer, activations: tuple[str, str]
) -> None:
    model = with_towers(make(), *activations)
    write(HuggingFace().write(model.config, model.state_dict()), tokenizer, tmp_path / "new")
    peer, report = CLIPModel.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    image, words = torch.randn(2, 3, 32, 32), tokenizer(["a red dog", "the old house runs"])
    alike(model.encode_image(image), features(peer.get_image_features(pixel_values=image)))
    alike(model.encode_text(words), features(peer.get_text_features(input_ids=words)))
    assert peer.logit_scale == model.logit_scale
    again, _ = load_model(tmp_path / "new")
    assert again.config == model.config
    identical(again.state_dict(), model.state_dict())


def with_towers(model: CLIP, image: str, text: str) -> CLIP:
    """The same weights behind other activations, and epsilons that differ."""
    c = model.config
    towers = {"image": replace(c.image, activation=image, eps=1e-3), "text": replace(c.text, activation=text, eps=1e-4)}
    return loaded(replace(c, **towers), model.state_dict())


@torch.inference_mode()
def test_activations_are_not_taken_for_one_another(make: Make) -> None:
    """The parity above would be empty if the picture of a tanh GELU were within its tolerance of an exact one's."""
    image = torch.randn(2, 3, 32, 32)
    outs = [with_towers(make(), name, name).encode_image(image) for name in ("gelu", "gelu_tanh", "quick_gelu")]
    assert all((a - b).abs().max() > 1e-4 for a, b in [(outs[0], outs[1]), (outs[1], outs[2])])


@torch.inference_mode()
def test_a_folder_that_transformers_saved_is_written_back_as_it_was(
    tmp_path: Path, make: Make, tokenizer: Tokenizer
) -> None:
    config = with_towers(make(), "gelu_tanh", "quick_gelu").config
    peer = theirs_of(config)
    peer.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    model, _ = load_model(tmp_path)
    assert model.config == config
    image = torch.randn(2, 3, 32, 32)
    alike(model.eval().encode_image(image), features(peer.get_image_features(pixel_values=image)))
    written = HuggingFace().write(model.config, model.state_dict())
    identical(written.state, load_file(tmp_path / "model.safetensors"))
    said = json.loads((tmp_path / "config.json").read_text())
    for tower in ("vision_config", "text_config"):
        same = written.beside["config.json"][tower]
        assert {key: said[tower].get(key) for key in same} == same


@pytest.mark.parametrize("name", ["gelu_pytorch_tanh", "gelu_new", "gelu_accurate"])
def test_names_of_one_formula(name: str) -> None:
    config = config_from_json({"model_type": "clip", "vision_config": {"hidden_act": name}})
    assert (config.image.activation, config.text.activation) == ("gelu_tanh", "quick_gelu")


@torch.inference_mode()
def test_texts_read_at_the_highest_id_stay_so(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    """Our None is their eos_token_id 2; an end token of ours is theirs. What follows it must not matter."""
    words = tokenizer(["a red dog", "the old house runs"])
    for end, given in ((None, 2), (tokenizer.end, tokenizer.end)):
        model = make()
        model = loaded(replace(model.config, text=replace(model.config.text, end_token=end)), model.state_dict())
        written = HuggingFace().write(model.config, model.state_dict())
        assert written.beside["config.json"]["text_config"]["eos_token_id"] == given
        write(written, tokenizer, tmp_path / str(end))
        peer = CLIPModel.from_pretrained(tmp_path / str(end))
        alike(model.encode_text(words), features(peer.get_text_features(input_ids=words)))
        padded = torch.where((words == tokenizer.end).cumsum(1) > 0, tokenizer.end, words)
        alike(model.encode_text(words), features(peer.get_text_features(input_ids=padded)))
        assert load_model(tmp_path / str(end))[0].config == model.config


@torch.inference_mode()
def test_texts_go_through_transformers_as_through_ours(tmp_path: Path, make: Make, tokenizer: Tokenizer) -> None:
    """Token 0 is "!" in CLIP's form: as padding, transformers would cut it out of words."""
    model, texts = make(), ["a dog!", "the  \u201cold\u201d house runs, and runs, and runs!", "", "!!!"]
    write(HuggingFace().write(model.config, model.state_dict()), tokenizer, tmp_path / "new")
    words = AutoTokenizer.from_pretrained(tmp_path / "new")
    found = words(texts, padding=True, truncation=True, return_tensors="pt")
    ours = tokenizer(texts)
    end = (ours == tokenizer.end).int().argmax(1)[:, None] >= torch.arange(ours.shape[1])
    assert torch.equal(found["input_ids"], torch.where(end, ours, tokenizer.end))
    assert torch.equal(found["attention_mask"].bool(), end)
    assert (len(words), words.model_max_length) == (tokenizer.vocab_size, tokenizer.context_length)
    peer = CLIPModel.from_pretrained(tmp_path / "new")
    alike(model.encode_text(ours), features(peer.get_text_features(**found)))
    picture = Image.new("RGB", (40, 50), (255, 0, 128))
    both = CLIPProcessor.from_pretrained(tmp_path / "new")(text=["a dog"], images=picture, return_tensors="pt")
    assert both["pixel_values"].shape == (1, 3, 32, 32)
    assert both["input_ids"][0].tolist() == tokenizer(["a dog"])[0].tolist()


def test_another_form_keeps_its_own_tokens(make: Make) -> None:
    config = make().config
    config = replace(config, text=replace(config.text, end_token=102))
    written = HuggingFace().write(config, make().state_dict()).beside
    assert written["tokenizer_config.json"].keys() == {"tokenizer_class", "model_max_length"}
    assert written["config.json"]["text_config"]["bos_token_id"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"crop": 0.8},
        {"resize": "squash"},
        {"resize": "squash", "crop": 0.8, "interpolation": "bilinear"},
        {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)},
    ],
)
def test_pictures_go_through_transformers_as_the_configuration_says(
    tmp_path: Path, make: Make, tokenizer: Tokenizer, changes: dict[str, Any]
) -> None:
    model = make(**changes)
    c = model.config
    write(HuggingFace().write(c, model.state_dict()), tokenizer, tmp_path / "new")
    assert load_model(tmp_path / "new")[0].config == c
    pixels = torch.randint(0, 256, (48, 72, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    picture = Image.fromarray(pixels)
    found = AutoImageProcessor.from_pretrained(tmp_path / "new")(picture, return_tensors="pt")["pixel_values"][0]
    view = CropConfig(image_size=32, resize=c.resize, interpolation=c.interpolation, crop=c.crop).build()
    expected = normalise(view(picture, np.random.default_rng(0))[None], c.mean, c.std)[0]
    assert (found - expected).abs().max() < 0.03, "torchvision and PIL round apart by a few of 255"


@pytest.mark.parametrize(
    ("preprocessor", "expected"),
    [
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, 0.875),
        ({"size": 256, "crop_size": 224}, 0.875),
        ({"size": 256}, 0.875),
        ({"size": 248}, 0.9),
        ({"size": 232}, 0.965),
        ({"size": 224}, 1.0),
        ({"size": {"height": 256, "width": 256}, "crop_size": 192}, 0.75),
    ],
)
def test_the_share_that_the_middle_has(preprocessor: dict[str, Any], expected: float) -> None:
    assert config_from_json({"model_type": "clip"}, preprocessor).crop == expected


@pytest.mark.parametrize(
    ("preprocessor", "complaint"),
    [
        ({"size": 200}, "crop_size: 224 of a picture of 200 would leave black bars"),
        ({"crop_size": {"height": 224, "width": 200}}, "crop_size: .* gives pictures that are not square"),
        ({"rescale_factor": 1.0}, "rescale_factor: 1.0 is not 1/255"),
        ({"resample": [3]}, r"resample: \[3\] is neither"),
    ],
)
def test_processors_that_do_something_else(preprocessor: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        config_from_json({"model_type": "clip"}, preprocessor)


def test_weights_alone_are_openais(make: Make) -> None:
    state = from_pictura(make().state_dict())
    config, ours = HuggingFace().read(Found(file=Path("model.safetensors"), state=state))
    identical(ours, make().state_dict())
    assert isinstance(config, CLIPConfig)
    assert (config.image.activation, config.text.end_token) == ("quick_gelu", None)  # type: ignore[union-attr]


def test_what_is_known_as_theirs(make: Make) -> None:
    state, file = from_pictura(make().state_dict()), Path("model.safetensors")
    said = {"config.json": {"model_type": "clip"}}
    cut = {name: tensor for name, tensor in state.items() if "class_embedding" not in name}
    family = HuggingFace()
    assert family.knows(Found(file=file, state=state))
    assert family.knows(Found(file=file, state={f"module.{name}": tensor for name, tensor in state.items()}))
    assert family.knows(Found(file=file, state=cut, beside=said)), "so that what is missing is named"
    assert not family.knows(Found(file=file, state=cut))
    assert not family.knows(Found(file=file, state={"visual.proj": torch.ones(1)}, beside=said))
    with pytest.raises(ValueError, match=r"CLIPModel needs vision_model\.embeddings\.class_embedding"):
        family.read(Found(file=file, state=cut, beside=said))


def test_another_models_configuration_beside_is_named(make: Make) -> None:
    found = {"state": from_pictura(make().state_dict()), "file": Path("model.safetensors")}
    with pytest.raises(ValueError, match=r"^config\.json: model_type: expected 'clip', got 'siglip'"):
        HuggingFace().read(Found(**found, beside={"config.json": {"model_type": "siglip"}}))
    with pytest.raises(ValueError, match=r"^config\.json: text_config: expected a JSON object"):
        HuggingFace().read(Found(**found, beside={"config.json": {"model_type": "clip", "text_config": [1]}}))
    wrong = {"config.json": {"model_type": "clip"}, "processor_config.json": {"image_processor": {"resample": 1}}}
    with pytest.raises(ValueError, match=r"^processor_config\.json: resample: 1 is neither"):
        HuggingFace().read(Found(**found, beside=wrong))


def test_a_published_resnet_is_sent_to_open_clip() -> None:
    config = sized(CLIPConfig, "RN50")
    with pytest.raises(ValueError, match=r"^image\.kind: .*: its towers for pictures are ViTs; --to open_clip"):
        HuggingFace().write(config, empty(config).state_dict())


def test_what_no_clip_of_theirs_can_be_is_named(make: Make) -> None:
    def refused(config: CLIPConfig, complaint: str) -> None:
        with pytest.raises(ValueError, match=f"^{complaint}"):
            HuggingFace().write(config, config.build().state_dict())

    c = make().config
    refused(replace(c, logit_bias=-10.0), "logit_bias: -10.0: .*--to open_clip")
    refused(replace(c, projection_bias=True), "projection_bias: True: ")
    refused(replace(c, image=replace(c.image, pool="average")), "image.pool: average: .*the class token")
    refused(replace(c, image=replace(c.image, pre_norm=False)), "image.pre_norm: False: .*--to open_clip")
    refused(replace(c, image=replace(c.image, stem=ConvStemConfig())), "image.stem: {'kind': 'conv', 'channels': 32}")
    refused(replace(c, image=replace(c.image, stem=PatchStemConfig())), "image.stem: {'kind': 'patch', 'bias': True}")
    refused(replace(c, text=replace(c.text, end_token=2)), "text.end_token: 2: ")
    mixer = MixerConfig(image_size=32, patch_size=8, width=64, depth=1, tokens=8, channels=8)
    refused(replace(c, image=mixer), "image.kind: mixer: .*--to open_clip has CLIP's ResNets")
