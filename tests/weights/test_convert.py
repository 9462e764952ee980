"""Our models in other projects' folders and back, bit by bit."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pictura.config import load, to_dict
from pictura.data.text import Tokenizer
from pictura.layers.positions import resize_positions
from pictura.models.base import ModelConfig
from pictura.models.classifier import Classifier
from pictura.models.clip import CLIP
from pictura.models.pictures import PictureModelConfig
from pictura.weights.convert import Converted, convert, left_behind, targets
from pictura.weights.family import families
from pictura.weights.folder import empty, save_folder
from pictura.weights.foreign import load_model
from tests.weights.classifier_peers import stirred
from tests.weights.peers import identical

NAMES = ["a", "b", "c"]
VIT: dict[str, Any] = {"kind": "vit", "image_size": 32, "patch_size": 16, "width": 64, "depth": 2, "heads": 4}
TANH = {"activation": "gelu_tanh"}
CLIPS = {"heads": 1, "eps": 1e-5, "pre_norm": True, "stem": {"kind": "patch", "bias": False}}
TEXT = {"kind": "transformer", "width": 64, "depth": 2, "heads": 1, "context_length": 12, "vocab_size": 0}
RESNET: dict[str, Any] = {"kind": "resnet", "block": "basic", "layers": [1, 1, 1, 1], "image_size": 32}
MIXER = {"kind": "mixer", "image_size": 64, "patch_size": 32, "width": 512, "depth": 8, "tokens": 6, "channels": 20}
CLIP_RESNET = {"kind": "clip_resnet", "image_size": 32, "layers": [1, 2, 1, 1], "width": 8, "heads": 4}
SQUASHED = {"resize": "squash", "interpolation": "bilinear"}
PREPARED = {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.3, 0.2], "interpolation": "bilinear"}


def clip(image: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "clip", "embed_dim": 24, "image": image, "text": TEXT, "logit_scale": 3.0} | PREPARED | more


def classifier(image: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "classifier", "image": image, "classes": 3, "class_names": NAMES} | more


def hybrid(**more: Any) -> dict[str, Any]:
    return VIT | {"stem": {"kind": "resnet", "layers": []}} | more


# What it is, and who has a place for it.
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "clip": (clip(VIT | CLIPS), "pictura huggingface open_clip"),
    "clip, squashed": (clip(VIT | CLIPS, **SQUASHED, crop=0.9), "huggingface"),
    "clip with a bias": (clip(VIT | CLIPS, logit_bias=-10.0), "open_clip"),
    "clip of a resnet": (clip(CLIP_RESNET, projection_bias=True), "open_clip"),
    "vit": (classifier(VIT | {"mlp_ratio": 1.5}, **PREPARED, crop=0.8), "huggingface timm torchvision"),
    "vit without a head": (classifier(VIT, classes=0, class_names=[]), "huggingface timm torchvision"),
    "vit of quick gelu": (classifier(VIT | {"activation": "quick_gelu"}), "huggingface timm"),
    "vit that averages": (classifier(VIT | {"pool": "average"}), "timm"),
    "vit as a clip's tower": (classifier(VIT | CLIPS), "timm"),
    "vit of jax": (classifier(VIT | TANH, **SQUASHED, class_names=[]), "huggingface timm google"),
    "pre_logits": (classifier(VIT, pre_logits=20), "pictura torchvision"),
    "pre_logits of jax": (classifier(VIT | TANH, pre_logits=64, **SQUASHED, class_names=[]), "google"),
    "pre_logits without a head": (
        classifier(VIT, pre_logits=20, classes=0, class_names=[]),
        "huggingface torchvision",
    ),
    "hybrid": (classifier(hybrid()), "timm"),
    "hybrid of jax": (classifier(hybrid(**TANH), **SQUASHED, class_names=[]), "timm google"),
    "mixer": (classifier(MIXER), "timm"),
    "mixer of jax": (classifier(MIXER | TANH | {"width": 48}, **SQUASHED, class_names=[]), "google"),
    "resnet": (classifier(RESNET, **PREPARED, crop=1.0), "pictura timm torchvision"),
    "resnet without a head": (classifier(RESNET, classes=0, class_names=[]), "timm torchvision"),
    "resnet of bottlenecks": (classifier(RESNET | {"block": "bottleneck", "groups": 2}), "timm torchvision"),
    "resnet for small pictures": (classifier(RESNET | {"stem": "cifar"}), "torchvision"),
    "narrow resnet": (classifier(RESNET | {"block": "bottleneck", "width": 16}), "pictura"),
    "convolutional stem": (classifier(VIT | {"stem": {"kind": "conv", "channels": 8}}), "pictura"),
    "clip of a mixer": (clip(MIXER), "pictura"),
}
EVERYONE = ("google", "huggingface", "open_clip", "timm", "torchvision", "vilt")
HELD = [(name, to) for name, (_, held) in MODELS.items() for to in held.split()]
NOT_HELD = [(name, to) for name, (_, held) in MODELS.items() for to in EVERYONE if to not in held.split()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Callable[[str], Path]:
    """`made(name)`: our folder of that model, whose tensors are all different."""
    root = tmp_path_factory.mktemp("ours")

    def make(name: str) -> Path:
        place = root / name.replace(" ", "-")
        if not place.exists():
            spec, _ = MODELS[name]
            words = {"vocab_size": tokenizer.vocab_size}
            spec = spec | ({"text": spec["text"] | words} if "text" in spec else {})
            model = stirred(empty(load(ModelConfig, spec)).to_empty(device="cpu"))
            save_folder(place, model, tokenizer if "text" in spec else None)
        return place

    return make


@torch.no_grad()
def answers(model: nn.Module) -> list[Tensor]:
    config = model.eval().config
    assert isinstance(config, PictureModelConfig)
    size = config.tower.image_size
    pictures = torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    out = [model.encode_image(pictures)]  # type: ignore[operator]
    if isinstance(model, CLIP):
        end = model.config.text.vocab_size - 1
        out.append(model.encode_text(torch.tensor([[end - 1, 5, 9, end], [end - 1, 7, end, 0]])))
    elif isinstance(model, Classifier) and model.head is not None:
        out.append(model.classify(pictures))
    assert all(one.std() > 0.001 for one in out)
    return out


def same(found: nn.Module, expected: nn.Module) -> None:
    """In weights, in answers, and in all that a configuration says."""
    identical(found.state_dict(), expected.state_dict())
    for one, other in zip(answers(found), answers(expected), strict=True):
        assert torch.equal(one, other)
    assert to_dict(found.config) == to_dict(expected.config)  # type: ignore[arg-type]


def there(folder: Path) -> set[str]:
    """All files and folders below."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# There and back


@pytest.mark.parametrize(("name", "to"), HELD)
def test_there_and_back(name: str, to: str, made: Callable[[str], Path], tmp_path: Path) -> None:
    done = convert(made(name), tmp_path / "out", to)
    assert done.notes == ()
    assert there(tmp_path) == {"out", *(f"out/{file}" for file in done.files)}
    (back, words), (ours, tokenizer) = load_model(tmp_path / "out"), load_model(made(name))
    same(back, ours)
    assert done.config == ours.config
    assert done.parameters == sum(p.numel() for p in ours.parameters())
    if tokenizer is not None:
        assert words is not None
        assert torch.equal(words(["a red dog", "the old house"]), tokenizer(["a red dog", "the old house"]))


@pytest.mark.parametrize(("name", "to"), NOT_HELD)
def test_what_has_no_place_is_one_line_and_nothing_is_written(
    name: str, to: str, made: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"has no place for|cannot be that|\w+('s \w+)? (has|have|begin)") as error:
        convert(made(name), tmp_path / "deep" / "out", to)
    assert "\n" not in str(error.value)
    assert there(tmp_path) == set()


def test_a_chain_through_everyone_comes_back_as_it_was(made: Callable[[str], Path], tmp_path: Path) -> None:
    """The activation is changed for google, which has one alone, and back for torchvision, which has the other."""
    ours = made("vit without a head")
    steps = [
        ("huggingface", []),
        ("timm", []),
        ("google", ["image.activation=gelu_tanh", *(f"{key}={value}" for key, value in SQUASHED.items())]),
        ("torchvision", ["image.activation=gelu"]),
        ("open", []),
        ("pictura", ["resize=shortest", "interpolation=bicubic"]),
    ]
    last = ours
    for to, changes in steps:
        if to == "open":  # a single file, without what lies beside it
            lone = tmp_path / "lone.safetensors"
            shutil.copy(last / "model.safetensors", lone)
            state = load_model(lone)[0].state_dict()
            identical(state, load_model(ours)[0].state_dict())
            continue
        convert(last, tmp_path / to, to, changes)
        last = tmp_path / to
    same(load_model(last)[0], load_model(ours)[0])


def test_a_chain_of_clip_comes_back_as_it_was(made: Callable[[str], Path], tmp_path: Path) -> None:
    convert(made("clip"), tmp_path / "a", "huggingface")
    convert(tmp_path / "a", tmp_path / "b", "open_clip")
    convert(tmp_path / "b", tmp_path / "c", "pictura")
    same(load_model(tmp_path / "c")[0], load_model(made("clip"))[0])
    assert (tmp_path / "c" / "tokenizer.json").read_bytes() == (made("clip") / "tokenizer.json").read_bytes()


def test_what_lies_around_a_model_and_is_left_behind_is_told(made: Callable[[str], Path], tmp_path: Path) -> None:
    ours = made("vit")
    changes = ["image.activation=gelu_tanh", "mean=[0.5, 0.5, 0.5]", "std=[0.5, 0.5, 0.5]"]
    done = convert(ours, tmp_path / "out", "google", changes)
    assert done.notes == ("google has no place for resize: shortest, crop: 0.8, class_names",)
    identical(load_model(tmp_path / "out")[0].state_dict(), load_model(ours)[0].state_dict())


def test_a_family_that_forgets_something_would_be_found_out(made: Callable[[str], Path]) -> None:
    """Whatever it writes is read again, without the numbers."""
    model = load_model(made("vit"))[0]
    config = model.config
    assert isinstance(config, PictureModelConfig)
    written = families()["huggingface"].write(config, model.state_dict())
    assert left_behind(written, config, "huggingface") == []
    json, state = written.beside["config.json"], written.state
    told = [{"config.json": dict(json) | one} for one in ({"hidden_act": "quick_gelu"}, {"num_attention_heads": 8})]
    for forgetful, words in (
        (replace(written, beside=told[0]), r"image\.activation: gelu \(there it is quick_gelu\)"),
        (replace(written, beside=told[1]), r"image\.heads: 4 \(there it is 8\)"),
        (replace(written, beside={}), r"image\.eps: 1e-06 \(there it is 1e-12\)"),
        (replace(written, state=state | {"vit.layernorm.bias": torch.zeros(3)}), r"place for image\.norm\.bias$"),
    ):
        with pytest.raises(ValueError, match=words):
            left_behind(forgetful, config, "huggingface")
    named = replace(written, beside=dict(written.beside) | {"config.json": dict(json) | {"id2label": {}}})
    assert left_behind(named, config, "huggingface") == ["huggingface has no place for class_names"]


def test_what_to_takes(made: Callable[[str], Path], tmp_path: Path) -> None:
    assert targets() == ["pictura", *EVERYONE]
    for to, words in (
        ("tim", r"--to tim: not known; did you mean timm\?"),
        ("keras", r"--to keras: not known; there are pictura, google, huggingface, open_clip, timm, torchvision"),
        ("openai", r"--to openai: not known; did you mean open_clip\?"),
    ):
        with pytest.raises(ValueError, match=words):
            convert(made("vit"), tmp_path / "out", to)


def test_a_target_that_is_there_is_refused(made: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "full")
    before = there(tmp_path)
    for name in ("file", "full", "link"):
        for to in ("timm", "pictura"):
            with pytest.raises(ValueError, match=r"(file|full): is there already; choose a new folder"):
                convert(made("vit"), tmp_path / name, to)
    with pytest.raises(ValueError, match=r"file/out: the model could not be written there"):
        convert(made("vit"), tmp_path / "file" / "out", "timm")
    assert there(tmp_path) == before
    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "mine").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    convert(made("vit"), tmp_path / "empty", "timm")
    assert there(tmp_path) == before | {"empty", "empty/model.safetensors", "empty/config.json"}


# Changes


def changed(made: Callable[[str], Path], name: str, place: Path, *changes: str) -> tuple[nn.Module, Converted]:
    done = convert(made(name), place, "pictura", changes)
    return load_model(place)[0], done


def test_another_size_resizes_positions(made: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("vit", "vit that averages", "clip", "hybrid", "clip of a resnet"):
        model, done = changed(made, name, tmp_path / name, "image.image_size=96")
        old, new = load_model(made(name))[0].state_dict(), model.state_dict()
        key = next(key for key in old if key.endswith("image.pos_embed") or key == "image.pool.pos_embed")
        patch_size = 32 if "resnet" in name else 16
        grids = [(size // patch_size,) * 2 for size in (32, 96)]
        assert torch.equal(new.pop(key), resize_positions(old.pop(key), grids[0], grids[1])), name
        identical(new, old)
        assert done.config.tower.image_size == 96
        assert done.notes == ()
        answers(model)


def test_a_mixer_grows_by_whole_times(made: Callable[[str], Path], tmp_path: Path) -> None:
    """Its hidden units over patches grow with it, so each quarter is treated as a picture was."""
    model, _ = changed(made, "mixer", tmp_path / "out", "image.image_size=128")
    old = load_model(made("mixer"))[0].eval()
    assert model.config.tower.tokens == 24  # type: ignore[union-attr]
    quarters = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    picture = torch.cat([torch.cat([quarters[i], quarters[i + 1]], 2) for i in (0, 2)], 1)
    with torch.no_grad():
        found, expected = model.eval().encode_image(picture[None])[0], old.encode_image(quarters).mean(0)  # type: ignore[operator]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    again, _ = changed(made, "mixer", tmp_path / "again", "image.image_size=128", "image.tokens=24")
    identical(again.state_dict(), model.state_dict())


def test_without_its_head(made: Callable[[str], Path], tmp_path: Path) -> None:
    """The words for its classes go with it, the layer below it does not."""
    for name in ("vit", "resnet", "pre_logits"):
        model, done = changed(made, name, tmp_path / name, "classes=0")
        old = load_model(made(name))[0].state_dict()
        identical(model.state_dict(), {key: tensor for key, tensor in old.items() if not key.startswith("head.")})
        assert (done.config.classes, done.config.class_names, done.notes) == (0, (), ())  # type: ignore[attr-defined]


def test_a_head_for_other_classes_is_of_zeros_and_told(made: Callable[[str], Path], tmp_path: Path) -> None:
    note = "its head of {} classes is new, of zeros: train it"
    for n, (name, change, classes) in enumerate(
        [("vit", "classes=5", 5), ("pre_logits", "pre_logits=null", 3), ("vit", "head_bias=-10.0 classes=4", 4)]
    ):
        model, done = changed(made, name, tmp_path / str(n), *change.split())
        state, old = model.state_dict(), load_model(made(name))[0].state_dict()
        assert done.notes == (note.format(classes),)
        assert state.pop("head.weight").shape == (classes, 64)
        assert torch.equal(state.pop("head.bias"), torch.full((classes,), done.config.head_bias))  # type: ignore[attr-defined]
        identical(state, {key: tensor for key, tensor in old.items() if key.startswith("image.")})


def test_words_for_classes_can_be_given_to_a_head_that_has_none(made: Callable[[str], Path], tmp_path: Path) -> None:
    model, done = changed(made, "vit of jax", tmp_path / "out", "class_names=[cat, dog, cow]")
    assert (done.config.class_names, done.notes) == (("cat", "dog", "cow"), ())  # type: ignore[attr-defined]
    identical(model.state_dict(), load_model(made("vit of jax"))[0].state_dict())


def test_an_activation(made: Callable[[str], Path], tmp_path: Path) -> None:
    model, _ = changed(made, "vit", tmp_path / "out", "image.activation=gelu_tanh")
    old = load_model(made("vit"))[0]
    identical(model.state_dict(), old.state_dict())
    found, expected = answers(model)[0], answers(old)[0]
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)


def test_the_picture_tower_of_a_clip(made: Callable[[str], Path], tmp_path: Path) -> None:
    done = convert(made("clip"), tmp_path / "out", "timm", ["kind=classifier"])
    assert done.files == ("config.json", "model.safetensors")
    tower, whole = load_model(tmp_path / "out")[0], load_model(made("clip"))[0]
    identical(tower.image.state_dict(), whole.image.state_dict())  # type: ignore[union-attr]
    assert tower.config.mean == whole.config.mean  # type: ignore[union-attr]
    size = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(tower.eval().image(size), whole.eval().image(size))  # type: ignore[operator]


WRONG = {
    "image.image_sise=64": r"image\.image_sise: no such key; did you mean image_size",
    "image.image_size=big": r"image\.image_size: expected int",
    "image.image_size=33": r"image\.image_size: 33 is no multiple of patch_size 16",
    "image.width=48": r"image\.width=48: the weights do not fit such a model: of another shape: image\.cls_token is",
    "image.depth=3": r"image\.depth=3: the weights do not fit such a model: missing: image\.blocks\.2\.norm1\.weight",
    "image.kind=mixer": r"image\.kind=mixer: the weights do not fit such a model: missing: image\.stem\.proj\.weight",
    "pre_logits=32": r"pre_logits: 32: there are no weights for such a layer; null leaves it out",
    "class_names=[a]": r"class_names: 1 names for 3 classes",
    "classes=-1": r"classes: -1 is below 0",
    "kind=clip": r"kind=clip: the weights do not fit such a model: missing: ",
    "classes": r"override 'classes': expected key=value",
    "nonsense=1": r"nonsense: no such key",
}


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_change_names_the_key(change: str, made: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=WRONG[change]):
        convert(made("vit"), tmp_path / "out", "timm", [change])
    assert there(tmp_path) == set()


def test_sizes_that_a_mixer_cannot_have(made: Callable[[str], Path], tmp_path: Path) -> None:
    for size in (32, 96):
        with pytest.raises(ValueError, match=r"image\.image_size: a Mixer of 64 grows to its multiples only, such as"):
            convert(made("mixer"), tmp_path / "out", "timm", [f"image.image_size={size}"])
    with pytest.raises(ValueError, match=r"do not fit such a model: of another shape: image\.blocks\.0\.mlp_tokens"):
        convert(made("mixer"), tmp_path / "out", "timm", ["image.image_size=128", "image.tokens=6"])


# Precision


def test_bf16_halves_all_but_scalars(made: Callable[[str], Path], tmp_path: Path) -> None:
    for to, file in (("huggingface", "model.safetensors"), ("open_clip", "open_clip_model.safetensors")):
        convert(made("clip"), tmp_path / to, to, dtype=torch.bfloat16)
        kinds = {name: tensor.dtype for name, tensor in load_file(tmp_path / to / file).items()}
        assert {name for name, dtype in kinds.items() if dtype is torch.float32} == {"logit_scale"}
        assert set(kinds.values()) == {torch.float32, torch.bfloat16}
        model = load_model(tmp_path / to)[0]
        old = load_model(made("clip"))[0].state_dict()
        identical(model.state_dict(), {key: t if not t.dim() else t.bfloat16() for key, t in old.items()})
    convert(tmp_path / "open_clip", tmp_path / "kept", "pictura")
    identical(load_model(tmp_path / "kept")[0].state_dict(), load_model(tmp_path / "open_clip")[0].state_dict())
    convert(tmp_path / "kept", tmp_path / "wide", "huggingface", dtype=torch.float32)
    assert {t.dtype for t in load_file(tmp_path / "wide" / "model.safetensors").values()} == {torch.float32}


@torch.no_grad()
def test_batch_norms_keep_their_sense_in_bf16(made: Callable[[str], Path], tmp_path: Path) -> None:
    convert(made("resnet"), tmp_path / "out", "timm", dtype=torch.bfloat16)
    model, old = load_model(tmp_path / "out")[0], load_model(made("resnet"))[0]
    assert model.image.bn1.num_batches_tracked == old.image.bn1.num_batches_tracked == 11  # type: ignore[union-attr]
    assert model.image.bn1.num_batches_tracked.dtype is torch.int64  # type: ignore[union-attr]
    for loaded in (model, load_model(made("resnet"), dtype=torch.bfloat16)[0]):
        found, expected = answers(loaded)[0].float(), answers(old)[0]
        assert (found - expected).norm() < 0.05 * expected.norm()


def test_numbers_too_large_for_float16(made: Callable[[str], Path], tmp_path: Path) -> None:
    model = load_model(made("resnet"))[0]
    with torch.no_grad():
        model.image.bn1.running_var[0] = 1e6  # type: ignore[union-attr,index]
    save_folder(tmp_path / "ours", model, None)
    words = r"--dtype float16: not finite: image\.bn1\.running_var, since its numbers end at 65,504; bf16 reaches"
    for to in ("timm", "pictura"):
        with pytest.raises(ValueError, match=words):
            convert(tmp_path / "ours", tmp_path / "out", to, dtype=torch.float16)
    assert not (tmp_path / "out").exists()
    convert(tmp_path / "ours", tmp_path / "out", "timm", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"configuration that goes with it, in float16: not finite: image\.bn1\.run"):
        load_model(tmp_path / "out", dtype=torch.float16)


def test_npz_has_float32_alone(made: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--dtype: google's model\.npz has float32 alone; leave it out"):
        convert(made("vit of jax"), tmp_path / "out", "google", dtype=torch.bfloat16)
    assert there(tmp_path) == set()
    convert(made("vit of jax"), tmp_path / "half", "timm", dtype=torch.bfloat16)
    convert(tmp_path / "half", tmp_path / "out", "google", ["resize=squash"])
    with np.load(tmp_path / "out" / "model.npz") as arrays:
        assert {arrays[name].dtype for name in arrays} == {np.dtype(np.float32)}
    found = load_model(tmp_path / "out")[0].state_dict()
    identical(found, {key: t.float() for key, t in load_model(tmp_path / "half")[0].state_dict().items()})


# A disk that is full


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a full disk, files end at `size` bytes: the system refuses to write more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("name", "to", "size"),
    [
        ("vit of jax", "timm", 100_000),
        ("vit of jax", "google", 100_000),
        ("vit of jax", "pictura", 100_000),
        ("clip", "open_clip", 20_000),
        ("clip", "huggingface", 500_000),
        ("clip", "huggingface", 10),
    ],
)
def test_what_cannot_be_written_whole_is_not_written(
    name: str, to: str, size: int, made: Callable[[str], Path], tmp_path: Path
) -> None:
    ours = made(name)
    with largest_file(size), pytest.raises(ValueError, match=r"out: the model could not be written there \(") as error:
        convert(ours, tmp_path / "deep" / "out", to)
    assert "\n" not in str(error.value)
    assert there(tmp_path) <= {"deep"}
    convert(ours, tmp_path / "deep" / "out", to)
    same(load_model(tmp_path / "deep" / "out")[0], load_model(ours)[0])


# Tensors as strange files have them


def test_tensors_of_one_memory_are_taken_apart(made: Callable[[str], Path], tmp_path: Path) -> None:
    """torch.save keeps what is tied, or a part of more; a model trains each on its own, and safetensors wants so."""
    convert(made("vit"), tmp_path / "timm", "timm")
    state = load_file(tmp_path / "timm" / "model.safetensors")
    state["blocks.1.norm1.weight"] = state["blocks.0.norm1.weight"]
    state["norm.bias"] = torch.randn(1000)[100:164]
    state["head.weight"] = torch.randn(3, 128)[:, ::2]
    torch.save(state, tmp_path / "tied.pth")
    model, _ = load_model(tmp_path / "tied.pth")
    identical(model.state_dict(), load_model(tmp_path / "tied.pth")[0].state_dict())
    assert torch.equal(model.state_dict()["head.weight"], state["head.weight"])
    memory = [parameter.untyped_storage() for parameter in model.parameters()]
    assert len({one.data_ptr() for one in memory}) == len(memory)
    assert sum(one.nbytes() for one in memory) == sum(p.nbytes for p in model.parameters())
    convert(tmp_path / "tied.pth", tmp_path / "out", "timm")
    identical(load_model(tmp_path / "out")[0].state_dict(), model.state_dict())


def test_a_file_of_two_precisions_is_read_in_the_one_that_holds_both(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    convert(made("resnet"), tmp_path / "timm", "timm")
    state = load_file(tmp_path / "timm" / "model.safetensors")
    mixed = {name: t.half() if t.dim() == 4 else t for name, t in state.items()}
    for name, kinds, expected in (
        ("a.pth", mixed, torch.float32),
        ("b.pth", {n: t.bfloat16() if t.dim() == 1 else t.half() for n, t in mixed.items() if t.dim()}, torch.float32),
        ("c.pth", {n: t.half() if t.dim() else t for n, t in mixed.items()}, torch.float16),
    ):
        torch.save(kinds, tmp_path / name)
        model, _ = load_model(tmp_path / name)
        assert {p.dtype for p in model.parameters()} == {expected}
        answers(model.float())


def test_numbers_that_no_model_computes_with(made: Callable[[str], Path], tmp_path: Path) -> None:
    convert(made("vit"), tmp_path / "timm", "timm")
    state = load_file(tmp_path / "timm" / "model.safetensors")
    for kind in (torch.int8, torch.bool, torch.complex64):
        torch.save(state | {"norm.bias": torch.ones(64).to(kind)}, tmp_path / "odd.pth")
        words = str(kind).removeprefix("torch.")
        with pytest.raises(ValueError, match=rf"numbers that no model computes with: image\.norm\.bias is {words}"):
            load_model(tmp_path / "odd.pth")
    save_file(state | {"norm.bias": torch.ones(64).to(torch.float8_e4m3fn)}, tmp_path / "odd.safetensors")
    for dtype in (None, torch.float32):
        with pytest.raises(ValueError, match=r"odd\.safetensors: norm\.bias is float8_e4m3fn, quantised; take the"):
            load_model(tmp_path / "odd.safetensors", dtype=dtype)


def test_sizes_that_no_model_can_have_are_found_before_it_is_built(made: Callable[[str], Path], tmp_path: Path) -> None:
    convert(made("vit"), tmp_path / "out", "huggingface")
    file = tmp_path / "out" / "config.json"
    config = json.loads(file.read_text())
    for key, value, words in (
        ("num_hidden_layers", 10**9, r"image\.depth: 1,000,000,000 blocks, but there are \d+ tensors"),
        ("hidden_size", 2**42, r"image\.width: 4,398,046,511,104 is larger than that of any model"),
        ("intermediate_size", 2**62, r"does not fit the configuration that goes with it: "),
        ("num_attention_heads", 2**62, r"image\.heads: \d+ does not divide width 64; try 64"),
        ("image_size", 2**30, r"does not fit the configuration that goes with it: of another shape: image\.pos_embed"),
    ):
        file.write_text(json.dumps(config | {key: value}))
        with pytest.raises(ValueError, match=words):
            load_model(tmp_path / "out")
