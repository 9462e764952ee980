"""Tokenizers that others have published: CLIP's vocabulary wherever it lies on this machine, `tokenizer.json`, and
BERT's `vocab.txt`."""

import gzip
import importlib.util
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tokenizers

from pictura.data.text import (
    START,
    WORD_END,
    Tokenizer,
    TokenizerConfig,
    clip_form,
    clip_vocabulary,
    read_json,
)
from pictura.data.wordpiece import SPECIALS, bert_form

CLIP_TOKENS = 49408
BERTS = "vocab.txt"
IN_A_FOLDER = ("tokenizer.json", "vocab.json", BERTS)  # the best first
LARGEST = 16 * 2**20  # bytes of a vocab.txt; BERT's for a hundred languages has one
# In tokenizer_config.json -> in `bert_form`.
SPELLINGS = {"do_lower_case": "lowercase", "strip_accents": "strip_accents", "tokenize_chinese_chars": "chinese"}


@dataclass(frozen=True, kw_only=True)
class CLIPTokenizerConfig(TokenizerConfig):
    """OpenAI's published vocabulary of 49,408 tokens: from `path`, or from an installed package or a hub cache that has
    it.
    """

    kind: ClassVar[str] = "clip"
    path: Path | None = None

    def build(self, captions: Callable[[], Iterable[str]]) -> Tokenizer:
        path = self.path or next(_published(), None)
        if path is None:
            raise ValueError(
                "tokenizer.path: CLIP's vocabulary is nowhere on this machine; give the path of a tokenizer.json or "
                "bpe_simple_vocab_16e6.txt.gz (github.com/openai/CLIP), or `pip install open_clip_torch`"
            )
        tokenizer = _read(path, self.context_length)
        if tokenizer.vocab_size != CLIP_TOKENS:
            raise ValueError(f"{path} has {tokenizer.vocab_size:,} tokens, CLIP's has {CLIP_TOKENS:,}; use kind: file")
        return tokenizer


@dataclass(frozen=True, kw_only=True)
class FileTokenizerConfig(TokenizerConfig):
    """`path`: a tokenizer.json, BERT's vocab.txt, CLIP's vocab.json with its merges.txt, or a folder with one of these.

    A vocab.txt is read as BERT's uncased tokenizer does, unless a tokenizer_config.json beside it says otherwise.
    """

    kind: ClassVar[str] = "file"
    path: Path

    def build(self, captions: Callable[[], Iterable[str]]) -> Tokenizer:
        return _read(self.path, self.context_length)


def _read(path: Path, context_length: int) -> Tokenizer:
    """Whatever `path` is: a merges list of CLIP, a vocabulary of BERT, a tokenizer.json, or a folder."""
    path = Path(path).expanduser()
    if path.is_dir():
        path = next((path / name for name in IN_A_FOLDER if (path / name).exists()), path / IN_A_FOLDER[0])
    if path.name.endswith(BERTS):
        return Tokenizer(_from_pieces(path), context_length)
    if path.name.endswith((".txt.gz", ".txt")) and path.name != "merges.txt":
        return Tokenizer(_from_merges_list(path), context_length)
    if path.name in ("vocab.json", "merges.txt"):
        rust = _from_pair(path.with_name("vocab.json"), path.with_name("merges.txt"))
    else:
        rust = read_json(path)
        rust.no_truncation()
        rust.no_padding()
        model = json.loads(rust.to_str())["model"]
        if model.get("end_of_word_suffix") == WORD_END and START in model["vocab"]:  # CLIP's: with CLIP's own cleaning
            rust = clip_form(
                model["vocab"], [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
            )
    try:
        return Tokenizer(rust, context_length)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _from_merges_list(path: Path) -> tokenizers.Tokenizer:
    """bpe_simple_vocab_16e6.txt.gz: a header, then merges, of which CLIP uses the first 48,894."""
    try:
        lines = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode().split("\n")
        merges = [(a, b) for a, b in (line.split() for line in lines[1 : CLIP_TOKENS - 512 - 2 + 1])]
        if len(merges) < CLIP_TOKENS - 512 - 2:
            raise ValueError(f"{len(merges):,} merges")
        return clip_form(clip_vocabulary(merges, CLIP_TOKENS), merges)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path} is not CLIP's list of merges ({error})") from None


def _from_pair(vocab: Path, merges: Path) -> tokenizers.Tokenizer:
    """Hugging Face's two files of CLIP."""
    try:
        lines = merges.read_text(encoding="utf-8").splitlines()
        pairs = [(a, b) for a, b in (line.split() for line in lines if line and not line.startswith("#version"))]
        return clip_form(json.loads(vocab.read_text(encoding="utf-8")), pairs)
    except Exception as error:  # noqa: BLE001  (the Rust library raises Exception itself)
        raise ValueError(f"{vocab} and {merges.name} are no vocabulary and merges in CLIP's form ({error})") from None


def _from_pieces(path: Path) -> tokenizers.Tokenizer:
    """vocab.txt: word pieces, one a line, in the order of their ids; tokenizer_config.json beside it may say how texts
    are spelled."""
    try:
        lines = _text(path).removesuffix("\n").split("\n")
        vocabulary = {piece: number for number, piece in enumerate(lines)}
        if missing := [token for token in SPECIALS if token not in vocabulary]:
            raise ValueError(f"it has no {' '.join(missing)}")
        if len(vocabulary) < len(lines):
            twice = next(piece for number, piece in enumerate(lines) if vocabulary[piece] != number)
            raise ValueError(f"{twice!r} is there twice")
    except ValueError as error:
        raise ValueError(f"{path} is no list of BERT's word pieces, one a line ({error})") from None
    return bert_form(vocabulary, **_spelling(path.with_name("tokenizer_config.json")))


def _spelling(path: Path) -> dict[str, bool]:
    """How BERT's tokenizer spells texts, by the arguments of `bert_form`; what is not said is left out."""
    if not path.exists():
        return {}
    try:
        told = json.loads(_text(path))
        if not isinstance(told, dict):
            raise ValueError("no JSON object")
        found = {key: told[key] for key in SPELLINGS if told.get(key) is not None}
        for key, value in found.items():
            if not isinstance(value, bool):
                raise ValueError(f"{key}: {value!r:.80} is neither true nor false")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not say how texts are spelled ({error})") from None
    return {SPELLINGS[key]: value for key, value in found.items()}


def _text(path: Path) -> str:
    """A small text file, its lines ended by a line feed. ValueError for one that is absent, too large or no UTF-8."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST:,} bytes")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(error.strerror) from None


def _published() -> Iterator[Path]:
    """Where CLIP's vocabulary may lie on this machine. The packages are looked for, not imported."""
    for package in ("open_clip", "clip"):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            yield from Path(folder).glob("bpe_simple_vocab_16e6.txt.gz")
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub").expanduser()
    for name in ("tokenizer.json", "vocab.json"):
        for path in sorted(hub.glob(f"models--openai--clip-vit-*/snapshots/*/{name}")):
            if name == "tokenizer.json" or path.with_name("merges.txt").exists():
                yield path
