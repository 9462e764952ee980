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

from pictura.data import text as text_module
from pictura.data.bpe import TrainTokenizerConfig
from pictura.data.text import Tokenizer, byte_letters
from pictura.data.vocabularies import CLIPTokenizerConfig

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
