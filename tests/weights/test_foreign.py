"""Folders that open_clip and transformers have written, opened as they are."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig as TheirConfig
from transformers import CLIPImageProcessor, CLIPModel

from pictura.config import load
from pictura.data.text import Tokenizer
from pictura.evaluation.ready import load as load_ready
from pictura.models.classifier import ClassifierConfig
from pictura.models.clip import CLIP
from pictura.models.vit import ViTConfig
from pictura.prepare import prepare
from pictura.recipe import Recipe
from pictura.weights.convert import convert
from pictura.weights.folder import load_folder, save_folder
from pictura.weights.foreign import load_model
from tests.tiny import TINY, environment
from tests.weights.peers import alike, identical, stir
from tests.weights.test_openai import archive

VISION = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 64, "head_width": 32}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A folder as open_clip's `push_to_hf_hub` fills it (CLIP's own tokenizer has no files), and its model."""
    folder = tmp_path_factory.mktemp("open_clip") / "model"
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
    model = stir(open_clip.CLIP(**config), 0)
    pushing = sys.modules["open_clip.push_to_hf_hub"]
    without = type("Without", (), {"save_pretrained": lambda self, folder: None})()
    model.visual.image_mean, model.visual.image_std = (0.5, 0.4, 0.3), (0.3, 0.3, 0.2)
    pushing.save_for_hf(model, without, config, str(folder), safe_serialization="both")
    return folder, model


@pytest.fixture(scope="module")
def hugging(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> tuple[Path, CLIPModel]:
    folder = tmp_path_factory.mktemp("hugging") / "model"
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = shape | {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 12, "eos_token_id": tokenizer.end}
    vision = shape | {"image_size": 32, "patch_size": 8}
    model = stir(CLIPModel(TheirConfig(text_config=text, vision_config=vision, projection_dim=24)), 1)
    assert isinstance(model, CLIPModel)
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32, image_mean=[0.5, 0.4, 0.3]).save_pretrained(folder)
    tokenizer.save(folder)
    return folder, model


def pictures() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("kept", ["safetensors", "bin"])
def test_open_clip(theirs: tuple[Path, torch.nn.Module], kept: str, tmp_path: Path) -> None:
    folder, peer = theirs
    shutil.copytree(folder, tmp_path / "model")
    for file in (tmp_path / "model").glob("open_clip_*model.*"):
        if file.suffix != f".{kept}":
            file.unlink()
    model, words = load_model(tmp_path / "model")
    assert isinstance(model, CLIP)
    text = words(["a red dog", "an old house of stone, by the sea"])
    assert torch.equal(
        text,
        open_clip.get_tokenizer("ViT-B-32")(["a red dog", "an old house of stone, by the sea"], 16)[:, : text.shape[1]],
    )
    padded = torch.nn.functional.pad(text, (0, 16 - text.shape[1]))
    alike(model.eval().encode_image(pictures()), peer.encode_image(pictures()))
    alike(model.encode_text(text), peer.encode_text(padded))
    assert (model.config.mean, model.config.std) == ((0.5, 0.4, 0.3), (0.3, 0.3, 0.2))


@torch.no_grad()
def test_hugging_face(hugging: tuple[Path, CLIPModel], tokenizer: Tokenizer) -> None:
    folder, peer = hugging
    model, words = load_model(folder)
    assert isinstance(model, CLIP)
    text = words(["a red dog", "the old house"])
    assert torch.equal(text, tokenizer(["a red dog", "the old house"]))
    alike(model.eval().encode_image(pictures()), peer.get_image_features(pictures()).pooler_output)
    alike(model.encode_text(text), peer.get_text_features(text).pooler_output)
    assert model.config.mean == (0.5, 0.4, 0.3)


def test_in_another_precision_a_temperature_stays(theirs: tuple[Path, torch.nn.Module]) -> None:
    model, _ = load_model(theirs[0], dtype=torch.bfloat16)
    assert {name for name, p in model.named_parameters() if p.dtype is torch.float32} == {"logit_scale"}


def test_a_run_begins_with_one_and_it_answers(hugging: tuple[Path, CLIPModel]) -> None:
    assert load_ready(hugging[0]).embed_texts(["a red dog"]).shape == (1, 24)
    view = {"kind": "random_crop", "image_size": 48}
    changes = {"initial": str(hugging[0]), "model": None, "tokenizer": None, "view": view}
    prepared = prepare(load(Recipe, TINY | changes))
    stored = load_model(hugging[0])[0].state_dict()
    found = prepared.task.model.state_dict()
    assert found["image.pos_embed"].shape == (1, 37, 64), "of 48 pixels now"
    assert all(torch.equal(found[name], stored[name]) for name in stored if name != "image.pos_embed")


def test_ours_is_opened_as_before(tmp_path: Path, make: Callable[..., CLIP], tokenizer: Tokenizer) -> None:
    save_folder(tmp_path / "model", make(), tokenizer)
    ours, same = load_model(tmp_path / "model")[0], load_folder(tmp_path / "model")[0]
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), same.parameters(), strict=True))


def test_of_two_the_one_whose_weights_are_there(
    hugging: tuple[Path, CLIPModel], theirs: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(hugging[0], folder)
    shutil.copy(theirs[0] / "open_clip_config.json", folder)
    model, _ = load_model(folder)
    assert model.config.text.vocab_size != 49408  # type: ignore[union-attr]


def test_mistakes(theirs: tuple[Path, torch.nn.Module], hugging: tuple[Path, CLIPModel], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"not a model folder: it has no config\.yaml"):
        load_model(folder)
    shutil.copy(theirs[0] / "open_clip_config.json", folder)
    with pytest.raises(ValueError, match=r"no weights beside it; there should be open_clip_model\.safetensors or"):
        load_model(folder)
    torch.save({"logit_scale": torch.zeros(()), "of": sys.exit}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"open_clip_pytorch_model\.bin: not read, because it holds code"):
        load_model(folder)
    torch.save({"logit_scale": torch.zeros(())}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"its tensors \(logit_scale, …\) are of none of google, huggingface, open_clip"
    ):
        load_model(folder)
    state = theirs[1].state_dict()
    lacking = {name: tensor for name, tensor in state.items() if name != "visual.proj"}
    torch.save(lacking, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"open_clip's CLIP with a ViT needs visual\.proj, which is not there"):
        load_model(folder)
    wrong = state | {
        "ln_final.weight": torch.full((3,), torch.nan),
        "visual.ln_post.bias": torch.full((64,), torch.nan),
    }
    torch.save(wrong, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"another shape: text\.norm\.weight is \[3\] .*not finite: image\.norm\.bias"):
        load_model(folder)
    shutil.rmtree(folder)
    shutil.copytree(hugging[0], folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer\.json or vocab\.txt, and its \d+ tokens are not CLIP's"):
        load_model(folder)


# Single files, folders of several, links, JSON


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our folder of a ViT, and beside it one for each of three families."""
    place = tmp_path_factory.mktemp("vit")
    tower = ViTConfig(image_size=16, patch_size=8, width=64, depth=1, heads=1, activation="gelu_tanh")
    save_folder(place / "ours", stir(ClassifierConfig(image=tower, classes=3).build(), 4), None)
    for to in ("google", "huggingface", "timm"):
        convert(place / "ours", place / to, to)
    return place


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path)[0].state_dict()


def test_a_single_file_whatever_its_name_is(vit: Path, tmp_path: Path) -> None:
    state = load_file(vit / "timm" / "model.safetensors")
    for name in ("a.npz", "b.pth", "noname"):
        shutil.copy(vit / "google" / "model.npz", tmp_path / name)
    torch.save(state, tmp_path / "c.pth")
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": t for name, t in state.items()}}, tmp_path / "d.ckpt")
    torch.save(state, tmp_path / "e.pt", _use_new_zipfile_serialization=False)
    shutil.copy(vit / "timm" / "model.safetensors", tmp_path / "f.safetensors")
    expected = weights(vit / "ours")
    for file in tmp_path.iterdir():
        identical(weights(file), expected)
    identical(weights(vit / "ours" / "model.safetensors"), expected)  # ours, by what lies beside it


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_openais_archive_has_its_tokenizer(tmp_path: Path) -> None:
    archive(tmp_path / "tiny.pt", "vit", "matrices")
    with pytest.raises(ValueError, match=r"has no tokenizer\.json or vocab\.txt, and its 300 tokens are not CLIP's"):
        load_model(tmp_path / "tiny.pt")


def test_which_of_two_is_asked_and_what_is_no_model_does_not_count(vit: Path, tmp_path: Path) -> None:
    shutil.copy(vit / "google" / "model.npz", tmp_path / "B_16.npz")
    torch.save({"state": {}, "param_groups": []}, tmp_path / "optimizer.pt")
    (tmp_path / "training_args.bin").write_bytes(b"not looked at")
    (tmp_path / "README.md").write_text("# A model")
    identical(weights(tmp_path), weights(vit / "ours"))
    shutil.copy(vit / "timm" / "model.safetensors", tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=rf"^{tmp_path}: which of B_16\.npz, b\.safetensors is meant\? Give its path"):
        load_model(tmp_path)
    identical(weights(tmp_path / "b.safetensors"), weights(vit / "ours"))


def test_links_as_they_lie_in_the_cache_of_the_hub(vit: Path, tmp_path: Path) -> None:
    """The names are those of the links; what they lead to is called by its hash."""
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()

    def link(file: Path) -> None:
        shutil.copy(file, blobs / f"{len(list(blobs.iterdir())):040}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"{len(list(blobs.iterdir())) - 1:040}")

    for file in (vit / "huggingface").iterdir():
        link(file)
    identical(weights(snapshot), weights(vit / "ours"))
    identical(weights(snapshot / "model.safetensors"), weights(vit / "ours"))
    (tmp_path / "mine").symlink_to(snapshot)
    identical(weights(tmp_path / "mine"), weights(vit / "ours"))
    state = load_file(snapshot / "model.safetensors")
    (snapshot / "model.safetensors").unlink()
    names = sorted(state)
    parts = {f"model-{n}-of-2.safetensors": dict.fromkeys(names[n::2]) for n in (0, 1)}
    for shard, part in parts.items():
        save_file({name: state[name] for name in part}, tmp_path / shard)
        link(tmp_path / shard)
    index = {"weight_map": {name: shard for shard, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    link(tmp_path / "model.safetensors.index.json")
    identical(weights(snapshot), weights(vit / "ours"))
    identical(weights(snapshot / "model.safetensors.index.json"), weights(vit / "ours"))
    (snapshot / "model-1-of-2.safetensors").unlink()
    with pytest.raises(ValueError, match=r"index\.json: names model-1-of-2\.safetensors, not there beside it"):
        load_model(snapshot)


def test_json_that_is_damaged_or_anybodys(vit: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(vit / "huggingface", folder)
    (folder / "results.json").write_text("{1: 2}\n{}")
    (folder / "list.json").write_text("[1]")
    identical(weights(folder), weights(vit / "ours"))
    for name in ("config.json", "preprocessor_config.json"):
        whole = (folder / name).read_text()
        for text, words in (
            (whole[:-20], rf"{name}: no JSON \("),
            ("[" * 100_000, rf"{name}: no JSON \("),
            ("\ufffe", rf"{name}: no JSON \("),
            ("[1]", rf"{name}: expected a JSON object, got \[1\]"),
        ):
            (folder / name).write_text(text)
            with pytest.raises(ValueError, match=words):
                load_model(folder)
        (folder / name).write_text(whole)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"read as huggingface: config\.json: model_type: expected 'vit', got 'bert'"):
        load_model(folder)


def test_a_path_that_looks_like_a_name_of_the_hub(vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"^runs/none: there is no such path here, and as a model of the hub: .*127\.0\.0\.1:9 cannot"
    ):
        load_model("runs/none")
    with pytest.raises(ValueError, match=r"^hf-hub:runs/none: this machine is offline") as error:
        load_model("hf-hub:runs/none")
    assert "no such path" not in str(error.value)
    with pytest.raises(ValueError, match=r"^runs/none/model: there is no such folder; give the path of a model"):
        load_model("runs/none/model")
    shutil.copytree(vit / "ours", "runs/.old-mine")  # a save was killed between its two renames
    identical(weights(Path("runs/mine")), weights(vit / "ours"))


PEAK = """
import resource, sys, torch
from pictura.weights.foreign import families, load_model
families()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_model(sys.argv[1], dtype=getattr(torch, sys.argv[2], None))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_two_copies_of_the_weights_are_the_most_that_is_held(tmp_path: Path) -> None:
    tower = ViTConfig(width=1024, depth=8, heads=16, activation="gelu_tanh")
    model = ClassifierConfig(image=tower, resize="squash", interpolation="bilinear").build()
    save_folder(tmp_path / "ours", model, None)
    size = sum(p.nbytes for p in model.parameters())
    assert size > 400e6
    for name, dtype in (("ours", "None"), ("google", "bfloat16"), ("huggingface", "None"), ("timm", "bfloat16")):
        if name != "ours":
            convert(tmp_path / "ours", tmp_path / name, name)
        words = [sys.executable, "-c", PEAK, str(tmp_path / name), dtype]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment())
        assert int(done.stdout) < 2.1 * size, (name, dtype)
