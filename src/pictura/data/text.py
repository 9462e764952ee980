"""Text to token ids: byte-level BPE in CLIP's form, trained on the user's captions or published, and tokenizers of
other projects.

CLIP's form (openai/CLIP, simple_tokenizer.py): unescape HTML twice, collapse white space, lower-case; split into words
by a regular expression; write each word's bytes as characters, the last one marked `</w>`; merge. Ids: 256 bytes, 256
bytes at a word's end, merges, `<|startoftext|>`, `<|endoftext|>`. All of it but the HTML stands in the `tokenizer.json`
that we write, for other readers too.

CLIP first repairs text with `ftfy`, which guesses. We do the part of it that matters in captions and needs no guess:
straight quotes, composed accents (NFC), no control characters. Left alone are mis-decoded text ("cafÃ©"), ligatures
("ﬁ") and full-width letters.
"""

import functools
import html
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from pictura.config import Config

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
# First and last token of the tokenizers that we know.
FRAMES = ((START, END), ("<start_of_text>", "<end_of_text>"), ("[CLS]", "[SEP]"), ("<s>", "</s>"))
MASKS = ("[MASK]", "<mask>")
WORD_BEGINNINGS = ("Ġ", "▁")  # byte-level BPE's and sentencepiece's

WORDS = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # ſ: CLIP matches 's without regard to case
CONTROL = "[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff\u206a-\u206f\ufff9-\ufffc]"  # ftfy's list
# Unicode's rule for Σ at the end of a word (Python's str.lower knows it, the Rust normalizer does not).
CASED = r"[\p{Cased}&&[^\p{Case_Ignorable}]]"
FINAL_SIGMA = rf"{CASED}\p{{Case_Ignorable}}*+\KΣ(?!\p{{Case_Ignorable}}*+{CASED})"

CACHED_WORDS = 50_000
CACHED_LENGTH = 64  # characters


class Tokenizer:
    """`tokenizer(texts)` -> int64 [b t]: start, tokens, end, then zeros; t is the longest here, at most
    `context_length`. `mask`: the id that hides a word in masked language modelling, None where there is none.
    """

    def __init__(self, rust: tokenizers.Tokenizer, context_length: int = 77) -> None:
        if context_length < 2:
            raise ValueError(f"context_length: {context_length} has no room for a start and an end")
        self._rust = rust
        self._words: dict[str, list[int]] = {}
        self._clip_form = getattr(rust.model, "end_of_word_suffix", None) == WORD_END
        self.context_length = context_length
        self.vocab_size: int = rust.get_vocab_size()
        self.start, self.end = _frame(rust)
        self.mask: int | None = next((i for i in map(rust.token_to_id, MASKS) if i is not None), None)

    def __call__(self, texts: Sequence[str], context_length: int | None = None) -> Tensor:
        """Longer texts are cut and still have their end token, as CLIP's `tokenize(truncate=True)` does."""
        limit = self.context_length if context_length is None else context_length
        if limit < 2:
            raise ValueError(f"context_length: {limit} has no room for a start and an end")
        encode = self._encode_words if self._clip_form else self._encode
        texts = [texts] if isinstance(texts, str) else texts
        rows = [[self.start, *encode(text, limit - 2), self.end] for text in texts]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        ids = np.zeros((len(rows), lengths.max(initial=2)), np.int64)
        filled = np.arange(ids.shape[1]) < lengths[:, None]
        ids[filled] = np.fromiter(chain.from_iterable(rows), np.int64, lengths.sum())
        return torch.from_numpy(ids)

    def _encode_words(self, text: str, room: int) -> list[int]:
        """CLIP's form never looks across white space, so words can be encoded one by one, remembered, and left when
        there is no more room: a text of any length costs what fits. (A word so long that its first part alone fills the
        room is cut.)
        """
        ids: list[int] = []
        for word in clip_words(text):
            known = self._words.get(word)
            if known is None:
                known = self._encode_plain(word[: 64 * (room + 2)])
                if len(word) <= CACHED_LENGTH:
                    if len(self._words) >= CACHED_WORDS:
                        self._words.clear()
                    self._words[word] = known
            ids += known
            if len(ids) >= room:
                break
        return ids[:room]

    def _encode(self, text: str, room: int) -> list[int]:
        return self._encode_plain(text[: 64 * (room + 2)])[:room]

    def _encode_plain(self, text: str) -> list[int]:
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
        # One by one: encode_batch starts a pool of threads, which must not be there when a loader forks.
        ids: list[int] = self._rust.encode(text, add_special_tokens=False).ids
        return ids

    def word_numbers(self, ids: Tensor) -> Tensor:
        """ids: [b t], unmasked -> int64 [b t]: which word of its text each token belongs to, from 1; 0 for start, end
        and padding. (A row that was cut before its end has words up to its edge.)

        Words are what the vocabulary says: BERT's until a token without `##`, CLIP's up to a `</w>`, others from a `Ġ`
        or `▁` on; without any such mark each token is a word.
        """
        started, ended = (ids == self.start).cumsum(1) > 0, (ids == self.end).cumsum(1) > 0
        inside = started & ~ended & (ids != self.start)
        marked = self._word_marks.to(ids.device)[ids]
        begins = marked.roll(1, 1) if self._clip_form else marked  # what wraps around is never inside
        begins = begins | ~inside.roll(1, 1)
        return (begins & inside).cumsum(1) * inside

    @functools.cached_property
    def _word_marks(self) -> Tensor:
        """bool [vocabulary]: tokens that begin a word; in CLIP's form, those that end one."""
        vocabulary = self._rust.get_vocab()
        continues = getattr(self._rust.model, "continuing_subword_prefix", None)
        beginning = max(WORD_BEGINNINGS, key=lambda mark: sum(token.startswith(mark) for token in vocabulary))
        marked = torch.zeros(max(vocabulary.values()) + 1, dtype=torch.bool)
        if self._clip_form:
            chosen = [number for token, number in vocabulary.items() if token.endswith(WORD_END)]
        elif continues:
            chosen = [number for token, number in vocabulary.items() if not token.startswith(continues)]
        else:
            chosen = [number for token, number in vocabulary.items() if token.startswith(beginning)]
            chosen = chosen or list(vocabulary.values())
        marked[[*chosen, *self._rust.get_added_tokens_decoder()]] = True
        return marked

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """The text of one row, without start, end, and what follows the end."""
        row = list(map(int, ids))
        row = row[: row.index(self.end)] if self.end in row else row
        text: str = self._rust.decode(row[row[:1] == [self.start] :], skip_special_tokens=False)
        return text.replace(WORD_END, " ").strip() if self._clip_form else text

    def save(self, path: Path | str) -> None:
        """Write `tokenizer.json` (`path`, or a file of that name in the folder `path`), which other programs read to
        the same end.
        """
        whole = tokenizers.Tokenizer.from_str(self._rust.to_str())
        whole.enable_truncation(self.context_length)
        whole.enable_padding(pad_id=0, pad_token=whole.id_to_token(0) or "")
        tokenizer_json(path).write_text(whole.to_str(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read what `save` wrote, or a published tokenizer.json as it stands."""
        path = tokenizer_json(path)
        rust = read_json(path)
        length = rust.truncation["max_length"] if rust.truncation else 77
        rust.no_truncation()
        rust.no_padding()
        try:
            return cls(rust, length)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self._rust, self.context_length)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(Config, ABC):
    """A choice of tokenizer; `context_length` counts start and end."""

    context_length: int = 77

    @abstractmethod
    def build(self, captions: Callable[[], Iterable[str]]) -> Tokenizer:
        """`captions()` begins anew the captions of the training data, for a tokenizer that learns from them."""


def clip_words(text: str) -> list[str]:
    """`text` at its white space, HTML unescaped."""
    if "&" in text:
        text = html.unescape(html.unescape(text))
    if not text.isprintable():  # some control characters are white space to str.split, but not to CLIP
        text = re.sub(CONTROL, "", text)
    return text.split()


def clip_form(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """A tokenizer in CLIP's form from its vocabulary, which holds start and end, and its merges."""
    rust = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix=WORD_END))
    rust.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(tokenizers.Regex("[\u02bc\u2018-\u201b]"), "'"),
            normalizers.Replace(tokenizers.Regex("[\u201c-\u201f]"), '"'),
            normalizers.Replace(tokenizers.Regex(CONTROL), ""),
            normalizers.NFC(),
            normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Replace(tokenizers.Regex(FINAL_SIGMA), "ς"),
            normalizers.Lowercase(),
        ]
    )
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rust.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(WORD_END, " ")])
    frame = [(token, vocabulary[token]) for token in (START, END)]
    rust.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=True) for token, _ in frame])
    rust.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", pair=f"{START} $A {END} $B {END}", special_tokens=frame
    )
    return rust


@functools.cache
def byte_letters() -> tuple[str, ...]:
    """GPT-2's printable letter for each byte, in the order of CLIP's first 256 ids."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return (*map(chr, printable), *(chr(256 + n) for n in range(256 - len(printable))))


def clip_vocabulary(merges: Iterable[tuple[str, str]], size: int) -> dict[str, int]:
    letters = byte_letters()
    tokens = dict.fromkeys((*letters, *(letter + WORD_END for letter in letters), *map("".join, merges)))
    return {token: number for number, token in enumerate((*islice(tokens, size - 2), START, END))}


def _frame(rust: tokenizers.Tokenizer) -> tuple[int, int]:
    for start, end in FRAMES:
        first, last = rust.token_to_id(start), rust.token_to_id(end)
        if first is not None and last is not None:
            return first, last
    raise ValueError(f"has no start and end token that we know ({', '.join(' '.join(frame) for frame in FRAMES)})")


def tokenizer_json(path: Path | str) -> Path:
    path = Path(path).expanduser()
    return path / "tokenizer.json" if path.is_dir() else path


def read_json(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: no tokenizer there ({error.strerror})") from None
    except Exception as error:  # noqa: BLE001  (the Rust library raises Exception itself)
        raise ValueError(f"{path} is not a tokenizer.json ({error})") from None
