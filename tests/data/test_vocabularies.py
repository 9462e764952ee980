"""Published tokenizers: every layout that CLIP's vocabulary comes in gives the same ids."""

import gzip
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from pictura.data import vocabularies
from pictura.data.text import Tokenizer
from pictura.data.vocabularies import CLIPTokenizerConfig, FileTokenizerConfig

TEXTS = ["A photo of a cat’s tail", "R&amp;D 2024!", "ΑΣ «été»  x", "word " * 100]


@pytest.fixture(scope="module")
def clip() -> Tokenizer:
    return CLIPTokenizerConfig().build(list)


@pytest.fixture(scope="module")
def bpe_file() -> Path:
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"


@pytest.fixture(scope="module")
def hugging_face(clip: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers writes it for CLIP: tokenizer.json, vocab.json, merges.txt."""
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip-vit-base-patch32")
    model = json.loads(clip._rust.to_str())["model"]
    CLIPTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]]).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def only(folder: Path, to: Path, *names: str) -> Path:
    to.mkdir()
    for name in names:
        shutil.copy(folder / name, to / name)
    return to


def test_every_layout_gives_the_same_ids(clip: Tokenizer, bpe_file: Path, hugging_face: Path, tmp_path: Path) -> None:
    plain = tmp_path / "bpe.txt"
    plain.write_bytes(gzip.decompress(bpe_file.read_bytes()))
    pair = only(hugging_face, tmp_path / "pair", "vocab.json", "merges.txt")
    single = only(hugging_face, tmp_path / "single", "tokenizer.json")
    clip.save(tmp_path / "ours.json")
    paths = [bpe_file, plain, pair, pair / "vocab.json", pair / "merges.txt", single, single / "tokenizer.json"]
    for path in [*paths, hugging_face, tmp_path / "ours.json"]:
        for config in (CLIPTokenizerConfig(path=path), FileTokenizerConfig(path=path)):
            tokenizer = config.build(list)
            assert tokenizer(TEXTS).tolist() == clip(TEXTS).tolist(), path
            assert tokenizer.vocab_size == 49408


def test_an_older_tokenizer_json_spells_merges_as_text(clip: Tokenizer, hugging_face: Path, tmp_path: Path) -> None:
    content = json.loads((hugging_face / "tokenizer.json").read_text())
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert FileTokenizerConfig(path=tmp_path).build(list)(TEXTS).tolist() == clip(TEXTS).tolist()


def test_the_context_length_is_the_configurations() -> None:
    assert CLIPTokenizerConfig(context_length=16).build(list)(TEXTS).shape == (4, 16)


def test_a_tokenizer_of_another_kind_is_read_as_it_stands(tmp_path: Path) -> None:
    words = tokenizers.Tokenizer(models.WordPiece({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "cat": 4, "Cat": 5}))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.model.unk_token = "[UNK]"
    words.save(str(tmp_path / "tokenizer.json"))
    tokenizer = FileTokenizerConfig(path=tmp_path, context_length=4).build(list)
    assert tokenizer(["cat Cat &amp;", "cat"]).tolist() == [[2, 4, 5, 3], [2, 4, 3, 0]]
    assert tokenizer.decode([2, 4, 5, 3, 0]) == "cat Cat"
    with pytest.raises(ValueError, match="has 6 tokens, CLIP's has 49,408; use kind: file"):
        CLIPTokenizerConfig(path=tmp_path).build(list)


# where it is found


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without packages that have the vocabulary, and with an empty hub cache."""
    monkeypatch.setattr(vocabularies.importlib.util, "find_spec", lambda name: None)
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "hub"


def test_where_it_is_not_found_the_user_is_told_what_to_do(nowhere: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^tokenizer\.path: .*bpe_simple_vocab_16e6\.txt\.gz .*pip install open_clip_torch"
    ):
        CLIPTokenizerConfig().build(list)


@pytest.mark.parametrize("names", [("tokenizer.json",), ("vocab.json", "merges.txt")])
def test_it_is_found_in_the_hub_cache(
    nowhere: Path, hugging_face: Path, clip: Tokenizer, names: tuple[str, ...]
) -> None:
    snapshots = nowhere / "models--openai--clip-vit-base-patch32" / "snapshots"
    snapshots.mkdir(parents=True)
    only(hugging_face, snapshots / "abc123", *names)
    assert CLIPTokenizerConfig().build(list)(TEXTS).tolist() == clip(TEXTS).tolist()


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
def test_the_hub_cache_can_be_elsewhere(
    nowhere: Path, hugging_face: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    snapshots = tmp_path / "cache" / "models--openai--clip-vit-large-patch14" / "snapshots"
    snapshots.mkdir(parents=True)
    only(hugging_face, snapshots / "abc", "tokenizer.json")
    monkeypatch.setenv(variable, str(tmp_path / "cache"))
    assert CLIPTokenizerConfig().build(list).vocab_size == 49408


def test_packages_are_looked_for_without_importing_them() -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom pictura.data.vocabularies import CLIPTokenizerConfig\nCLIPTokenizerConfig().build(list)\n"
        "assert not {'open_clip', 'clip', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


# mistakes


def test_files_that_are_something_else_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.txt.gz").write_bytes(b"")
    (tmp_path / "torn.txt.gz").write_bytes(gzip.compress(b"header\na b\n" * 1000)[:30])
    (tmp_path / "words.txt").write_text("header\nthree words here\n")
    (tmp_path / "notes.json").write_text("[]")
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    for name in (
        "empty.txt.gz",
        "torn.txt.gz",
        "words.txt",
        "notes.json",
        "vocab.json",
        "absent.json",
        "absent.txt.gz",
    ):
        with pytest.raises(ValueError, match=f"^{tmp_path / name}"):
            FileTokenizerConfig(path=tmp_path / name).build(list)
