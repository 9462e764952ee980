"""Which of these sentences is true of the scene? One true sentence, among false ones that differ in what is asked.

What `binding`, `order` and `relation` exchange leaves the bag of words (nearly) as it is, so that reading which words
there are is not enough (Yuksekgonul et al. 2023, arXiv:2210.01936; Hsieh et al. 2023, arXiv:2306.14610); `shape` and
`colour` replace a word by one that nothing in the scene deserves, and are the easy controls.

Words alone give nothing away: what a false sentence names is of the combinations that the split shows, and numbers and
"without" are drawn before the scene, evenly.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from pictura.data.scene_questions import OPPOSITE, Noun, Pairs
from pictura.data.scene_words import FRAMES, NUMBERS, RELATIONS, article, plural
from pictura.data.scene_world import Scene, Thing, paint, pick, relation

ChoiceKind = Literal["binding", "order", "relation", "count", "negation", "shape", "colour"]
MOST = 4  # choices
TRIES = 5_000  # scenes laid out for one example; the rarest content is in one of a hundred
NEEDS_TWO = frozenset({"binding", "order", "relation", "count"})  # a scene of one thing has none of these

Rng = np.random.Generator
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
                    true, false = (" and ".join(map(_a, two)) for two in ((_pair(a), _pair(b)), swapped))
                    return scene, frame.format(true), [frame.format(false)]
        return None

    return attempt


def _relation(rng: Rng, pairs: Pairs, most: int, *, turned: bool = False) -> Attempt:
    """ "a red star left of a blue ring", not "a red star right of a blue ring", or, `turned`, not "a blue ring left of
    a red star"; of things that are there once each."""
    frame, spelling = pick(rng, FRAMES), int(rng.random() * 2)

    def attempt(scene: Scene) -> Told | None:
        def told(a: Thing, way: str, b: Thing) -> str:
            return frame.format(f"{_a(_pair(a))} {RELATIONS[way][spelling]} {_a(_pair(b))}")

        for a, b in _single(scene, rng):
            where = relation(a, b)  # the opposite is false, while "above" may be a little "left of" too
            return scene, told(a, where, b), [told(b, where, a) if turned else told(a, OPPOSITE[where], b)]
        return None

    return attempt


def _count(rng: Rng, pairs: Pairs, most: int) -> Attempt:
    """ "three stars" or "two red things", not "one star"; every number up to `most` is true as often."""
    frame, at, number = pick(rng, FRAMES), pick(rng, (1, 0)), 1 + int(rng.random() * most)  # by shape or by colour
    others = _shuffled([n for n in range(1, most + 1) if n != number], rng)[: MOST - 1]
    word = pick(rng, pairs)[at]
    noun = Noun(None, word) if at else Noun(word, None)
    fitting = [pair for pair in pairs if pair[at] == word]
    other = [pair for pair in pairs if pair[at] != word]

    def attempt(scene: Scene) -> Told | None:
        if len(scene.things) < number:
            return None
        wanted = set(_shuffled(range(len(scene.things)), rng)[:number])
        things = [_dressed(t, fitting if place in wanted else other, rng) for place, t in enumerate(scene.things)]
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
        colour, shape = _pair(thing) if there else pick(rng, pairs)
        noun = Noun(None if form == "shape" else colour, None if form == "colour" else shape)
        if (noun.count(scene) > 0) != there:
            return None
        sentences = [f"{what} {word} {article(str(noun))}" for word in ("with", "without")]
        return scene, sentences[not there], [sentences[there]]

    return attempt


def _replaced(rng: Rng, pairs: Pairs, most: int, *, at: int) -> Attempt:
    """ "a red star", not "a blue star" where nothing is blue (`at` 0), or "a red ring" where nothing is a ring (1)."""
    frame = pick(rng, FRAMES)

    def attempt(scene: Scene) -> Told | None:
        thing, there = _pair(pick(rng, scene.things)), {_pair(t)[at] for t in scene.things}
        wrong = [pair for pair in pairs if pair[1 - at] == thing[1 - at] and pair[at] not in there]
        some = [wrong[place] for place in _shuffled(range(len(wrong)), rng)[: MOST - 1]]
        true, *false = (frame.format(_a(pair)) for pair in (thing, *some))
        return (scene, true, false) if false else None

    return attempt


_KINDS: Mapping[str, Callable[[Rng, Pairs, int], Attempt]] = {
    "binding": _binding,
    "order": partial(_relation, turned=True),
    "relation": _relation,
    "count": _count,
    "negation": _negation,
    "shape": partial(_replaced, at=1),
    "colour": partial(_replaced, at=0),
}


def _pair(thing: Thing) -> tuple[str, str]:
    return thing.colour, thing.shape


def _a(pair: tuple[str, str]) -> str:
    return article(" ".join(pair))


def _shuffled(values: Collection[int], rng: Rng) -> list[int]:
    return sorted(values, key=lambda _: rng.random())


def _couples(scene: Scene, rng: Rng) -> list[tuple[Thing, Thing]]:
    """Every two things, in random order, both ways round."""
    n = len(scene.things)
    return [(scene.things[at // n], scene.things[at % n]) for at in _shuffled(range(n * n), rng) if at // n != at % n]


def _single(scene: Scene, rng: Rng) -> list[tuple[Thing, Thing]]:
    """Those couples both of which are the only ones of their colour and shape."""
    single = {id(t) for t in scene.things if Noun(*_pair(t)).count(scene) == 1}
    return [(a, b) for a, b in _couples(scene, rng) if id(a) in single and id(b) in single]


def _dressed(thing: Thing, pairs: Pairs, rng: Rng) -> Thing:
    """The thing as it is where it is one of these, else as another of them in its place."""
    if _pair(thing) in pairs:
        return thing
    colour, shape = pick(rng, pairs)
    return replace(thing, colour=colour, shape=shape, rgb=paint(rng, colour))
