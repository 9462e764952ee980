import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer, _load_weights
from timm.models.vision_transformer_hybrid import HybridEmbed, _resnetv2
from torch import Tensor, nn

from pictura.layers.resnet_stem import ResNetStemConfig
from pictura.layers.stems import ConvStemConfig, PatchStemConfig
from pictura.models.classifier import Classifier, ClassifierConfig
from pictura.models.clip import CLIPConfig
from pictura.models.mixer import MixerConfig
from pictura.models.vit import ViTConfig
from pictura.weights.family import Found, Written, families
from pictura.weights.files import read_tensors
from pictura.weights.folder import empty, unfit
from pictura.weights.google import Google, waves
from tests.weights.peers import alike, identical, stir

SHAPE = {"image_size": 32, "patch_size": 8, "width": 48, "depth": 3, "activation": "gelu_tanh", "eps": 1e-6}
ALWAYS: dict[str, Any] = {"resize": "squash", "interpolation": "bilinear"}
VIT = ClassifierConfig(image=ViTConfig(**SHAPE, heads=3, mlp_ratio=2.0), classes=5, **ALWAYS)
MIXER = ClassifierConfig(image=MixerConfig(**SHAPE, tokens=20, channels=70), classes=5, **ALWAYS)
CONFIGS = {
    "class": VIT,
    "average": replace(VIT, image=replace(VIT.image, pool="average")),
    "pre_logits": replace(VIT, pre_logits=11),
    "no head": replace(VIT, classes=0),
    "hybrid": replace(VIT, image=replace(VIT.image, stem=ResNetStemConfig(layers=(2, 1)))),
    "root": replace(VIT, image=replace(VIT.image, patch_size=16, stem=ResNetStemConfig(layers=()))),
    "mixer": MIXER,
    "mixer without head": replace(MIXER, classes=0),
}
BIG_VISION = {
    "Transformer/posembed_input/pos_embedding": "pos_embedding",
    "LayerNorm_2": "LayerNorm_1",
    "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
    "MlpBlock_3": "MlpBlock_0",
}


def model_of(config: ClassifierConfig, seed: int = 0) -> Classifier:
    model = stir(config.build(), seed)
    assert isinstance(model, Classifier)
    return model


def arrays_of(config: ClassifierConfig, seed: int = 0) -> dict[str, Any]:
    written = Google().write(config, model_of(config, seed).state_dict())
    return {name: tensor.numpy() for name, tensor in written.state.items()}


def stored(path: Path, arrays: dict[str, Any]) -> Found:
    np.savez(path, **arrays)
    return Found(file=path, state=read_tensors(path))


def read(found: Found) -> tuple[ClassifierConfig, dict[str, Tensor]]:
    assert [family.name for family in families().values() if family.knows(found)] == ["google"]
    config, state = Google().read(found)
    assert isinstance(config, ClassifierConfig)
    return config, state


def loaded(config: ClassifierConfig, state: dict[str, Tensor]) -> Classifier:
    model = empty(config).eval()
    model.load_state_dict(state, assign=True)
    assert isinstance(model, Classifier)
    return model


def picture(config: ClassifierConfig) -> Tensor:
    size = config.tower.image_size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def theirs(config: ClassifierConfig, path: Path, **changes: Any) -> nn.Module:
    """timm's model with the weights of a file, as timm itself reads it."""
    c = config.tower
    assert isinstance(c, ViTConfig)
    given: dict[str, Any] = {"img_size": c.image_size, "patch_size": c.patch_size, "embed_dim": c.width}
    given |= {"depth": c.depth, "num_heads": c.heads, "mlp_ratio": c.mlp_ratio, "num_classes": config.classes}
    given |= {"act_layer": "gelu_tanh", "fc_norm": False, "class_token": c.pool == "class"}
    given["global_pool"] = "token" if c.pool == "class" else "avg"
    if isinstance(c.stem, ResNetStemConfig):
        given["embed_layer"] = partial(HybridEmbed, backbone=_resnetv2(c.stem.layers))
        given["patch_size"] = c.patch_size // c.stem.stride
    with torch.no_grad():
        model = VisionTransformer(**given | changes)
        for parameter in model.parameters():
            parameter.fill_(math.nan)
        _load_weights(model, str(path))
    return model.eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    config, path = CONFIGS[name], tmp_path / "model.npz"
    model = model_of(config)
    arrays = arrays_of(config)
    found, state = read(stored(path, arrays))
    assert found == config
    identical(state, dict(model.state_dict()))
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
    again = Google().write(found, state)
    assert again.file == "model.npz"
    identical(again.state, {name: torch.from_numpy(array) for name, array in arrays.items()})


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if isinstance(config.image, ViTConfig)])
@torch.inference_mode()
def test_timm_reads_our_file(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    np.savez(tmp_path / "a.npz", **arrays_of(config))
    model, image = model_of(config), picture(config)
    peer = theirs(replace(config, classes=0) if config.pre_logits else config, tmp_path / "a.npz")
    if config.pre_logits:
        alike(model.encode_image(image), model.pre_logits.fc(peer(image)).tanh())
    else:
        alike(model.classify(image) if config.classes else model.encode_image(image), peer(image))


def big_vision(arrays: dict[str, Any]) -> dict[str, Any]:
    out = {}
    for name, array in arrays.items():
        for old, new in BIG_VISION.items():
            name = name.replace(old, new)
        out[name] = array
    return out


def stacked(arrays: dict[str, Any]) -> dict[str, Any]:
    """All blocks in one array, as a scanned model has them."""
    out: dict[str, Any] = {}
    for name, array in arrays.items():
        match = re.fullmatch(r"Transformer/encoderblock_(\d+)/(.+)", name)
        if match is None:
            out[name] = array
        elif match[1] == "0":
            rows = [arrays[f"Transformer/encoderblock_{i}/{match[2]}"] for i in range(SHAPE["depth"])]
            out[f"Transformer/encoderblock/{match[2]}"] = np.stack(rows)
    return out


@pytest.mark.parametrize("name", ["average", "pre_logits"])
def test_trap_a_modules_are_numbered_in_two_ways(tmp_path: Path, name: str) -> None:
    config, arrays = CONFIGS[name], arrays_of(CONFIGS[name])
    others = big_vision(arrays)
    assert "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/out/bias" in arrays
    assert "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/out/bias" in others
    found, state = read(stored(tmp_path / "a.npz", others))
    assert found == config
    identical(state, dict(model_of(config).state_dict()))


@torch.inference_mode()
def test_trap_a_as_timm_reads_them(tmp_path: Path) -> None:
    config = CONFIGS["average"]
    np.savez(tmp_path / "a.npz", **{f"params/{name}": array for name, array in big_vision(arrays_of(config)).items()})
    alike(theirs(config, tmp_path / "a.npz")(picture(config)), model_of(config).classify(picture(config)))


@torch.inference_mode()
def test_trap_b_all_blocks_in_one_array(tmp_path: Path) -> None:
    config = CONFIGS["average"]
    arrays = {f"params/{name}": array for name, array in stacked(big_vision(arrays_of(config))).items()}
    assert arrays["params/Transformer/encoderblock/LayerNorm_0/scale"].shape == (3, 48)
    found, state = read(stored(tmp_path / "a.npz", arrays))
    assert found == config
    identical(state, dict(model_of(config).state_dict()))
    alike(loaded(found, state).classify(picture(config)), theirs(config, tmp_path / "a.npz")(picture(config)))
    arrays["params/Transformer/encoderblock/LayerNorm_0/scale"] = np.float32(1)
    with pytest.raises(ValueError, match="LayerNorm_0/scale is one number, where one for each block"):
        Google().read(stored(tmp_path / "a.npz", arrays))


@pytest.mark.parametrize("name", ["class", "mixer"])
def test_trap_c_bfloat16_arrays_come_without_a_type(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    halves = {name: torch.from_numpy(array).bfloat16() for name, array in arrays_of(config).items()}
    found, state = read(
        stored(tmp_path / "a.npz", {n: t.view(torch.int16).numpy().view("V2") for n, t in halves.items()})
    )
    assert found == config
    identical(state, {name: tensor.bfloat16() for name, tensor in model_of(config).state_dict().items()})
    identical(Google().write(found, state).state, {name: tensor.float() for name, tensor in halves.items()})


@torch.inference_mode()
def test_trap_d_positions_with_and_without_the_class_token(tmp_path: Path) -> None:
    """big_vision adds them before it puts the token in front: for the token it has none, which is a row of zeros."""
    arrays = big_vision(arrays_of(VIT))
    arrays["pos_embedding"] = arrays["pos_embedding"][:, 1:]
    found, state = read(stored(tmp_path / "a.npz", {f"params/{name}": array for name, array in arrays.items()}))
    assert found == VIT
    expected = dict(model_of(VIT).state_dict())
    expected["image.pos_embed"][:, 0] = 0
    identical(state, expected)
    peer = theirs(VIT, tmp_path / "a.npz", no_embed_class=True)
    alike(loaded(found, state).classify(picture(VIT)), peer(picture(VIT)))


@pytest.mark.parametrize(
    "place", ["Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding", "pos_embedding"]
)
@pytest.mark.parametrize("name", ["class", "average"])
def test_trap_d_positions_lie_in_three_places(tmp_path: Path, name: str, place: str) -> None:
    arrays = arrays_of(CONFIGS[name])
    arrays[place] = arrays.pop("Transformer/posembed_input/pos_embedding")
    found, state = read(stored(tmp_path / "a.npz", arrays))
    assert found == CONFIGS[name]
    identical(state, dict(model_of(CONFIGS[name]).state_dict()))
    with pytest.raises(ValueError, match=r"has positions twice, as .*pos_embedding and .*pos_embedding"):
        Google().read(stored(tmp_path / "a.npz", arrays | {"x": 1, "pos_embedding": 1, "Transformer/pos_embedding": 1}))


@torch.inference_mode()
def test_trap_f_gelu_is_the_tanh_form_of_jax(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays_of(VIT))
    found, state = read(Found(file=tmp_path / "a.npz", state=read_tensors(tmp_path / "a.npz")))
    assert (found.image.activation, found.image.eps, found.mean, found.std) == (
        "gelu_tanh",
        1e-6,
        (0.5,) * 3,
        (0.5,) * 3,
    )
    scores, peer = (model(picture(VIT)) for model in (loaded(found, state).classify, theirs(VIT, tmp_path / "a.npz")))
    exact = theirs(VIT, tmp_path / "a.npz", act_layer="gelu")(picture(VIT))
    alike(scores, peer)
    assert (scores - exact).abs().max() > 20 * (scores - peer).abs().max()


@pytest.mark.parametrize("name", ["class", "mixer"])
@torch.inference_mode()
def test_trap_h_heads_of_zeros_load(tmp_path: Path, name: str) -> None:
    """So are those of ImageNet-21k published."""
    arrays = arrays_of(CONFIGS[name])
    arrays |= {f"head/{part}": np.zeros_like(arrays[f"head/{part}"]) for part in ("kernel", "bias")}
    found, state = read(stored(tmp_path / "a.npz", arrays))
    assert found == CONFIGS[name]
    model = loaded(found, state)
    assert torch.equal(model.classify(picture(found)), torch.zeros(2, 5))
    assert model.encode_image(picture(found)).std() > 0.01


def test_heads_come_from_the_arrays(tmp_path: Path) -> None:
    """48 numbers make no head of 64."""
    for heads in (1, 4, 6):
        config = replace(VIT, image=replace(VIT.image, heads=heads))
        assert read(stored(tmp_path / "a.npz", arrays_of(config)))[0] == config


@pytest.mark.parametrize(
    ("root", "beside"),
    [
        ("opt/target/", ["opt/state/step", "opt/state/param_states/head/bias/grad_ema"]),
        ("params/", ["opt/0/mu/head/bias", "chrono/accum_train_time"]),
        ("params/img/", ["opt/0/mu/img/head/bias"]),
    ],
)
@pytest.mark.parametrize("name", ["class", "mixer"])
def test_where_the_model_lies_in_a_training_checkpoint(tmp_path: Path, name: str, root: str, beside: list[str]) -> None:
    arrays = {root + one: array for one, array in arrays_of(CONFIGS[name]).items()}
    found, state = read(stored(tmp_path / "a.npz", arrays | {one: np.ones(2) for one in beside}))
    assert found == CONFIGS[name]
    identical(state, dict(model_of(CONFIGS[name]).state_dict()))


@pytest.mark.parametrize(
    ("name", "strange"),
    [
        ("class", "MAPHead_0/probe"),
        ("class", "params/txt/head/kernel"),
        ("class", "block1/unit0x/conv1/kernel"),
        ("class", "head/weird"),
        ("mixer", "MixerBlock_0/LayerNorm_0/scale/x"),
        ("mixer", "cls"),
    ],
)
def test_what_has_no_place_is_named(tmp_path: Path, name: str, strange: str) -> None:
    kind = "Mixer" if name == "mixer" else "ViT"
    arrays = arrays_of(CONFIGS[name]) | {strange: np.ones((1, 1, 2), np.float32)}
    with pytest.raises(ValueError, match=rf"our {kind} has no place for {strange}$"):
        Google().read(stored(tmp_path / "a.npz", arrays))


def test_what_is_missing_shows(tmp_path: Path) -> None:
    arrays = arrays_of(VIT)
    for gone in ("query/kernel", "key/bias", "out/kernel"):
        name = f"Transformer/encoderblock_1/MultiHeadDotProductAttention_1/{gone}"
        found = stored(tmp_path / "a.npz", {n: array for n, array in arrays.items() if n != name})
        if gone.startswith("out"):
            config, state = read(found)
            assert unfit(state, empty(config).state_dict()) == "missing: image.blocks.1.attn.proj.weight"
        else:
            with pytest.raises(ValueError, match=rf"google's ViT needs .*{gone}, which is not there"):
                Google().read(found)
    del arrays["Transformer/posembed_input/pos_embedding"]
    with pytest.raises(ValueError, match="needs Transformer/posembed_input/pos_embedding, which is not there"):
        Google().read(stored(tmp_path / "a.npz", arrays))


def test_old_norms_of_hybrids_have_further_axes(tmp_path: Path) -> None:
    config = CONFIGS["hybrid"]
    arrays = arrays_of(config)
    assert arrays["block1/unit2/conv2/kernel"].shape == (3, 3, 64, 64)
    assert "block2/unit1/gn_proj/scale" in arrays
    old = {n: a.reshape(1, 1, 1, -1) if re.search(r"gn\w+/", n) else a for n, a in arrays.items()}
    assert old["gn_root/bias"].shape == (1, 1, 1, 64)
    found, state = read(stored(tmp_path / "a.npz", old))
    assert found == config
    identical(state, dict(model_of(config).state_dict()))


def test_positions_that_are_computed(tmp_path: Path) -> None:
    """Simple ViT (Beyer et al. 2022) stores none; a naive loop makes them."""
    grid, width = 3, 12
    for y in range(grid):
        for x in range(grid):
            rates = [10_000 ** -(i / (width // 4 - 1)) for i in range(width // 4)]
            row = [f(place * rate) for place in (x, y) for f in (math.sin, math.cos) for rate in rates]
            torch.testing.assert_close(waves(grid, width)[0, y * grid + x], torch.tensor(row))
    config = replace(CONFIGS["average"], image=replace(CONFIGS["average"].image, image_size=224, patch_size=56))
    arrays = big_vision(arrays_of(config))
    del arrays["pos_embedding"]
    found, state = read(stored(tmp_path / "a.npz", arrays))
    assert found == config
    assert torch.equal(state["image.pos_embed"], waves(4, 48))


def norm(x: Any, arrays: dict[str, Any], name: str) -> Any:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * arrays[f"{name}/scale"] + arrays[f"{name}/bias"]


def mlp(x: Any, arrays: dict[str, Any], name: str) -> Any:
    x = x @ arrays[f"{name}/Dense_0/kernel"] + arrays[f"{name}/Dense_0/bias"]
    x = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x @ arrays[f"{name}/Dense_1/kernel"] + arrays[f"{name}/Dense_1/bias"]


def naive_mixer(arrays: dict[str, Any], image: Tensor) -> Any:
    """big_vision's forward pass of a Mixer, straight from its arrays."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    pixels = image.double().permute(0, 2, 3, 1).numpy()
    kernel = arrays["stem/kernel"]
    patch, rows = kernel.shape[0], []
    for y in range(0, pixels.shape[1], patch):
        for x in range(0, pixels.shape[2], patch):
            rows.append(np.einsum("byxc,yxcd->bd", pixels[:, y : y + patch, x : x + patch], kernel))
    x = np.stack(rows, 1) + arrays["stem/bias"]
    for i in range(SHAPE["depth"]):
        block = f"MixerBlock_{i}"
        mixed = norm(x, arrays, f"{block}/LayerNorm_0").swapaxes(1, 2)
        x = x + mlp(mixed, arrays, f"{block}/token_mixing").swapaxes(1, 2)
        x = x + mlp(norm(x, arrays, f"{block}/LayerNorm_1"), arrays, f"{block}/channel_mixing")
    x = norm(x, arrays, "pre_head_layer_norm").mean(1)
    return x @ arrays["head/kernel"] + arrays["head/bias"]


@torch.inference_mode()
def test_a_mixer_computes_what_big_vision_does() -> None:
    scores = torch.from_numpy(naive_mixer(arrays_of(MIXER), picture(MIXER)))
    alike(model_of(MIXER).double().classify(picture(MIXER).double()), scores)


def before_linen(arrays: dict[str, Any]) -> dict[str, Any]:
    """The names and further axes of the published Mixers."""
    out = {}
    for name, array in arrays.items():
        new = re.sub("^stem/", "embedding/", name).replace("pre_head_layer_norm", "Mixer/encoder_norm")
        new = new.replace("MixerBlock_", "Mixer/encoderblock_").replace("LayerNorm_1", "LayerNorm_2")
        if match := re.fullmatch(r"(.*)_mixing/Dense_(\d)/(kernel|bias)", new):
            new = f"{match[1]}_mixing_phase_0/{match[3]}{int(match[2]) + 1}"
            array = array[None] if match[3] == "kernel" else array[None, :, None]
        out[new] = array
    return out


def test_a_published_mixer(tmp_path: Path) -> None:
    arrays = before_linen(arrays_of(MIXER))
    assert arrays["Mixer/encoderblock_1/token_mixing_phase_0/kernel1"].shape == (1, 16, 20)
    assert {"embedding/kernel", "Mixer/encoder_norm/scale", "Mixer/encoderblock_0/LayerNorm_2/bias"} <= arrays.keys()
    found, state = read(stored(tmp_path / "a.npz", arrays))
    assert found == MIXER
    identical(state, dict(model_of(MIXER).state_dict()))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (CLIPConfig(), "kind: clip"),
        (replace(VIT, image=replace(VIT.image, activation="gelu")), "image.activation: gelu, where it has gelu_tanh"),
        (replace(MIXER, image=replace(MIXER.image, eps=1e-5)), "image.eps: 1e-05, where it has 1e-06"),
        (replace(VIT, image=replace(VIT.image, pre_norm=True)), "image.pre_norm: True, where it has False"),
        (replace(VIT, mean=(0.4, 0.5, 0.5)), r"mean: \(0.4, 0.5, 0.5\), where it has \(0.5, 0.5, 0.5\)"),
        (replace(MIXER, pre_logits=8), "pre_logits: 8, where it has None"),
        (replace(VIT, image=replace(VIT.image, stem=PatchStemConfig(bias=False))), "image.stem: PatchStemConfig"),
        (replace(MIXER, image=replace(MIXER.image, stem=ConvStemConfig())), "image.stem: ConvStemConfig"),
    ],
)
def test_what_google_would_compute_otherwise_is_not_written(config: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Google().write(config, empty(config).state_dict())


def test_others_are_not_known(tmp_path: Path) -> None:
    for names in (
        ["blocks.0.attn.qkv.weight", "patch_embed.proj.weight"],
        ["embedding.kernel"],
        ["x/embedding/kernel"],
    ):
        assert not Google().knows(Found(file=tmp_path, state={name: torch.ones(1) for name in names}))


@pytest.mark.parametrize("size", ["S/16", "B/32"])
def test_published_sizes_at_full_width(tmp_path: Path, size: str) -> None:
    """Names and shapes alone: the first dimension of each published file, as its authors' code makes it."""
    from pictura.config import sized

    config = ClassifierConfig(image=replace(sized(ViTConfig, size), activation="gelu_tanh"), classes=1000)
    written: Written = Google().write(config, {n: torch.zeros(t.shape) for n, t in empty(config).state_dict().items()})
    heads, width = config.image.heads, config.image.width
    shapes = {name: tuple(tensor.shape) for name, tensor in written.state.items()}
    block = "Transformer/encoderblock_11"
    assert shapes[f"{block}/MultiHeadDotProductAttention_1/query/kernel"] == (width, heads, 64)
    assert shapes[f"{block}/MultiHeadDotProductAttention_1/out/kernel"] == (heads, 64, width)
    assert shapes[f"{block}/MlpBlock_3/Dense_0/kernel"] == (width, 4 * width)
    assert shapes["embedding/kernel"] == (config.image.patch_size, config.image.patch_size, 3, width)
    assert shapes["head/kernel"] == (width, 1000)
    assert len(shapes) == 12 * 16 + 8
