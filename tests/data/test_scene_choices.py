"""Every choice is read anew and held against the ground truth: one is true, the others are not."""

import re
from collections import Counter
from typing import Any, get_args

import numpy as np
import pytest

from pictura.config import load, to_dict
from pictura.data.scene_choices import ChoiceKind, choose
from pictura.data.scene_words import FRAMES, NUMBERS
from pictura.data.scene_world import (
    COLOURS,
    MANY,
    NOVEL_SHAPES,
    SHAPES,
    Scene,
    Split,
    Thing,
    combinations,
    generator,
    lay_out,
)
from pictura.data.scenes import Scenes, ScenesConfig
from pictura.data.source import SourceConfig

KINDS: tuple[ChoiceKind, ...] = get_args(ChoiceKind)
EASY: tuple[ChoiceKind, ...] = ("negation", "shape", "colour")
NOUNS = {noun: noun for noun in (*SHAPES, *NOVEL_SHAPES, "thing")}
NOUNS |= {f"{noun}es" if noun.endswith("s") else f"{noun}s": noun for noun in NOUNS}
WHERE = {
    "left": ("x", -1),
    "right": ("x", 1),
    "above": ("y", -1),
    "over": ("y", -1),
    "below": ("y", 1),
    "under": ("y", 1),
}


def made(*kinds: ChoiceKind, gives: Any = ("choices",), **changes: Any) -> Scenes:
    return ScenesConfig(gives=gives, choice_kinds=kinds or KINDS, **changes).build()


def fitting(phrase: str, scene: Scene) -> list[Thing]:
    """What "red star", "stars" or "red thing" are in the scene."""
    *colours, noun = phrase.split()
    assert len(colours) <= 1 and set(colours) <= set(COLOURS), phrase
    shape = NOUNS[noun]
    return [t for t in scene.things if [t.colour] in ([*colours], [t.colour] * (not colours))
            and shape in ("thing", t.shape)]  # fmt: skip


def bare(sentence: str) -> str:
    for frame in FRAMES:
        before, after = frame.split("{}")
        if frame != "{}" and sentence.startswith(before) and sentence.endswith(after):
            return sentence.removeprefix(before).removesuffix(after)
    return sentence


def holds(sentence: str, scene: Scene) -> bool:
    """Whether a sentence is true, in the widest sense: anything a little further left is "left of"."""
    if match := re.fullmatch(r"an? (?:picture|image|drawing|scene) (with|without) an? ((?:\w+ )?\w+)", sentence):
        return bool(fitting(match[2], scene)) == (match[1] == "with")
    text = bare(sentence)
    if match := re.fullmatch(r"an? (\w+ \w+) (?:to the )?(left|right|above|over|below|under)(?: of)? an? (.+)", text):
        axis, sign = WHERE[match[2]]
        pairs = [(a, b) for a in fitting(match[1], scene) for b in fitting(match[3], scene)]
        return any(sign * (getattr(a, axis) - getattr(b, axis)) > 0 for a, b in pairs)
    for part in text.split(" and "):
        how_many, phrase = part.split(" ", 1)
        count = len(fitting(phrase, scene))
        if not (count > 0 if how_many in ("a", "an") else count == NUMBERS.index(how_many)):
            return False
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "heldout", "shapes", "counts", "everything"])
def test_one_choice_is_true_and_no_other(kind: ChoiceKind, split: Split) -> None:
    source = made(kind, split=split, count=300)
    allowed = combinations(split)
    for index in range(300 if split == "train" else 40):
        example: Any = source[index]
        scene, choices = source.scene(index), example["choices"]
        assert [holds(text, scene) for text in choices] == [i == example["answer"] for i in range(len(choices))], (
            choices
        )
        assert len(set(choices)) == len(choices) and example["choice_kind"] == kind
        assert {(t.colour, t.shape) for t in scene.things} <= set(allowed)
        for colour, noun in re.findall(rf"\b({'|'.join(COLOURS)}) (\w+)", ". ".join(choices)):
            if NOUNS[noun] != "thing":  # what a false one names might be there
                assert (colour, NOUNS[noun]) in allowed, choices


def test_the_oracle_of_these_tests_tells_false_from_true() -> None:
    scene = next(s for s in map(made().scene, range(50)) if len({t.shape for t in s.things}) == len(s.things) == 2)
    a, b = sorted(scene.things, key=lambda thing: thing.x)
    assert holds(f"a {a.colour} {a.shape} and a {b.colour} {b.shape}", scene)
    assert not holds(f"a {a.colour} {a.shape} and a {b.colour} {a.shape}", scene)
    assert holds(f"we see a {a.colour} {a.shape} to the left of a {b.colour} {b.shape}", scene)
    assert not holds(f"we see a {a.colour} {a.shape} right of a {b.colour} {b.shape}", scene)
    assert holds("two things", scene) and not holds("three things in a picture", scene)
    assert holds(f"a scene with a {a.shape}", scene) and not holds(f"an image without a {a.shape}", scene)


def test_what_each_kind_looks_like() -> None:
    forms = {
        "binding": (r"an? (\w+) (\w+) and an? (\w+) (\w+)", 2),
        "order": (r"an? (\w+) (\w+) (?:to the )?(?:left of|right of|above|over|below|under) an? (\w+) (\w+)", 2),
        "relation": (r"an? (\w+) (\w+) (?:to the )?(?:left of|right of|above|over|below|under) an? (\w+) (\w+)", 2),
        "count": (r"(?:one|two|three|four) (?:\w+ things?|\w+)", 4),
        "shape": (r"an? \w+ \w+", 4),
        "colour": (r"an? \w+ \w+", 4),
    }
    for kind, (form, count) in forms.items():
        source = made(kind)  # type: ignore[arg-type]
        for index in range(40):
            example: Any = source[index]
            texts = [bare(text) for text in example["choices"]]
            assert len(texts) == count and all(re.fullmatch(form, text) for text in texts), texts
            words = [[w for w in re.split(r"\W+", t) if w not in ("a", "an")] for t in texts]
            if kind in ("binding", "order"):  # the same bag of words
                assert sorted(words[0]) == sorted(words[1]) and words[0] != words[1]
            if kind == "binding":
                (c1, s1, c2, s2) = re.fullmatch(form, texts[0]).groups()  # type: ignore[union-attr]
                assert c1 != c2 and s1 != s2
                assert re.fullmatch(form, texts[1]).groups() == (c2, s1, c1, s2)  # type: ignore[union-attr]
            if kind in ("shape", "colour", "relation"):  # one word is another
                assert all(sum(a != b for a, b in zip(words[0], other, strict=True)) == 1 for other in words[1:])


def test_words_alone_tell_nothing() -> None:
    places, numbers, without, first = Counter[Any](), Counter[Any](), [], []
    source = made("count", "negation", "binding", "relation", "shape")
    for index in range(1500):
        example: Any = source[index]
        kind, true = example["choice_kind"], example["choices"][example["answer"]]
        places[kind, example["answer"]] += 1
        if kind == "count":
            number, noun = re.fullmatch(r"(\w+) (.+)", bare(true)).groups()  # type: ignore[union-attr]
            numbers["thing" in noun, number] += 1
        elif kind == "negation":
            without.append("without" in true)
        elif kind == "binding":
            first.append(min(example["choices"]) == true)
    for kind in ("negation", "binding", "relation"):
        assert 0.4 < places[kind, 0] / 300 < 0.6
    for kind in ("count", "shape"):
        assert all(0.15 < places[kind, place] / 300 < 0.35 for place in range(4)), places
    assert 0.4 < np.mean(without) < 0.6 and 0.4 < np.mean(first) < 0.6
    for thing in (True, False):
        some = [numbers[thing, number] for number in ("one", "two", "three", "four")]
        assert all(0.13 < n / sum(some) < 0.37 for n in some), numbers


def test_numbers_reach_as_far_as_the_things_of_a_scene() -> None:
    for changes, most in (({"objects": (1, 2)}, 2), ({"objects": (3, 6)}, 6), ({"split": "counts"}, MANY[1])):
        source = made("count", **changes)
        told: set[str] = set()
        for index in range(120):
            example: Any = source[index]
            told.add(bare(example["choices"][example["answer"]]).split()[0])
            assert len(example["choices"]) == min(4, most)
        assert told == set(NUMBERS[1 : most + 1])


def test_examples_are_a_function_of_seed_split_and_index() -> None:
    one, other = made(gives=("image", "choices")), made(gives=("image", "choices"))
    for index in (20, 3, 999_999):
        a, b = (dict[str, Any](source[index]) for source in (one, other))
        assert np.array_equal(a.pop("image"), b.pop("image")) and a == b
        assert a["choice_kind"] == KINDS[index % len(KINDS)] == one.choice_kind(index)
    assert made(seed=1)[3] != one[3] and made(split="fresh")[3] != one[3]
    assert one.scene(5) == other.scene(5) == made().scene(5)
    assert one.provides == set(one[0]) - {"key"} == {"image", "choices", "answer", "choice_kind"}


def test_the_scene_is_the_usual_one_where_that_will_do() -> None:
    usual, source = ScenesConfig().build(), made("shape", gives=("image", "captions", "choices"))
    for index in range(20):
        assert source.scene(index) == usual.scene(index)
        assert np.array_equal(source[index]["image"], usual[index]["image"])
        assert source[index]["captions"] == usual[index]["captions"] == source.captions(index)
    two = made("binding", gives=("image", "captions", "choices", "boxes"))
    assert all(len(two.scene(index).things) >= 2 for index in range(50))
    assert any(two.scene(index) != usual.scene(index) for index in range(50))


def test_all_parts_of_an_example_are_of_one_scene() -> None:
    source = made("count", gives=("image", "choices", "boxes", "captions"), label_of="shape")
    for index in range(30):
        example, scene = dict(source[index]), source.scene(index)
        names: Any = [source.class_names[label] for label in example["labels"]]  # type: ignore[attr-defined]
        assert names == [thing.shape for thing in scene.things]


def test_one_thing_is_enough_for_some() -> None:
    source = made(*EASY, gives=("image", "label", "choices"), objects=(1, 1))
    for index in range(30):
        example: Any = source[index]
        assert [holds(text, source.scene(index)) for text in example["choices"]].index(True) == example["answer"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"choice_kinds": ()}, r"^choice_kinds: none is chosen; there are binding, order, .*colour$"),
        ({"objects": (1, 1)}, r"^choice_kinds: binding, order, relation, count need .*two things; .*objects \[1, 4\]$"),
        ({"gives": ("clip", "choices")}, "^gives: choices are of a picture that stands still; leave out clip$"),
    ],
)
def test_mistakes_are_answered(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ScenesConfig(**{"gives": ("image", "choices"), **wrong})
    ScenesConfig(**{**wrong, "gives": ("image",)})  # nobody asks for choices
    if "objects" in wrong:
        ScenesConfig(**wrong, gives=("choices",), split="counts")  # of more things, whatever `objects` says


def test_a_kind_that_no_scene_has() -> None:
    def one() -> Scene:
        return lay_out(generator(0, "train", 0, 0), "train", (1, 1))

    with pytest.raises(
        ValueError, match=r"^choice_kinds: binding can be asked of none of 5,000 such scenes; leave it out"
    ):
        choose("binding", one, generator(0, "train", 0, 7), combinations("train"))


def test_a_recipe_names_the_kinds() -> None:
    given = {"kind": "scenes", "gives": ["image", "choices"], "choice_kinds": ["order", "count"]}
    config = load(SourceConfig, given)
    assert isinstance(config, ScenesConfig) and config.choice_kinds == ("order", "count")
    assert load(SourceConfig, to_dict(config)) == config
    with pytest.raises(ValueError, match="choice_kinds"):
        load(SourceConfig, {**given, "choice_kinds": ["sorder"]})
