import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTForImageClassification, ViTModel
from transformers import ViTConfig as TheirConfig

from pictura.layers.stems import ConvStemConfig, PatchStemConfig
from pictura.models.classifier import Classifier, ClassifierConfig
from pictura.models.mixer import MixerConfig
from pictura.models.vit import ViTConfig
from pictura.weights.convert import write
from pictura.weights.family import Found
from pictura.weights.folder import empty
from pictura.weights.foreign import load_model
from pictura.weights.huggingface_family import HuggingFace
from pictura.weights.huggingface_vit import from_pictura, to_pictura
from tests.weights.peers import alike, identical, stir

SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
SHAPE |= {"image_size": 32, "patch_size": 8}
TOWER = ViTConfig(image_size=32, patch_size=8, width=64, depth=2, heads=4, mlp_ratio=1.5, eps=1e-12)
AS_THEIRS = {"resize": "squash", "interpolation": "bilinear"}
FILE = Path("model.safetensors")


def theirs(classes: int | None = 3, **changes: Any) -> ViTForImageClassification | ViTModel:
    """Without `classes` a ViTModel, which has a pooler."""
    config = TheirConfig(**SHAPE | ({"num_labels": classes} if classes else {}) | changes)
    return stir(ViTForImageClassification(config) if classes else ViTModel(config), 1)  # type: ignore[return-value]


def ours(**changes: Any) -> Classifier:
    config = ClassifierConfig(**{"image": TOWER} | changes)
    return stir(empty(config).to_empty(device="cpu"), 2)  # type: ignore[return-value]


def loaded(found: Found) -> Classifier:
    config, state = HuggingFace().read(found)
    model = empty(config).eval()
    model.load_state_dict(state, assign=True)
    assert isinstance(model, Classifier)
    return model


def pictures() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def beside(peer: Any, **preprocessor: Any) -> dict[str, Any]:
    files = {"config.json": json.loads(peer.config.to_json_string())}
    return files | ({"preprocessor_config.json": preprocessor} if preprocessor else {})


@torch.inference_mode()
@pytest.mark.parametrize("act", ["gelu", "gelu_pytorch_tanh", "quick_gelu"])
def test_a_classifier_that_transformers_saved(tmp_path: Path, act: str) -> None:
    peer = theirs(hidden_act=act, layer_norm_eps=1e-3)
    peer.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert "vit.encoder.layer.1.attention.attention.query.weight" in stored, "files have the names of version 4"
    model, tokenizer = load_model(tmp_path)
    assert isinstance(model, Classifier)
    assert tokenizer is None
    alike(model.eval().classify(pictures()), peer(pictures()).logits)
    identical(from_pictura(model.state_dict()), stored)
    written = HuggingFace().write(model.config, model.state_dict()).beside["config.json"]
    said = json.loads((tmp_path / "config.json").read_text())
    assert {key: said.get(key) for key in written if key != "torch_dtype"} == {
        key: value for key, value in written.items() if key != "torch_dtype"
    }


@torch.inference_mode()
def test_a_model_with_a_pooler_that_transformers_saved(tmp_path: Path) -> None:
    peer = theirs(None, pooler_output_size=24)
    peer.save_pretrained(tmp_path)
    model, _ = load_model(tmp_path)
    assert isinstance(model, Classifier)
    assert model.config == ClassifierConfig(image=TOWER, pre_logits=24, **AS_THEIRS)
    alike(model.eval().encode_image(pictures()), peer(pictures()).pooler_output)
    identical(from_pictura(model.state_dict()), load_file(tmp_path / "model.safetensors"))


@torch.inference_mode()
@pytest.mark.parametrize("classes", [3, None])
def test_names_of_version_5_in_memory(classes: int | None) -> None:
    peer = theirs(classes)
    state = peer.state_dict()
    assert any("layers.0.attention.q_proj" in name for name in state), "else this is version 4 and tests nothing"
    model = loaded(Found(file=FILE, state=state, beside=beside(peer)))
    out = peer(pictures())
    alike(model.classify(pictures()) if classes else model.encode_image(pictures()), out.logits if classes else out[1])


@torch.inference_mode()
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu"])
def test_a_written_classifier_is_loaded_by_transformers(tmp_path: Path, activation: Any) -> None:
    tower = replace(TOWER, activation=activation, eps=1e-6)
    model = ours(image=tower, classes=3, class_names=("red fox", "hen", "crane"), mean=(0.4, 0.5, 0.6))
    write(HuggingFace().write(model.config, model.state_dict()), None, tmp_path / "new")
    peer, report = ViTForImageClassification.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    alike(peer(pictures()).logits, model.classify(pictures()))
    assert peer.config.id2label == {0: "red fox", 1: "hen", 2: "crane"}
    assert peer.config.label2id["crane"] == 2
    assert isinstance(AutoModelForImageClassification.from_pretrained(tmp_path / "new"), ViTForImageClassification)
    assert tuple(AutoImageProcessor.from_pretrained(tmp_path / "new").image_mean) == (0.4, 0.5, 0.6)
    again, _ = load_model(tmp_path / "new")
    assert again.config == model.config
    identical(again.state_dict(), model.state_dict())


@torch.inference_mode()
def test_activations_are_not_taken_for_one_another() -> None:
    towers = [ours(image=replace(TOWER, activation=name)) for name in ("gelu", "gelu_tanh", "quick_gelu")]
    outs = [model.encode_image(pictures()) for model in towers]
    assert all((a - b).abs().max() > 1e-4 for a, b in [(outs[0], outs[1]), (outs[1], outs[2])])


@torch.inference_mode()
@pytest.mark.parametrize("pre_logits", [24, None])
def test_a_written_model_without_a_head(tmp_path: Path, pre_logits: int | None) -> None:
    model = ours(pre_logits=pre_logits)
    write(HuggingFace().write(model.config, model.state_dict()), None, tmp_path / "new")
    peer = ViTModel.from_pretrained(tmp_path / "new", add_pooling_layer=pre_logits is not None)
    out = peer(pictures())
    alike(out.pooler_output if pre_logits else out.last_hidden_state[:, 0], model.encode_image(pictures()))
    again, _ = load_model(tmp_path / "new")
    assert again.config == model.config
    identical(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_precision_is_kept_and_said(tmp_path: Path, dtype: torch.dtype) -> None:
    model = ours(classes=3).to(dtype)
    write(HuggingFace().write(model.config, model.state_dict()), None, tmp_path / "new")
    assert ViTForImageClassification.from_pretrained(tmp_path / "new", dtype="auto").dtype == dtype
    identical(load_model(tmp_path / "new")[0].state_dict(), model.state_dict())


@torch.inference_mode()
def test_a_head_of_zeros_gives_equal_scores() -> None:
    peer = theirs()
    torch.nn.init.zeros_(peer.classifier.weight)
    scores = loaded(Found(file=FILE, state=peer.state_dict(), beside=beside(peer))).classify(pictures())
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], peer.classifier.bias)


@torch.inference_mode()
def test_without_biases_of_queries_keys_and_values() -> None:
    """Zeros are the same model; written back it has them."""
    peer = theirs(qkv_bias=False)
    model = loaded(Found(file=FILE, state=peer.state_dict(), beside=beside(peer)))
    assert model.state_dict()["image.blocks.1.attn.qkv.bias"].eq(0).all()
    alike(model.classify(pictures()), peer(pictures()).logits)
    again = ViTForImageClassification(TheirConfig.from_dict(dict(_written(model).beside["config.json"])))
    assert again.config.qkv_bias


def _written(model: Classifier) -> Any:
    return HuggingFace().write(model.config, model.state_dict())


@torch.inference_mode()
def test_weights_alone() -> None:
    """What no shape says is what transformers does unasked: exact GELU, epsilon 1e-12, squashed pictures."""
    peer = theirs(hidden_size=192, num_attention_heads=3)
    model = loaded(Found(file=FILE, state=peer.state_dict()))
    tower = replace(TOWER, width=192, heads=3, mlp_ratio=0.5)
    assert model.config == ClassifierConfig(image=tower, classes=3, **AS_THEIRS)
    alike(model.classify(pictures()), peer(pictures()).logits)
    with pytest.raises(ValueError, match=r"heads: not known for a width of 48"):
        HuggingFace().read(Found(file=FILE, state=theirs(hidden_size=48).state_dict()))


@torch.inference_mode()
@pytest.mark.parametrize("prefix", ["module.", "model.", "module.backbone."])
def test_wrappers_are_taken_off_whole(prefix: str) -> None:
    peer = theirs()
    found = Found(file=FILE, state={f"{prefix}{n}": t for n, t in peer.state_dict().items()}, beside=beside(peer))
    assert HuggingFace().knows(found)
    alike(loaded(found).classify(pictures()), peer(pictures()).logits)


def test_a_pooler_beside_a_head_is_passed_over() -> None:
    """Files of before transformers 4.6 have one, which their head does not read."""
    peer = theirs()
    extra = {"vit.pooler.dense.weight": torch.ones(64, 64), "vit.pooler.dense.bias": torch.ones(64)}
    identical(to_pictura(dict(peer.state_dict()) | extra), to_pictura(peer.state_dict()))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"0": "hen", "1": "crane", "2": "fox"}, ("hen", "crane", "fox")),
        ({"2": "fox", "0": "hen", "1": "crane"}, ("hen", "crane", "fox")),
        ({"0": "crane", "1": "hen", "2": "crane"}, ("crane (0)", "hen", "crane (2)")),
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, ()),
        ({"0": "hen"}, ()),
        (["hen"], ()),
        (None, ()),
    ],
)
def test_names_of_classes(labels: Any, expected: tuple[str, ...]) -> None:
    peer = theirs()
    files = beside(peer)
    files["config.json"]["id2label"] = labels
    assert loaded(Found(file=FILE, state=peer.state_dict(), beside=files)).config.class_names == expected


@pytest.mark.parametrize(
    ("preprocessor", "expected"),
    [
        ({}, AS_THEIRS),
        ({"size": 32, "resample": 3}, {"resize": "squash", "interpolation": "bicubic"}),
        (
            {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [1, 1, 1]},
            AS_THEIRS | {"mean": (0.5, 0.4, 0.3), "std": (1.0, 1.0, 1.0)},
        ),
        ({"size": 256, "do_center_crop": True, "crop_size": 224}, AS_THEIRS | {"crop": 0.875}),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224},
            {"resize": "shortest", "interpolation": "bilinear", "crop": 0.875},
        ),
    ],
)
def test_what_pictures_go_through(preprocessor: dict[str, Any], expected: dict[str, Any]) -> None:
    peer = theirs()
    config = loaded(Found(file=FILE, state=peer.state_dict(), beside=beside(peer, **preprocessor))).config
    assert config == ClassifierConfig(image=TOWER, classes=3, **expected)


def test_where_version_5_says_how_pictures_are_prepared() -> None:
    peer = theirs()
    files = beside(peer) | {"processor_config.json": {"image_processor": {"image_mean": [0.1, 0.2, 0.3]}}}
    assert loaded(Found(file=FILE, state=peer.state_dict(), beside=files)).config.mean == (0.1, 0.2, 0.3)


def test_what_is_known_as_theirs() -> None:
    family = HuggingFace()
    for peer in (theirs(), theirs(None)):
        assert family.knows(Found(file=FILE, state=peer.state_dict()))
        assert family.knows(Found(file=FILE, state=from_pictura(to_pictura(peer.state_dict()))))
    for name in ("patch_embed.proj.weight", "conv_proj.weight", "stem.proj.weight", "conv1.weight", "visual.proj"):
        assert not family.knows(Found(file=FILE, state={name: torch.ones(1)}))


def test_what_does_not_fit_is_named() -> None:
    def refused(complaint: str, extra: Mapping[str, Tensor] | None = None, gone: str = "?", **config: Any) -> None:
        peer = theirs()
        state = {name: tensor for name, tensor in from_pictura(to_pictura(peer.state_dict())).items() if name != gone}
        files = {"config.json": beside(peer)["config.json"] | config}
        with pytest.raises(ValueError, match=complaint):
            HuggingFace().read(Found(file=FILE, state=state | dict(extra or {}), beside=files))

    layer = "vit.encoder.layer.0.attention.attention"
    refused(r"our classifier with a ViT has no place for decoder.0.weight$", {"decoder.0.weight": torch.ones(1)})
    refused(r"has no place for embeddings.distillation_token$", {"vit.embeddings.distillation_token": torch.ones(1)})
    refused(r"Hugging Face's ViT needs embeddings.cls_token, which is not there", gone="vit.embeddings.cls_token")
    refused(r"needs encoder.layer.0.attention.attention.key.bias, beside ", gone=f"{layer}.key.bias")
    refused(r"\[64, 64\], \[64, 8\], .*three of one shape", {f"{layer}.key.weight": torch.ones(64, 8)})
    refused(r"^config.json: model_type: expected 'vit', got 'dinov2'", model_type="dinov2")
    refused(r"^config.json: image_size: \[32, 64\] is not square", image_size=[32, 64])
    refused(r"^config.json: image.activation: expected one of 'gelu'", hidden_act="relu")
    peer = theirs(None, pooler_act="relu")
    with pytest.raises(ValueError, match=r"^config.json: pooler_act: 'relu' is not tanh"):
        HuggingFace().read(Found(file=FILE, state=peer.state_dict(), beside=beside(peer)))


def test_what_no_vit_of_theirs_can_be_is_named() -> None:
    def refused(complaint: str, **changes: Any) -> None:
        config = ClassifierConfig(**{"image": TOWER} | changes)
        with pytest.raises(ValueError, match=f"^{complaint}"):
            HuggingFace().write(config, empty(config).state_dict())

    mixer = MixerConfig(image_size=32, patch_size=8, width=64, depth=1, tokens=8, channels=8)
    refused(r"image\.kind: mixer: .*--to timm", image=mixer)
    refused(r"image\.pool: average: .*--to timm", image=replace(TOWER, pool="average"))
    refused(r"image\.pre_norm: True: .*--to timm", image=replace(TOWER, pre_norm=True))
    refused(r"image\.stem: .*'conv'", image=replace(TOWER, stem=ConvStemConfig()))
    refused(r"image\.stem: .*'bias': False", image=replace(TOWER, stem=PatchStemConfig(bias=False)))
    refused(r"pre_logits: 8: .*no pooler", classes=3, pre_logits=8)
