"""Published tokenizers: every layout that CLIP's vocabulary comes in gives the same ids, and BERT's list those of its
own tokenizer."""

import gzip
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers
from transformers import BertTokenizerFast

from pictura.data import vocabularies
from pictura.data.text import Tokenizer
from pictura.data.vocabularies import CLIPTokenizerConfig, FileTokenizerConfig
from pictura.data.wordpiece import bert_form

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


# BERT's list of word pieces

PIECES = [
    *("[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", "!", ",", "'", "&", "\u3000"),
    *("the", "The", "red", "Red", "cat", "##s", "##ting", "sit", "cafe", "café", "Café", "##é", "猫", "犬", "猫犬"),
    *("σ", "ας", "ΑΣ", "s", "gross", "groß", "##a", "a", "A", "##b", "##B", "b", "B", "##猫", "##犬", "x", "##x"),
]
SENTENCES = [
    "The RED cats sitting, a Café! Cafe\u0301 CAFÉ café",
    "猫犬 dog 猫 [MASK] the[SEP]cat",
    "",
    "cats " * 50,
    "x" * 100 + " " + "x" * 101,
    "ΑΣ Ας σ GROẞ groß \u3000 a\u200bb a\x00b A\tB\x85b 🐈 [unused3]",
    "&amp; the'red\r\ncat\xa0s",
]


def listed(folder: Path, pieces: list[str] = PIECES, **config: object) -> Path:
    """A folder as Google and older versions of transformers write it."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"} | config))
    return folder


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"do_lower_case": True, "strip_accents": None, "model_max_length": 40},
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
    ],
    ids=str,
)
def test_berts_list_gives_the_ids_of_berts_tokenizer(config: dict[str, object], tmp_path: Path) -> None:
    folder = listed(tmp_path / "bert", **config)
    peer = BertTokenizerFast.from_pretrained(folder)
    expected = peer(SENTENCES, padding=True, truncation=True, max_length=40)["input_ids"]
    for path in (folder, folder / "vocab.txt"):
        tokenizer = FileTokenizerConfig(path=path, context_length=40).build(list)
        assert tokenizer(SENTENCES).tolist() == expected
        assert (tokenizer.start, tokenizer.end, tokenizer.mask, tokenizer.vocab_size) == (101, 102, 103, len(PIECES))
    plain = FileTokenizerConfig(path=listed(tmp_path / "plain"), context_length=40).build(list)
    said = {key: value for key, value in config.items() if value is False}
    assert (plain(SENTENCES).tolist() == expected) == (not said), "what is said in the file changes nothing here"


def test_a_list_ends_its_lines_as_any_system_does(tmp_path: Path) -> None:
    plain, other = listed(tmp_path / "plain") / "vocab.txt", tmp_path / "bert-base-uncased-vocab.txt"
    other.write_bytes(plain.read_bytes().rstrip(b"\n").replace(b"\n", b"\r\n"))
    both = [FileTokenizerConfig(path=path).build(list) for path in (plain, other)]
    assert both[0](SENTENCES).tolist() == both[1](SENTENCES).tolist()


def test_a_tokenizer_json_comes_before_a_list(tmp_path: Path) -> None:
    folder = listed(tmp_path / "both", [*PIECES, "more"])
    bert_form({piece: number for number, piece in enumerate(PIECES)}).save(str(folder / "tokenizer.json"))
    assert FileTokenizerConfig(path=folder).build(list).vocab_size == len(PIECES)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", r"it has no \[PAD\] \[UNK\] \[CLS\] \[SEP\] \[MASK\]"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n", r"it has no \[MASK\]"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\na\n", "'a' is there twice"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n\xff\n", "invalid start byte"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n" + b"x" * (16 * 2**20), r"larger than 16,777,216 bytes"),
        (None, "No such file"),
    ],
    ids=["empty", "no mask", "twice", "no text", "large", "absent"],
)
def test_what_is_no_list_of_pieces_is_named(content: bytes | None, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{path} is no list of BERT's word pieces, one a line \(.*{complaint}"):
        FileTokenizerConfig(path=path).build(list)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"do_lower_case": 1}', "do_lower_case: 1 is neither true nor false"),
        ('{"strip_accents": "yes"}', "strip_accents: 'yes' is neither"),
        ("[]", "no JSON object"),
        ('{"do_lower_case', "Unterminated string"),
        ('{"a": ' + "[" * 200_000, "recursion"),
    ],
    ids=["number", "text", "list", "torn", "deep"],
)
def test_a_configuration_that_says_nonsense_is_named(content: str, complaint: str, tmp_path: Path) -> None:
    path = listed(tmp_path / "bert") / "tokenizer_config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"^{path} does not say how texts are spelled \(.*{complaint}"):
        FileTokenizerConfig(path=path.parent).build(list)


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
