"""Byte-pair encoding in CLIP's form, learned from the captions that one has (Sennrich et al. 2016; bytes as in
GPT-2).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from pictura.data.text import WORD_END, Tokenizer, TokenizerConfig, byte_letters, clip_form, clip_vocabulary, clip_words

LONGEST = 4096  # letters of one word that are looked at


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerConfig(TokenizerConfig):
    """Byte-level BPE in CLIP's form, learned from the first `max_captions` captions; fewer than `vocab_size` ids when
    words run out.
    """

    kind: ClassVar[str] = "train"
    vocab_size: int = 4096
    max_captions: int = 1_000_000

    def __post_init__(self) -> None:
        if self.vocab_size < 2 * 256 + 2:
            raise ValueError(
                f"vocab_size: {self.vocab_size} has no room for CLIP's 512 byte tokens, start and end; try 1024"
            )

    def build(self, captions: Callable[[], Iterable[str]]) -> Tokenizer:
        merges = _learn_merges(_count_pieces(islice(captions(), self.max_captions)), self.vocab_size)
        return Tokenizer(clip_form(clip_vocabulary(merges, self.vocab_size), merges), self.context_length)


def _count_pieces(captions: Iterable[str]) -> Counter[str]:
    """How often each piece (the matches of WORDS, as byte letters) occurs."""
    words: Counter[str] = Counter()
    for caption in captions:
        words.update(clip_words(caption))
    rust = clip_form(clip_vocabulary((), 514), [])
    assert rust.normalizer is not None and rust.pre_tokenizer is not None
    pieces: Counter[str] = Counter()
    for word, times in words.items():
        word = word.encode("utf-8", "replace").decode()[:LONGEST]
        for piece, _ in rust.pre_tokenizer.pre_tokenize_str(rust.normalizer.normalize_str(word)):
            pieces[piece] += times
    return pieces


def _learn_merges(pieces: Counter[str], vocab_size: int) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016) by the trainer of `tokenizers`, the same in every process.

    Left to itself that trainer numbers `x</w>` as it meets them, in an order that changes from run to run, and ties
    among pairs are decided by number. So each letter at a word's end is given a private character, and the alphabet is
    handed over complete.
    """
    letters = byte_letters()
    last = {letter: chr(0xE000 + number) for number, letter in enumerate(letters)}
    meaning = {
        **{letter: letter for letter in letters},
        **{private: letter + WORD_END for letter, private in last.items()},
    }
    rust = tokenizers.Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2, min_frequency=2, initial_alphabet=sorted(meaning), show_progress=False
    )

    def repeated() -> Iterator[str]:
        for piece, times in sorted(pieces.items()):
            spelled = piece[:-1] + last[piece[-1]] + " "
            for done in range(0, times, 1000):
                yield spelled * min(1000, times - done)

    rust.train_from_iterator(repeated(), trainer)
    learned = json.loads(rust.to_str())["model"]["merges"]
    return [("".join(map(meaning.__getitem__, a)), "".join(map(meaning.__getitem__, b))) for a, b in learned]
