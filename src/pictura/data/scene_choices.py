"""Which of these sentences is true of the scene? One true sentence, among false ones that differ in what is asked.

What `binding`, `order` and `relation` exchange leaves the bag of words (nearly) as it is, so that reading which words
there are is not enough (Yuksekgonul et al. 2023, arXiv:2210.01936; Hsieh et al. 2023, arXiv:2306.14610); `shape` and
`colour` replace a word by one that nothing in the scene deserves, and are the easy controls.

Words alone give nothing away: what a false sentence names is of the combinations that the split shows, and numbers and
"without" are drawn before the scene, evenly.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from pictura.data.scene_questions import OPPOSITE, Noun
from pictura.data.scene_words import FRAMES, NUMBERS, RELATIONS, article, name, plural
from pictura.data.scene_world import Scene, Thing, paint, pick, relation

ChoiceKind = Literal["binding", "order", "relation", "count", "negation", "shape", "colour"]
MOST = 4  # choices
TRIES = 5_000  # scenes laid out for one example; the rarest content is in one of a hundred
NEEDS_TWO = frozenset({"binding", "order", "relation", "count"})  # a scene of one thing has none of these

Rng = np.random.Generator
Pairs = Sequence[tuple[str, str]]
Told = tuple[Scene, str, list[str]]  # the scene, what is true of it, what is false
Attempt = Callable[[Scene], Told | None]  # None: nothing of the kind can be said of this scene


class Choices(NamedTuple):
    """`sentences`, of which the one at `answer` is true."""

    sentences: list[str]
    answer: int


def choose(kind: str, another: Callable[[], Scene], rng: Rng, pairs: Pairs, most: int = MOST) -> tuple[Scene, Choices]:
    """A scene, the first from `another` of which `kind` can be asked, and the choices.

    pairs: the (colour, shape) that may be named; most: things in a scene, so that every number to it is as likely. For
    `count`, things are dressed so that the number is right. ValueError where no scene fits.
    """
    attempt = _KINDS[kind](rng, pairs, most)
    for _ in range(TRIES):
        if (told := attempt(another())) is not None:
            scene, true, false = told
            place = int(rng.random() * (len(false) + 1))
            return scene, Choices([*false[:place], true, *false[place:]], place)
    raise ValueError(
        f"choice_kinds: {kind} can be asked of none of {TRIES:,} such scenes; leave it out, or change objects"
    )


def _binding(rng: Rng, pairs: Pairs, most: int) -> Attempt:
    """ "a red star and a blue ring", not "a blue star and a red ring", neither part of which is there."""
    frame, known = pick(rng, FRAMES), frozenset(pairs)

    def attempt(scene: Scene) -> Told | None:
        for a, b in _couples(scene, rng):
            if a.colour != b.colour and a.shape != b.shape:
                swapped = (b.colour, a.shape), (a.colour, b.shape)
                if known.issuperset(swapped) and not any(Noun(*pair).count(scene) for pair in swapped):
                    false = " and ".join(article(" ".join(pair)) for pair in swapped)
                    return scene, frame.format(f"{_a(a)} and {_a(b)}"), [frame.format(false)]
        return None

    return attempt


def _order(rng: Rng, pairs: Pairs, most: int) -> Attempt:
    """ "a red star left of a blue ring", not "a blue ring left of a red star", of things that are there once each."""
    frame, spelling = pick(rng, FRAMES), int(rng.random() * 2)

    def attempt(scene: Scene) -> Told | None:
        for a, b in _single(scene, rng):
            where = RELATIONS[relation(a, b)][spelling]
            return scene, frame.format(f"{_a(a)} {where} {_a(b)}"), [frame.format(f"{_a(b)} {where} {_a(a)}")]
        return None

    return attempt


def _relation(rng: Rng, pairs: Pairs, most: int) -> Attempt:
    """ "a red star left of a blue ring", not "a red star right of a blue ring", of things that are there once each."""
    frame, spelling = pick(rng, FRAMES), int(rng.random() * 2)

    def attempt(scene: Scene) -> Told | None:
        for a, b in _single(scene, rng):
            where = relation(a, b)  # the opposite is false, while "above" may be a little "left of" too
            true, false = (
                frame.format(f"{_a(a)} {RELATIONS[way][spelling]} {_a(b)}") for way in (where, OPPOSITE[where])
            )
            return scene, true, [false]
        return None

    return attempt


def _count(rng: Rng, pairs: Pairs, most: int) -> Attempt:
    """ "three stars" or "two red things", not "one star"; every number up to `most` is true as often."""
    frame, by, number = pick(rng, FRAMES), pick(rng, ("shape", "colour")), 1 + int(rng.random() * most)
    others = _shuffled([n for n in range(1, most + 1) if n != number], rng)[: MOST - 1]
    colour, shape = pick(rng, pairs)
    noun = Noun(None, shape) if by == "shape" else Noun(colour, None)
    fitting = [pair for pair in pairs if _names(noun, pair)]
    other = [pair for pair in pairs if not _names(noun, pair)]

    def attempt(scene: Scene) -> Told | None:
        if len(scene.things) < number:
            return None
        wanted = set(_shuffled(range(len(scene.things)), rng)[:number])
        things = [_dressed(t, fitting if at in wanted else other, rng) for at, t in enumerate(scene.things)]
        true, *false = (
            frame.format(f"{NUMBERS[n]} {noun if n == 1 else plural(str(noun))}") for n in (number, *others)
        )
        return replace(scene, things=tuple(things)), true, false

    return attempt


def _negation(rng: Rng, pairs: Pairs, most: int) -> Attempt:
    """ "a picture with a star" or "a picture without a star", each true as often. No caption of the world says
    "without": what it means must come from elsewhere."""
    what, there = pick(rng, ("a picture", "an image", "a drawing", "a scene")), rng.random() < 0.5
    form = pick(rng, ("colour", "shape", "both"))

    def attempt(scene: Scene) -> Told | None:
        thing = pick(rng, scene.things)
        colour, shape = (thing.colour, thing.shape) if there else pick(rng, pairs)
        noun = Noun(None if form == "shape" else colour, None if form == "colour" else shape)
        if (noun.count(scene) > 0) != there:
            return None
        sentences = [f"{what} {word} {article(str(noun))}" for word in ("with", "without")]
        return scene, sentences[not there], [sentences[there]]

    return attempt


def _shape(rng: Rng, pairs: Pairs, most: int) -> Attempt:
    """ "a red star", not "a red ring" where nothing is a ring."""
    frame = pick(rng, FRAMES)

    def attempt(scene: Scene) -> Told | None:
        thing, there = pick(rng, scene.things), {t.shape for t in scene.things}
        wrong = [pair for pair in pairs if pair[0] == thing.colour and pair[1] not in there]
        return _replaced(scene, thing, wrong, frame, rng)

    return attempt


def _colour(rng: Rng, pairs: Pairs, most: int) -> Attempt:
    """ "a red star", not "a blue star" where nothing is blue."""
    frame = pick(rng, FRAMES)

    def attempt(scene: Scene) -> Told | None:
        thing, there = pick(rng, scene.things), {t.colour for t in scene.things}
        wrong = [pair for pair in pairs if pair[1] == thing.shape and pair[0] not in there]
        return _replaced(scene, thing, wrong, frame, rng)

    return attempt


_KINDS: Mapping[str, Callable[[Rng, Pairs, int], Attempt]] = {
    "binding": _binding,
    "order": _order,
    "relation": _relation,
    "count": _count,
    "negation": _negation,
    "shape": _shape,
    "colour": _colour,
}


def _a(thing: Thing) -> str:
    return article(name(thing))


def _shuffled(values: Collection[int], rng: Rng) -> list[int]:
    return sorted(values, key=lambda _: rng.random())


def _couples(scene: Scene, rng: Rng) -> list[tuple[Thing, Thing]]:
    """Every two things, in random order, both ways round."""
    n = len(scene.things)
    return [(scene.things[at // n], scene.things[at % n]) for at in _shuffled(range(n * n), rng) if at // n != at % n]


def _single(scene: Scene, rng: Rng) -> list[tuple[Thing, Thing]]:
    """Those couples both of which are the only ones of their colour and shape."""
    single = {id(t) for t in scene.things if Noun(t.colour, t.shape).count(scene) == 1}
    return [(a, b) for a, b in _couples(scene, rng) if id(a) in single and id(b) in single]


def _names(noun: Noun, pair: tuple[str, str]) -> bool:
    return noun.colour in (None, pair[0]) and noun.shape in (None, pair[1])


def _dressed(thing: Thing, pairs: Pairs, rng: Rng) -> Thing:
    """The thing as it is where it is one of these, else as another of them in its place."""
    if (thing.colour, thing.shape) in pairs:
        return thing
    colour, shape = pick(rng, pairs)
    return replace(thing, colour=colour, shape=shape, rgb=paint(rng, colour))


def _replaced(scene: Scene, thing: Thing, wrong: Pairs, frame: str, rng: Rng) -> Told | None:
    """What is there, and up to three things that are not."""
    if not wrong:
        return None
    some = _shuffled(range(len(wrong)), rng)[: MOST - 1]
    return scene, frame.format(_a(thing)), [frame.format(article(" ".join(wrong[at]))) for at in some]
