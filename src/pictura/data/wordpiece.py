"""Word pieces in BERT's form, learned from the captions that one has (Wu et al. 2016; Devlin et al. 2019)."""

import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from pictura.data.text import Tokenizer, TokenizerConfig

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
INSIDE = "##"  # begins a piece that does not begin a word
LONGEST = 100  # letters; BERT knows no longer word
_SIGNS = string.ascii_lowercase + string.digits
# Always there, so that no plain word is unknown. Punctuation marks are words by themselves.
PLAIN = (*string.punctuation, *_SIGNS, *(INSIDE + sign for sign in _SIGNS))
PRIVATE = 0xF0000  # the first of 131,072 characters that mean nothing
MOST_LETTERS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class WordPieceTokenizerConfig(TokenizerConfig):
    """Lower-cased word pieces in BERT's form, learned from the first `max_captions` captions; fewer than `vocab_size`
    ids when words run out. The pair that is met most often becomes a piece, as the `tokenizers` library has it (Wu et
    al. take the pair that makes the text likeliest).
    """

    kind: ClassVar[str] = "wordpiece"
    context_length: int = 40
    vocab_size: int = 4096
    max_captions: int = 1_000_000

    def __post_init__(self) -> None:
        least = len(SPECIALS) + len(PLAIN)
        if self.vocab_size < least:
            raise ValueError(
                f"vocab_size: {self.vocab_size} has no room for BERT's {len(SPECIALS)} special tokens and the "
                f"{len(PLAIN)} pieces of one plain letter, digit or mark ({least} in all); try 4096"
            )

    def build(self, captions: Callable[[], Iterable[str]]) -> Tokenizer:
        words = _count_words(islice(captions(), self.max_captions))
        pieces = _learn_pieces(words, self.vocab_size - len(SPECIALS))
        vocabulary = {token: number for number, token in enumerate((*SPECIALS, *pieces))}
        return Tokenizer(bert_form(vocabulary), self.context_length)


def bert_form(
    vocabulary: dict[str, int], *, lowercase: bool = True, strip_accents: bool | None = None, chinese: bool = True
) -> tokenizers.Tokenizer:
    """A tokenizer in the form of BERT's, unless told otherwise the uncased one, from its vocabulary, which holds the
    special tokens.

    strip_accents: None is what `lowercase` is. chinese: whether each Chinese character is a word.
    """
    rust = tokenizers.Tokenizer(
        models.WordPiece(
            vocabulary, unk_token="[UNK]", continuing_subword_prefix=INSIDE, max_input_chars_per_word=LONGEST
        )
    )
    rust.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=chinese
    )
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.decoder = decoders.WordPiece(prefix=INSIDE)
    rust.add_special_tokens(list(SPECIALS))
    rust.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return rust


def _count_words(captions: Iterable[str]) -> Counter[str]:
    """How often each word occurs, as BERT splits and spells them."""
    chunks: Counter[str] = Counter()
    for caption in captions:
        chunks.update(caption.split(" "))  # at nothing but spaces: BERT drops some of Python's white space
    rust = bert_form({token: number for number, token in enumerate(SPECIALS)})
    assert rust.normalizer is not None and rust.pre_tokenizer is not None
    words: Counter[str] = Counter()
    for chunk, times in chunks.items():
        plain = rust.normalizer.normalize_str(chunk.encode("utf-8", "replace").decode())
        for word, _ in rust.pre_tokenizer.pre_tokenize_str(plain):
            words[word] += times
    return words


def _learn_pieces(words: Counter[str], count: int) -> list[str]:
    """At most `count` pieces, the same in every process: the plain ones, other letters by how often they are met (at
    most half of the rest), then pairs joined by the trainer of `tokenizers`.

    Left to itself that trainer numbers `##x` as it meets them, in an order that changes from run to run, and chooses
    among equally rare letters by chance; ties among pairs are decided by number. So each letter, within a word another
    than at its beginning, is given a private character, and the alphabet is handed over complete.
    """
    words = Counter({word: times for word, times in words.items() if len(word) <= LONGEST})
    met: Counter[str] = Counter()
    for word, times in words.items():
        for letter in _spell(word):
            met[letter] += times
    others = sorted(met.keys() - set(PLAIN), key=lambda letter: (-met[letter], letter))
    alphabet = [*PLAIN, *others[: min((count - len(PLAIN)) // 2, MOST_LETTERS)]]
    private = {letter: chr(PRIVATE + number) for number, letter in enumerate(alphabet)}
    meaning = {mark: letter for letter, mark in private.items()}

    def repeated() -> Iterator[str]:
        for word, times in sorted(words.items()):
            letters = _spell(word)
            if all(letter in private for letter in letters):
                spelled = "".join(map(private.__getitem__, letters)) + " "
                for done in range(0, times, 1000):
                    yield spelled * min(1000, times - done)

    rust = tokenizers.Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=count, min_frequency=2, initial_alphabet=sorted(meaning), show_progress=False
    )
    rust.train_from_iterator(repeated(), trainer)
    numbers = rust.get_vocab()
    learned = sorted(numbers, key=numbers.__getitem__)
    spelled = ([meaning[mark] for mark in piece] for piece in learned)
    return [first + "".join(letter.removeprefix(INSIDE) for letter in rest) for first, *rest in spelled]


def _spell(word: str) -> list[str]:
    return [word[0], *(INSIDE + letter for letter in word[1:])]
