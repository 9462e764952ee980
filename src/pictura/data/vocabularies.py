"""Tokenizers that others have published: CLIP's vocabulary wherever it lies on this machine, and `tokenizer.json`."""

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
    tokenizer_json,
)

CLIP_TOKENS = 49408


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
    """`path`: a tokenizer.json, or a folder with one or with CLIP's vocab.json and merges.txt."""

    kind: ClassVar[str] = "file"
    path: Path

    def build(self, captions: Callable[[], Iterable[str]]) -> Tokenizer:
        return _read(self.path, self.context_length)


def _read(path: Path, context_length: int) -> Tokenizer:
    """Whatever `path` is: a merges list of CLIP, a tokenizer.json, or a folder."""
    path = Path(path).expanduser()
    if path.name.endswith((".txt.gz", ".txt")) and path.name != "merges.txt":
        return Tokenizer(_from_merges_list(path), context_length)
    folder = path if path.is_dir() else path.parent
    pair = folder / "vocab.json", folder / "merges.txt"
    if path.name in ("vocab.json", "merges.txt") or (
        path.is_dir() and not (path / "tokenizer.json").exists() and pair[0].exists()
    ):
        rust = _from_pair(*pair)
    else:
        rust = read_json(tokenizer_json(path))
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
