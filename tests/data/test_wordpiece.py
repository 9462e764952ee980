"""Learning word pieces against byte-pair encoding in a few naive lines, and the form against BERT's own tokenizer."""

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers.implementations import BertWordPieceTokenizer
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from pictura.config import load
from pictura.data.text import Tokenizer, TokenizerConfig
from pictura.data.vocabularies import FileTokenizerConfig
from pictura.data.wordpiece import PLAIN, WordPieceTokenizerConfig, _count_words, _learn_pieces, bert_form

CAPTIONS = [
    "A red square, left of a blue circle.",
    "the red squares' circles encircled a blueish square",
    "Über cafés & bars: 12 & 3!",
    "Ein großer Hund läuft über die Straße",
    "两只猫 on a mat, 한글 ΑΣ",
] * 2
TEXTS = [
    "A red squarish encirclement, blue!",
    "[CLS] the [MASK] cat [SEP] caf\u00e9 CAFE\u0301",
    "",
    "word " * 60,
    "猫两只x\u3000y\u0085z\u200b 🐈 ΑΣ GROẞ",
    "x" * 101 + " a",
]
OURS = WordPieceTokenizerConfig(vocab_size=180).build(lambda: CAPTIONS)


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    numbers = tokenizer._rust.get_vocab()
    return sorted(numbers, key=numbers.__getitem__)


def naive(words: dict[str, int], count: int) -> list[str]:
    """Letters, then pairs joined one by one; ties go to the pair whose pieces are there longest."""
    spelled = {(word[0], *("##" + letter for letter in word[1:])): times for word, times in words.items()}
    met = Counter(letter for word, times in spelled.items() for letter in word for _ in range(times))
    others = sorted(set(met) - set(PLAIN), key=lambda letter: (-met[letter], letter))
    pieces = [*PLAIN, *others]
    while len(pieces) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in spelled.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += times
        best = min(
            pairs, key=lambda pair: (-pairs[pair], pieces.index(pair[0]), pieces.index(pair[1])), default=("", "")
        )
        if pairs[best] < 2:
            break
        joined = best[0] + best[1][2:]
        if joined not in pieces:
            pieces.append(joined)
        spelled = {_joined(word, best, joined): times for word, times in spelled.items()}
    return pieces


def _joined(word: tuple[str, ...], pair: tuple[str, str], joined: str) -> tuple[str, ...]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] = joined
        else:
            out.append(piece)
    return tuple(out)


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.text("abcß中", min_size=1, max_size=6), st.integers(1, 5), min_size=1, max_size=12))
@example({"cab": 3, "cabß": 2, "ßcab": 2})
def test_pieces_are_those_of_pairs_joined_one_by_one(words: dict[str, int]) -> None:
    # the trainer counts overlapping pairs ("aaa") as it goes, the naive form anew each time, so repeats are left out
    if any(a == b for word in words for a, b in itertools.pairwise(word)):
        return
    assert _learn_pieces(Counter(words), 140) == naive(words, 140)


def test_words_are_berts() -> None:
    words = _count_words(["A red\tsquare's", "a RED  caf\u00e9", "it's 12!", "一匹\u0085x\ue000y", "\ud800"])
    assert words == Counter(
        {"a": 2, "red": 2, "square": 1, "'": 2, "s": 2, "cafe": 1, "it": 1, "12": 1, "!": 1}
        | {"一": 1, "匹": 1, "xy": 1, "?": 1}
    )


def test_special_tokens_come_first_and_frequent_words_are_one_piece() -> None:
    assert vocabulary(OURS)[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert (OURS.start, OURS.end, OURS.mask, OURS.context_length, OURS.vocab_size) == (2, 3, 4, 40, 180)
    assert OURS(["red"]).shape == (1, 3)
    assert OURS(TEXTS).shape == (6, 40)
    assert OURS.decode(OURS(["A red squarish encirclement!"])[0]) == "a red squarish encirclement!"


def test_no_plain_word_is_unknown() -> None:
    tokenizer = WordPieceTokenizerConfig(vocab_size=109).build(list)
    assert tokenizer.vocab_size == 109
    ids = tokenizer(["".join(map(chr, range(32, 127))), "Quartz-vex'd jumbling 7890"], 500)
    assert 1 not in ids.tolist()[0] + ids.tolist()[1]
    assert 1 in tokenizer(["中"])[0]


def test_it_stops_when_words_run_out() -> None:
    assert WordPieceTokenizerConfig().build(lambda: ["ab", "ab", "cd"]).vocab_size == 109 + 1
    assert WordPieceTokenizerConfig().build(list).vocab_size == 109


def test_letters_take_at_most_half_of_the_room() -> None:
    """The most frequent first; words with others teach nothing."""
    captions = [" ".join(chr(0x4E00 + n) for n in range(9)), "\u4e05 \u4e05 \u4e03", "red red жар жар жар"]
    learned = vocabulary(WordPieceTokenizerConfig(vocab_size=109 + 8).build(lambda: captions))
    assert learned[109:] == ["##а", "##р", "ж", "\u4e05", "##ар", "жар", "re", "red"]


def test_learning_is_the_same_in_every_process() -> None:
    """Ties abound in few captions, and the library decides them by the order of a randomly seeded hash map."""
    captions = [*CAPTIONS, *("one of", "xy yx жъ ъж", "qz zq") * 3]
    code = (
        "import sys\nfrom pictura.data.wordpiece import WordPieceTokenizerConfig\n"
        f"t = WordPieceTokenizerConfig(vocab_size=170).build(lambda: {captions!r})\n"
        "sys.stdout.buffer.write(t._rust.to_str().encode())"
    )
    outputs = []
    for seed, threads in (("0", "1"), ("1", "4")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads, "PYTHONUTF8": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, timeout=600, env=environment
        )
        outputs.append(done.stdout)
    here = WordPieceTokenizerConfig(vocab_size=170).build(lambda: reversed(captions))
    assert here.vocab_size == 170, "more could be learned, so ties were decided"
    assert [json.loads(output) for output in outputs] == [json.loads(here._rust.to_str())] * 2
    assert outputs[0] == outputs[1]


def test_only_so_many_captions_are_read() -> None:
    read = []

    def captions() -> object:
        for number in range(100):
            read.append(number)
            yield f"caption {number}"

    WordPieceTokenizerConfig(max_captions=7).build(captions)  # type: ignore[arg-type]
    assert len(read) == 7


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^vocab_size: 108 has no room .*109 in all.*try 4096"):
        load(TokenizerConfig, {"kind": "wordpiece", "vocab_size": 108})  # type: ignore[type-abstract]


def test_captions_of_bytes_nobody_meant() -> None:
    captions = ["", " \n", "\x00\x01", "\ud800 x", "y" * 100_000, "\U000f0000\U0010ffff z"]
    tokenizer = WordPieceTokenizerConfig(vocab_size=120).build(lambda: captions)
    assert tokenizer(["x", *captions]).tolist()[0][:3] == [2, vocabulary(tokenizer).index("x"), 3]


# the file


def theirs(reader: PreTrainedTokenizerFast | BertTokenizerFast, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = reader(texts, padding=True, truncation=True, max_length=40)["input_ids"]
    return ids


def test_other_readers_of_the_saved_file_get_the_same(tmp_path: Path) -> None:
    OURS.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.mask, loaded.context_length, loaded.vocab_size) == (4, 40, 180)
    expected = OURS(TEXTS).tolist()
    assert loaded(TEXTS).tolist() == expected
    assert theirs(PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json")), TEXTS) == expected
    assert theirs(BertTokenizerFast(vocab=OURS._rust.get_vocab()), TEXTS) == expected
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


@settings(deadline=None, max_examples=80)
@given(st.text(st.one_of(st.sampled_from("aberdsqu ,'#[]éß中\u0301\t"), st.characters(codec="utf-8")), max_size=40))
def test_ids_are_those_of_berts_tokenizer(text: str) -> None:
    assert OURS([text], 100).tolist() == [BERT(text, truncation=True, max_length=100)["input_ids"]]


BERT = BertTokenizerFast(vocab=OURS._rust.get_vocab())


@pytest.mark.parametrize("writer", ["tokenizers", "transformers"])
def test_a_published_file_is_read(writer: str, tmp_path: Path) -> None:
    """BERT's own has [UNK] at 100 and [CLS] at 101; the two libraries write two layouts."""
    words = [
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "the",
        "red",
        "cat",
        "##s",
        "##ting",
        "sit",
        ",",
        "!",
        "猫",
        "cafe",
    ]
    tokens = ["[PAD]", *(f"[unused{n}]" for n in range(99)), *words]
    vocab = {token: number for number, token in enumerate(tokens)}
    peer = BertTokenizerFast(vocab=vocab)
    if writer == "tokenizers":
        BertWordPieceTokenizer(vocab).save(str(tmp_path / "tokenizer.json"))
    else:
        peer.save_pretrained(tmp_path)
    texts = ["The RED cats sitting, a Café!", "猫 dog [MASK]", "cats " * 50]
    expected = theirs(peer, texts)
    assert expected[0][:8] == [101, 105, 106, 107, 108, 110, 109, 111]
    tokenizer = FileTokenizerConfig(path=tmp_path, context_length=40).build(list)
    assert (tokenizer.start, tokenizer.end, tokenizer.mask, tokenizer.vocab_size) == (101, 102, 103, len(tokens))
    assert tokenizer(texts).tolist() == expected
    assert Tokenizer.load(tmp_path)(texts, 40).tolist() == expected
    assert bert_form(vocab).encode(texts[0]).ids == expected[0][: expected[0].index(102) + 1]
    numbers = tokenizer.word_numbers(tokenizer(texts[:2]))
    assert numbers.tolist() == [[0, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 0], [0, 1, 2, 3, *[0] * 8]]
