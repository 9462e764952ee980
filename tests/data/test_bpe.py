"""Training a tokenizer against byte-pair encoding in fifteen naive lines."""

import itertools
import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.config import load
from pictura.data.bpe import TrainTokenizerConfig, _count_pieces, _learn_merges
from pictura.data.text import TokenizerConfig, byte_letters

CAPTIONS = ["A red square, left of a blue circle.", "the red squares' circles", "Über cafés &amp; bars: 12 & 3!"] * 2


def naive(pieces: Counter[str], count: int) -> list[tuple[str, str]]:
    """Sennrich et al. 2016, algorithm 1; ties go to the first pair, letters before letters at a word's end."""
    letters = byte_letters()
    number = {letter: rank for rank, letter in enumerate(sorted(letters))}
    number |= {letter + "</w>": 256 + rank for rank, letter in enumerate(letters)}
    words = {(*piece[:-1], piece[-1] + "</w>"): times for piece, times in pieces.items()}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], number[pair[0]], number[pair[1]]), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        number.setdefault("".join(best), len(number))
        words = {_merged(word, best): times for word, times in words.items()}
    return merges


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for token in word:
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return tuple(out)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text("abcé", min_size=1, max_size=6), st.integers(1, 5), min_size=1, max_size=12))
def test_merges_are_those_of_the_paper(words: dict[str, int]) -> None:
    pieces = Counter({word.replace("é", "Ã©"): times for word, times in words.items()})
    # "aaa": the trainer counts overlapping pairs as it goes, the naive form anew each time, so repeats are left out
    if any(a == b for word in pieces for a, b in itertools.pairwise(word)):
        return
    learned = _learn_merges(pieces, 514 + 30)
    assert learned == naive(pieces, 30)[: len(learned)]


def test_pieces_are_clips_words() -> None:
    pieces = _count_pieces(["A red square's", "a RED &amp; blue", "it's 12!"])
    assert pieces == {"a": 2, "red": 2, "square": 1, "'s": 2, "&": 1, "blue": 1, "it": 1, "1": 1, "2": 1, "!": 1}


def test_ids_lie_as_in_clip() -> None:
    tokenizer = TrainTokenizerConfig(vocab_size=540).build(lambda: CAPTIONS)
    assert tokenizer.vocab_size == 540
    assert (tokenizer.start, tokenizer.end) == (538, 539)
    assert tokenizer(["!"]).tolist() == [[538, 256, 539]]
    merge = tokenizer._rust.id_to_token(512)
    assert merge is not None
    assert len(merge.removesuffix("</w>")) == 2
    everything = "".join(map(chr, range(0x20, 0x250)))
    assert tokenizer([everything], 10_000).min() >= 0, "every byte has a token"


def test_frequent_words_become_one_token() -> None:
    tokenizer = TrainTokenizerConfig(vocab_size=1000).build(lambda: CAPTIONS)
    assert tokenizer(["red square"]).shape == (1, 4)


def test_it_stops_when_there_is_nothing_to_merge() -> None:
    tokenizer = TrainTokenizerConfig(vocab_size=5000).build(lambda: ["ab", "ab", "cd"])
    assert tokenizer.vocab_size == 514 + 1
    assert TrainTokenizerConfig().build(list).vocab_size == 514


def test_training_is_the_same_in_every_process() -> None:
    """Ties abound in few captions, and the library decides them by the order of a randomly seeded hash map."""
    code = (
        "import sys\nfrom pictura.data.bpe import TrainTokenizerConfig\n"
        f"t = TrainTokenizerConfig(vocab_size=700).build(lambda: {CAPTIONS!r} + ['one of', 'xy yx'] * 3)\n"
        "sys.stdout.write(t._rust.to_str())"
    )
    outputs = set()
    for seed in ("0", "1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": str(1 + int(seed))}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, timeout=600, env=environment
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_only_so_many_captions_are_read() -> None:
    read = []

    def captions() -> object:
        for number in range(100):
            read.append(number)
            yield f"caption {number}"

    TrainTokenizerConfig(vocab_size=600, max_captions=7).build(captions)  # type: ignore[arg-type]
    assert len(read) == 7


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^vocab_size: 500 has no room"):
        load(TokenizerConfig, {"kind": "train", "vocab_size": 500})  # type: ignore[type-abstract]


def test_captions_of_bytes_nobody_meant() -> None:
    tokenizer = TrainTokenizerConfig(vocab_size=600).build(lambda: ["", " \n", "\x00\x01", "\ud800 x", "y" * 100_000])
    assert tokenizer(["x"]).shape == (1, 3)
