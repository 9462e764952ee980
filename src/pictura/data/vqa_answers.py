"""Free-form answers: how they are cleaned, scored against ten people's, and made into a vocabulary.

The rules are those of the official evaluation (VQA: Antol et al. 2015, arXiv:1505.00468, section 3; VQAv2: Goyal et al.
2017; github.com/GT-Vision-Lab/VQA), by which every published number was counted, with their oddities:

- a period goes unless a digit follows it, also one after a digit ("3." but not "3.5");
- a comma between two digits, anywhere, makes all punctuation vanish instead of becoming spaces ("1,000-2" is "10002");
- "none" is a number, 0;
- contractions are restored after lower-casing, so those of "I" (Im, Ive) never are; "shes" is not among them;
  "somebody'd" loses its apostrophe;
- where all people said the same, nothing is cleaned, neither their answer nor the one that is judged.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

SCORES = (0.0, 0.3, 0.6, 0.9, 1.0)  # of an answer that 0, 1, 2, 3, and 4 or more of ten people gave

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_COMMA = re.compile("[0-9],[0-9]")
_PERIOD = re.compile(r"\.(?![0-9])")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = frozenset({"a", "an", "the"})
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one_apostrophe(word: str) -> Iterator[str]:
    return (word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'")


_RESTORED = {typed: word for word in _CONTRACTIONS.split() for typed in _without_one_apostrophe(word)}
_RESTORED["somebody'd"] = "somebodyd"


def normalised(answer: str) -> str:
    """An answer as the official evaluation compares it; may be empty ("the")."""
    text = _one_line(answer)
    joined = _DIGITS_COMMA.search(text) is not None
    bare = text
    for mark in _PUNCTUATION:
        if mark in text:
            loose = joined or f"{mark} " in text or f" {mark}" in text
            bare = bare.replace(mark, "" if loose else " ")
    words = (_WORDS.get(word, word) for word in _PERIOD.sub("", bare).lower().split())
    return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)


def _one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def accuracy(predicted: str, humans: Sequence[str]) -> float:
    """VQA's accuracy of one answer, in [0, 1]: min(1, people who said it / 3), averaged over the sets of people in
    which one of them is left out. `humans`: what each (of ten) said, as the annotations have it."""
    if not humans:
        raise ValueError("humans: an accuracy needs at least one person's answer")
    predicted, said = _one_line(predicted), [_one_line(answer) for answer in humans]
    if len(set(said)) > 1:
        predicted, said = normalised(predicted), [normalised(answer) for answer in said]
    people, agree = len(said), said.count(predicted)
    return (agree * min(3, agree - 1) + (people - agree) * min(3, agree)) / (3 * people)


def soft_scores(answers: Iterable[str]) -> dict[str, float]:
    """The cleaned answers of ten people → the score of each, what more people said first (and equals in alphabetical
    order): min(1, 0.3 n), which is `accuracy`. Empty answers are left out."""
    counts = Counter(answer for answer in answers if answer)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {answer: SCORES[min(count, len(SCORES) - 1)] for answer, count in ranked}


def vocabulary(answers: Iterable[dict[str, float]], least: int = 9) -> tuple[str, ...]:
    """The answers that are the most common one of at least `least` questions, the most frequent first, equals in
    alphabetical order: 3,129 of VQAv2's train and val (Anderson et al. 2018, Pythia, ViLT).

    answers: each question's, with their scores; of equal scores the first counts, since scores end at four people
    and `soft_scores` puts what more people said first.
    """
    counts = Counter(max(scores, key=scores.__getitem__) for scores in answers if scores)
    chosen = sorted((answer for answer, count in counts.items() if count >= least), key=lambda a: (-counts[a], a))
    if not chosen:
        most = f"the most frequent is that of {max(counts.values())}" if counts else "there are no answers"
        raise ValueError(f"answers: none is the most common one of at least {least} questions; {most}; lower `least`")
    return tuple(chosen)
