"""`pictura convert`, and what strangers' files do to the command: one line, exit code 2, and nothing left behind."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from pictura.cli import main
from pictura.config import load
from pictura.data.bpe import TrainTokenizerConfig
from pictura.models.base import ModelConfig
from pictura.weights.convert import convert, targets
from pictura.weights.folder import empty, save_folder
from pictura.weights.foreign import load_model
from tests.test_cli import fails
from tests.tiny import pictura
from tests.weights.classifier_peers import stirred
from tests.weights.peers import identical
from tests.weights.test_convert import CLIPS, RESNET, TEXT, VIT, classifier, clip, there


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT, a CLIP and a ResNet of ours, and folders of other projects made of them."""
    place = tmp_path_factory.mktemp("models")
    words = TrainTokenizerConfig(vocab_size=540, context_length=12).build(lambda: ["a red dog runs", "an old house"])
    text = TEXT | {"vocab_size": words.vocab_size}
    for name, spec in {
        "vit": classifier(VIT),
        "resnet": classifier(RESNET),
        "clip": clip(VIT | CLIPS) | {"text": text},
    }.items():
        model = stirred(empty(load(ModelConfig, spec)).to_empty(device="cpu"))
        save_folder(place / name, model, words if name == "clip" else None)
    for source, to in (("vit", "huggingface"), ("vit", "timm"), ("vit", "torchvision"), ("clip", "open_clip")):
        convert(place / source, place / to, to)
    convert(place / "vit", place / "google", "google", ["image.activation=gelu_tanh"])
    convert(place / "clip", place / "hf-clip", "huggingface")
    return place


@pytest.fixture
def place(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """We are in a folder with a picture, and `models` beside it; the hub cannot be reached."""
    shutil.copytree(models, tmp_path / "models")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save("a.png")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "models"


# What it does


def test_from_one_project_to_another(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(place / "timm"), "out", "--to", "torchvision"]) == 0
    told = capsys.readouterr()
    assert re.search(r"out +149,891 parameters for torchvision: model\.safetensors, torchvision\.json", told.out)
    assert told.err == ""
    identical(load_model("out")[0].state_dict(), load_model(place / "vit")[0].state_dict())


def test_in_json_with_changes_precision_and_what_is_left_behind(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["classes=5", "--dtype", "float32", "image.activation=gelu_tanh", "--json"]
    assert main(["convert", str(place / "vit"), "out", "--to", "google", *words]) == 0
    told = capsys.readouterr()
    answer = json.loads(told.out)
    notes = ["its head of 5 classes is new, of zeros: train it"]
    notes += ["google has no place for resize: shortest, interpolation: bicubic"]
    assert answer.pop("parameters") > 70_000
    assert answer == {"path": "out", "to": "google", "files": ["model.npz"], "notes": notes}
    assert [line for line in told.err.splitlines() if line in notes] == notes


def test_what_comes_out_classifies_as_before(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for model in ("vit", "huggingface", "timm", "torchvision", "timm/model.safetensors"):
        assert main(["classify", str(place / model), "a.png", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["a.png"])
    assert found[0].keys() == {"a", "b", "c"}
    assert found[1:4] == found[:1] * 3
    assert found[4].keys() == found[0].keys(), "its configuration lies beside it"


# A user's mistakes


CONVERT = "convert {models}/vit out --to "
MISTAKES: dict[str, tuple[str, str]] = {
    "no project": ("convert {models}/vit out", r"the following arguments are required: --to"),
    "no target": ("convert {models}/vit --to timm", r"the following arguments are required: target"),
    "unknown project": (f"{CONVERT}keras", r"--to keras: not known; there are pictura, google, huggingface, open_clip"),
    "misspelt project": (f"{CONVERT}huggingfase", r"--to huggingfase: not known; did you mean huggingface\?"),
    "unknown precision": (f"{CONVERT}timm --dtype int8", r"argument --dtype: invalid choice: 'int8' \(choose from"),
    "target taken": ("convert {models}/vit {models}/timm --to timm", r"timm: is there already; choose a new folder"),
    "target is a file": ("convert {models}/vit a.png --to timm", r"a\.png: is there already; choose a new folder"),
    "target in a file": ("convert {models}/vit a.png/x --to timm", r"a\.png/x: the model could not be written there"),
    "a ResNet for Hugging Face": (
        "convert {models}/resnet out --to huggingface",
        r"image\.kind: resnet: Hugging Face's ViT cannot be that: it is a ViT; --to timm has others",
    ),
    "a CLIP for timm": ("convert {models}/clip out --to timm", r"kind: clip; timm has classifiers alone, of vit or"),
    "a classifier for open_clip": (f"{CONVERT}open_clip", r"open_clip has no place for a classifier, only for a clip"),
    "an activation that google lacks": (
        f"{CONVERT}google",
        r"google has no place for image\.activation: gelu, where it has gelu_tanh",
    ),
    "no such key": (f"{CONVERT}timm image.image_sise=3", r"image\.image_sise: no such key; did you mean image_size"),
    "no key at all": (f"{CONVERT}timm image_size", r"override 'image_size': expected key=value"),
    "a width": (f"{CONVERT}timm image.width=32", r"image\.width=32: the weights do not fit such a model: of another"),
    "an option": (f"{CONVERT}timm --classes 0", r"convert does not know --classes"),
    "no such file": ("convert vit.npz out --to timm", r"vit\.npz: there is no such file$"),
    "a mistyped file": (
        "convert {models}/google/modell.npz out --to timm",
        r"modell\.npz: there is no such file; did you mean model\.npz\?",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, wanted = MISTAKES[name]
    before = there(place.parent)
    line = fails(words.format(models=place).split(), capsys)
    assert re.search(wanted, line), line
    assert there(place.parent) == before


# Files that are no good


class Code:
    """Whose pickle makes a file called `ran` when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def cut(name: str) -> Callable[[Path], str]:
    """The model of that name with half of its weights' bytes."""

    def make(place: Path) -> str:
        file = next(file for file in (place / name).iterdir() if file.suffix in (".safetensors", ".npz"))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        return str(place / name)

    return make


def tensors(name: str, **changes: torch.Tensor | None) -> Callable[[Path], str]:
    """The model of that name with other tensors, or (None) without."""

    def make(place: Path) -> str:
        file = next((place / name).glob("*.safetensors"))
        state: dict[str, Any] = load_file(file) | {key.replace("__", "."): value for key, value in changes.items()}
        save_file({key: value for key, value in state.items() if value is not None}, file)
        return str(place / name)

    return make


def saved(what: Any, name: str = "model.pth", **options: Any) -> Callable[[Path], str]:
    def make(place: Path) -> str:
        torch.save(what, place / name, **options)
        return str(place / name)

    return make


def written(name: str, content: bytes) -> Callable[[Path], str]:
    def make(place: Path) -> str:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(content)
        return str(place / name)

    return make


def bomb(place: Path) -> str:
    np.savez_compressed(place / "bomb.npz", **{"embedding/kernel": np.zeros(200 << 20, np.uint8)})
    return str(place / "bomb.npz")


def pointer(place: Path) -> str:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 346293852\n"
    (place / "timm" / "model.safetensors").write_text(text)
    return str(place / "timm")


def edited(name: str, change: Callable[[str], str]) -> Callable[[Path], str]:
    """The folder of a file whose text is changed."""

    def make(place: Path) -> str:
        (place / name).write_text(change((place / name).read_text()))
        return str((place / name).parent)

    return make


NAN = torch.full((64,), torch.nan)
EVIL = r"not read, because it holds code beside its tensors: it would run posix\.system"
BAD: dict[str, tuple[Callable[[Path], str], str]] = {
    "cut safetensors": (cut("timm"), r"timm/model\.safetensors: damaged or cut short at \d+ bytes"),
    "cut npz": (cut("google"), r"google/model\.npz: damaged or cut short at \d+ bytes"),
    "cut weights of ours": (cut("vit"), r"vit/model\.safetensors: damaged or cut short at \d+ bytes"),
    "a key is missing": (
        tensors("timm", blocks__1__norm1__bias=None),
        r"timm/model\.safetensors: does not fit .*: missing: image\.blocks\.1\.norm1\.bias$",
    ),
    "the stem's bias is missing": (
        tensors("torchvision", conv_proj__bias=None),
        r"read as torchvision: a ViT needs image\.patch_embed\.proj\.bias, which is not there",
    ),
    "a block is missing": (
        tensors("huggingface", **{f"vit__encoder__layer__0__{n}": None for n in ("layernorm_before__weight",)}),
        r"model\.safetensors: does not fit .*: missing: image\.blocks\.0\.norm1\.weight$",
    ),
    "a key too many": (
        tensors("timm", dist_token=torch.zeros(1, 1, 64)),
        r"timm/model\.safetensors: read as timm: our ViT has no place for dist_token$",
    ),
    "another shape": (
        tensors("torchvision", encoder__ln__bias=torch.zeros(3)),
        r"of another shape: image\.norm\.bias is \[3\] instead of \[64\]$",
    ),
    "not finite": (tensors("open_clip", ln_final__bias=NAN), r"model\.safetensors: .*not finite: text\.norm\.bias$"),
    "not finite in ours": (tensors("vit", image__norm__bias=NAN), r"vit/model\.safetensors: .*not finite: image\.norm"),
    "nobody's": (saved({"lstm.weight": torch.zeros(3)}), r"model\.pth: its tensors \(lstm\.weight, …\) are of none of"),
    "code in a checkpoint": (saved({"state_dict": {"a": torch.zeros(1)}, "args": Code()}), rf"model\.pth: {EVIL}"),
    "code in an old checkpoint": (
        saved({"a": torch.zeros(1), "b": Code()}, _use_new_zipfile_serialization=False),
        rf"model\.pth: {EVIL}",
    ),
    "code in a pickle": (written("a.bin", pickle.dumps(Code())), r"a\.bin: is a pickle, but not one of PyTorch's"),
    "code in a folder": (
        lambda place: str(Path(saved(Code(), "timm/model.safetensors")(place)).parent),
        rf"timm/model\.safetensors: {EVIL}",
    ),
    "a bomb": (bomb, r"bomb\.npz: refused, because its [\d,]+ bytes unpack to 209,715,\d+: no weights can be"),
    "a pointer": (pointer, r"model\.safetensors: is a Git LFS pointer, \d+ bytes, not the weights: run git lfs pull"),
    "a web page": (written("w.pt", b"<!doctype html><title>Sign in"), r"w\.pt: is a web page, saved instead of"),
    "nothing": (written("e.npz", b""), r"e\.npz: is empty"),
    "damaged config.json": (edited("huggingface/config.json", lambda t: t[:-9]), r"config\.json: no JSON \("),
    "another model's config.json": (
        edited("huggingface/config.json", lambda t: t.replace('"vit"', '"bert"')),
        r"read as huggingface: config\.json: model_type: expected 'vit', got 'bert'",
    ),
    "a wrong size in config.json": (
        edited("hf-clip/config.json", lambda t: t.replace('"num_hidden_layers": 2', '"num_hidden_layers": 2000000000')),
        r"hf-clip/model\.safetensors: image\.depth: 2,000,000,000 blocks, but there are \d+ tensors",
    ),
    "a damaged tokenizer": (
        edited("hf-clip/tokenizer.json", lambda t: t[:-9]),
        r"hf-clip/tokenizer\.json is not a tokenizer\.json",
    ),
    "no weights": (
        lambda place: str(Path(written("only/config.json", b"{}")(place)).parent),
        r"only: has config\.json, but no weights beside it; there should be model\.safetensors",
    ),
    "an empty folder": (
        lambda place: str((place / "none").mkdir() or place / "none"),
        r"none: not a model folder: it has no config\.yaml and no model\.safetensors$",
    ),
    "mistyped, with more than one slash": (lambda _: "runs/none/model", r"none/model: there is no such folder; give"),
    "mistyped, like a name of the hub": (
        lambda _: "runs/none",
        r"runs/none: there is no such path here, and as a model of the hub: .*http://127\.0\.0\.1:9 cannot be reached",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_and_nothing_of_it_is_run(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, wanted = BAD[name]
    model = make(place)
    before = there(place.parent)
    for words in (
        ["convert", model, "out", "--to", "pictura"],
        ["classify", model, "a.png"],
        ["embed", model, "a.png", "--out", "v.npy"],
    ):
        line = fails(words, capsys)
        assert re.search(wanted, line), line
        assert line.startswith(f"pictura {words[0]}: ")
    assert not {name for name in there(place.parent) - before if not name.startswith("cache")}
    assert not Path("ran").exists()


def test_as_a_user_starts_it(place: Path) -> None:
    """In a process of its own: no traceback, whatever libraries say when they are left."""
    done = pictura("convert", saved(Code())(place), "out", "--to", "timm")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"pictura convert: \S+model\.pth: {EVIL}.*\n", done.stderr)
    assert not Path("ran").exists()


def test_the_help_names_every_project(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "-h"])
    told = " ".join(capsys.readouterr().out.split())
    *most, last = targets()
    assert f"--to TO {', '.join(most)} or {last}" in told
