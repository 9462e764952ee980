"""The tokenizer against CLIP's own, and what it promises of itself."""

import copy
import json
import pickle
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import ftfy
import open_clip
import pytest
import tokenizers
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import models, pre_tokenizers

from pictura.data import text as text_module
from pictura.data.bpe import TrainTokenizerConfig
from pictura.data.text import Tokenizer, byte_letters
from pictura.data.vocabularies import CLIPTokenizerConfig
from pictura.data.wordpiece import WordPieceTokenizerConfig

THEIRS = SimpleTokenizer()
OURS = CLIPTokenizerConfig().build(list)
SMALL = TrainTokenizerConfig(vocab_size=600).build(lambda: ["a small cat", "a small dog"] * 3)

# Characters that Python's own Unicode tables know: newer ones are letters to some libraries and nothing to others.
KNOWN = st.characters(exclude_categories=["Cs", "Cn", "Co"])
# What captions are made of, and what has been trouble to tokenizers.
TROUBLE = [
    *"aAbB zZ09.,!?-'\"&;#<>|ΣςİßéΑ’“中文🐈１½Ⅷ한ﬆ",
    *("'s", "'S", "'ſt", "n't", "'LL", "ΑΣ", "e\u0301", "👩\u200d🚀", "<b>", "</w>", "<|", "|>", "<end_of_text"),
    *("&amp;", "&lt;", "&eacute;", "&#39;", "&amp;amp;", "\u200b", "\ufeff", "\x00", "\x1c", "\x1f"),
    *"\n\t\v\u00a0\u3000\x85\u2028",
]
TEXT = st.one_of(
    st.text(KNOWN, max_size=40),
    st.lists(st.sampled_from(TROUBLE), max_size=25).map("".join),
    st.text("abc xyz'st,.!", max_size=200),
)


def after_guesses(text: str) -> str:
    """What ftfy makes of it beyond what we do too, entities apart: other encodings, ligatures, wide letters …"""
    same: dict[str, Any] = {"uncurl_quotes": False, "normalization": None, "remove_control_chars": False}
    return ftfy.fix_text(text, unescape_html=False, fix_line_breaks=False, **same)


def theirs(texts: list[str], length: int = 77) -> torch.Tensor:
    """clip.tokenize, cropped to the longest."""
    ids = THEIRS(texts, length)
    return ids[:, : int((ids == THEIRS.eot_token_id).int().argmax(1).max()) + 1]


@settings(deadline=None, max_examples=600)
@given(TEXT)
@example("a photo of a cat")
@example("ΣΑΣ Σ ΑΣ. ΑΣ'Α")
@example("’s ‘tis “quoted” ＂")
@example("&lt;b&gt; R&amp;amp;D &nbsp;x")
def test_ids_are_clips(text: str) -> None:
    for seen in (text, ftfy.fixes.remove_control_chars(text)):  # ftfy guesses before and after it drops these
        assume(after_guesses(seen) == seen)
    assume("<|" not in text)  # open_clip has other names for start and end
    assume("&" not in text or "<" not in text)  # ftfy leaves entities alone there, and cleans up before CLIP unescapes
    assert OURS([text]).tolist() == theirs([text]).tolist()


@settings(deadline=None, max_examples=100)
@given(st.lists(TEXT, max_size=4), st.integers(2, 12))
def test_rows_are_padded_to_the_longest_and_cut_with_their_end(texts: list[str], length: int) -> None:
    ids = OURS(texts, length)
    alone = [OURS([text], 77)[0].tolist() for text in texts]
    expected = [row if len(row) <= length else [*row[: length - 1], OURS.end] for row in alone]
    assert ids.dtype == torch.int64
    assert ids.shape == (len(texts), max(map(len, expected), default=2))
    for row, wanted in zip(ids.tolist(), expected, strict=True):
        assert row == wanted + [0] * (ids.shape[1] - len(wanted))


def test_the_published_example() -> None:
    assert OURS(["a photo of a cat"]).tolist() == [[49406, 320, 1125, 539, 320, 2368, 49407]]
    assert OURS(["!", ""]).tolist() == [[49406, 256, 49407], [49406, 49407, 0]]
    assert (OURS.vocab_size, OURS.start, OURS.end, OURS.context_length) == (49408, 49406, 49407, 77)
    assert OURS("one text").shape == (1, 4)


def test_the_names_of_the_special_tokens_are_the_tokens() -> None:
    """As in openai/CLIP, whatever the case: a caption that says so ends there."""
    assert OURS(["a <|endoftext|> b <|StartOfText|>"]).tolist() == [[49406, 320, 49407, 321, 49406, 49407]]


LONG = {
    "words": "word " * 10**6,
    "space": " " * 10**6 + "x",
    "letters": "a" * 10**6,
    "ideograms": "中" * 10**6,
    "tail": "a b " + "c" * 10**6,
    "marks": "!" * 10**6,
    "entities": "&amp;" * 10**5,
    "control": "\x00 " * 10**5 + "x",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_text_of_any_length_has_the_first_tokens_of_its_beginning(text: str) -> None:
    ids = OURS([text])
    assert ids.shape[1] <= 77
    if text.strip(" \x00x"):
        assert ids.tolist() == OURS([text[:10_000]]).tolist()
    else:
        assert ids.tolist() == OURS(["x"]).tolist()


def test_half_a_surrogate_pair_is_no_crash() -> None:
    assert OURS(["a \ud83d b"]).tolist() == OURS(["a ? b"]).tolist()


def test_the_memory_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "CACHED_WORDS", 10)
    tokenizer = copy.copy(SMALL)
    for number in range(50):
        texts = [f"cat{number} small dog"]
        assert tokenizer(texts).tolist() == tokenizer(texts).tolist() == SMALL(texts).tolist()
        assert len(tokenizer._words) <= 10
    tokenizer(["x" * 1000])
    assert all(len(word) <= text_module.CACHED_LENGTH for word in tokenizer._words)


def cleaned(text: str) -> str:
    """CLIP's cleaning, ftfy reduced to what we do too."""
    text = ftfy.fixes.remove_control_chars(ftfy.fixes.uncurl_quotes(text))
    return unicodedata.normalize("NFC", text).lower()


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(KNOWN, min_size=1, max_size=12), max_size=8).map(" ".join))
def test_decoding_gives_the_cleaned_text_back(text: str) -> None:
    assume("&" not in text)
    ids = SMALL([text], 10_000)[0]
    spaced = SMALL.decode(ids)
    assert spaced.replace(" ", "") == "".join(cleaned(text).split()).replace("</w>", "")
    assert SMALL([spaced], 10_000)[0].tolist() == ids.tolist() or "'" in text or "</w>" in text


def test_decode_stops_at_the_end_and_takes_tensors() -> None:
    ids = OURS(["a photo of a cat", "two"])
    assert OURS.decode(ids[0]) == OURS.decode(ids[0].tolist()) == "a photo of a cat"
    assert OURS.decode(ids[1]) == "two"
    assert OURS.decode([]) == ""


# which word a token belongs to

CAPTIONS = ["a red dog runs", "the red dogs ran near an old, old house!"] * 2
SPLITTING = {
    "clip": TrainTokenizerConfig(vocab_size=550).build(lambda: CAPTIONS),
    "wordpiece": WordPieceTokenizerConfig(vocab_size=130, context_length=30).build(lambda: CAPTIONS),
}


def naive_word_numbers(tokenizer: Tokenizer, row: list[int]) -> list[int]:
    """One token after another, by its spelling."""
    numbers: list[int] = []
    word, within, closed = 0, False, True
    for number in row:
        token = tokenizer._rust.id_to_token(number)
        assert token is not None
        if number in (tokenizer.start, tokenizer.end):
            within = number == tokenizer.start and not numbers
            numbers.append(0)
            continue
        if tokenizer._clip_form:
            new, closed = closed, token.endswith("</w>")
        else:
            new = not token.startswith("##")
        word += within and new
        numbers.append(word if within else 0)
    return numbers


@pytest.mark.parametrize("form", SPLITTING)
@settings(deadline=None, max_examples=60)
@given(st.lists(st.text("abdeghnor ,!'é中", max_size=30), min_size=1, max_size=4), st.integers(2, 30))
def test_word_numbers_are_those_of_a_walk_from_token_to_token(form: str, texts: list[str], length: int) -> None:
    tokenizer = SPLITTING[form]
    ids = tokenizer(texts, length)
    numbers = tokenizer.word_numbers(ids)
    assert numbers.dtype == torch.int64
    assert numbers.tolist() == [naive_word_numbers(tokenizer, row) for row in ids.tolist()]


@pytest.mark.parametrize("form", SPLITTING)
@settings(deadline=None, max_examples=60)
@given(st.text("abdeghnor ,!'é中", max_size=30))
def test_word_numbers_are_the_librarys(form: str, text: str) -> None:
    tokenizer = SPLITTING[form]
    words = tokenizer._rust.encode(text, add_special_tokens=False).word_ids
    numbers = tokenizer.word_numbers(tokenizer([text], 200))[0]
    assert numbers.tolist() == [0, *(word + 1 for word in words), 0]


@pytest.mark.parametrize("form", SPLITTING)
def test_a_word_of_several_pieces_has_one_number(form: str) -> None:
    tokenizer = SPLITTING[form]
    ids = tokenizer(["dogged, red", "red"])
    numbers = tokenizer.word_numbers(ids).tolist()
    assert numbers[0] == [*sorted(numbers[0][:-1]), 0]
    assert numbers[0].count(1) > 1, "dogged is no word of the captions"
    assert [numbers[0].count(2), numbers[0].count(3), max(numbers[0])] == [1, 1, 3]
    assert numbers[1] == [0, 1] + [0] * (len(numbers[1]) - 2)
    assert pickle.loads(pickle.dumps(tokenizer)).word_numbers(ids).tolist() == numbers


def test_a_start_within_a_text_is_no_word_and_parts_two() -> None:
    row = OURS(["cat <|startoftext|> dog <|endoftext|> house"])
    assert OURS.word_numbers(row).tolist() == [[0, 1, 0, 2, 0, 0, 0]]
    assert OURS.word_numbers(torch.tensor([[OURS.end, 320], [320, OURS.start], [OURS.start, 320]])).tolist() == [
        [0, 0],
        [0, 0],
        [0, 1],
    ]


def test_word_numbers_of_nothing() -> None:
    assert OURS.word_numbers(OURS([])).shape == (0, 2)
    assert OURS.word_numbers(OURS([""])).tolist() == [[0, 0]]


@pytest.mark.parametrize("mark", ["Ġ", "▁"])
def test_a_mark_before_a_word_begins_it(mark: str) -> None:
    """Byte-level BPE (RoBERTa's) and sentencepiece (T5's); the other's mark is a letter like any other."""
    other = {"Ġ": "▁", "▁": "Ġ"}[mark]
    pieces = [f"{mark}h", f"{mark}red", "red", "h", "at", other, ",", mark, f"{mark}at"]
    rust = tokenizers.Tokenizer(
        models.BPE({token: n for n, token in enumerate(["<s>", "<pad>", "</s>", "<mask>", *pieces])}, [])
    )
    rust.add_special_tokens(["<s>", "<pad>", "</s>", "<mask>"])
    tokenizer = Tokenizer(rust)
    spelled = ["<s>", "h", "at", ",", f"{mark}red", other, mark, "h", "at", "<mask>", "</s>", "<pad>"]
    ids = torch.tensor([[rust.token_to_id(token) for token in spelled]])
    assert tokenizer.word_numbers(ids).tolist() == [[0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 0, 0]]
    assert tokenizer.mask == 3


def test_without_marks_each_token_is_a_word() -> None:
    rust = tokenizers.Tokenizer(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "red": 2, "hat": 3}, unk_token="[SEP]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = Tokenizer(rust)
    assert tokenizer.word_numbers(tokenizer(["red hat red"])).tolist() == [[0, 1, 2, 3, 0]]


def test_the_mask_is_none_where_there_is_none() -> None:
    assert OURS.mask is None
    assert SPLITTING["wordpiece"].mask == 4


# the file


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    copy.copy(OURS).save(path)
    return path / "tokenizer.json"


@settings(deadline=None, max_examples=100)
@given(st.lists(TEXT, min_size=1, max_size=3))
def test_other_readers_of_the_file_get_the_same(saved: Path, texts: list[str]) -> None:
    """`tokenizers` alone, which knows all but the HTML."""
    texts = [text.replace("&", "+") for text in texts]
    reader = _reader(saved)
    assert [row.ids for row in reader.encode_batch(texts)] == OURS(texts).tolist()


_READERS: dict[Path, tokenizers.Tokenizer] = {}


def _reader(path: Path) -> tokenizers.Tokenizer:
    return _READERS.setdefault(path, tokenizers.Tokenizer.from_file(str(path)))


def test_transformers_reads_the_file_to_the_same_end(saved: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    texts = ["A Photo of a cat’s\u00a0tail", "x " * 100, "ΑΣ é"]
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(saved))
    assert (
        theirs(texts, padding=True, truncation=True, max_length=77)["input_ids"][0][:8] == OURS(texts)[0, :8].tolist()
    )


def test_a_saved_tokenizer_comes_back_whole(tmp_path: Path) -> None:
    tokenizer = TrainTokenizerConfig(vocab_size=600, context_length=9).build(lambda: ["the Café", "the cafés"] * 2)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path)
    texts = ["The CAFÉ’s &amp; bar", "one two three four five six seven eight nine ten"]
    assert loaded(texts).tolist() == tokenizer(texts).tolist()
    assert loaded(texts).shape == (2, 9)
    assert loaded(texts, 20).tolist() == tokenizer(texts, 20).tolist()
    for name in ("vocab_size", "start", "end", "context_length"):
        assert getattr(loaded, name) == getattr(tokenizer, name)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_it_crosses_process_borders() -> None:
    assert pickle.loads(pickle.dumps(SMALL))(["a small cat"]).tolist() == SMALL(["a small cat"]).tolist()


def test_no_threads_are_started() -> None:
    """Rust's pool of threads and a fork do not go together; `tokenizers` would warn about it in the child."""
    code = (
        "import os\nfrom pictura.data.vocabularies import CLIPTokenizerConfig\n"
        "t = CLIPTokenizerConfig().build(list)\nt(['a cat'] * 500)\n"
        "pid = os.fork()\nt(['a dog'] * 500)\n"
        "os._exit(0) if pid == 0 else os.waitpid(pid, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert "fork" not in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no tokenizer there"),
        ("{", "is not a tokenizer.json"),
        ("\x00\x01", "is not a tokenizer.json"),
        (json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}}), "no start and end token that we know"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "t.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        Tokenizer.load(path)
    assert str(path) in str(caught.value)


def test_a_context_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="context_length: 1 has no room"):
        OURS(["a"], 1)
    with pytest.raises(ValueError, match="context_length: 0 has no room"):
        CLIPTokenizerConfig(context_length=0).build(list)


def test_the_letters_of_bytes_are_clips() -> None:
    assert byte_letters() == tuple(open_clip.tokenizer.bytes_to_unicode().values())
    assert unicodedata.is_normalized("NFC", "".join(byte_letters()))
