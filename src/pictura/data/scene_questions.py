"""Questions about one scene with their answers, and statements about two scenes (NLVR2's form, Suhr et al. 2019).

Words alone give little away: within each kind of sentence yes and no, true and false come equally often, and what is
asked about but absent is drawn from the same combinations as what is there, and named by colour, by shape or by both as
often as it is. How much they tell all the same is the baseline by words in docs/vilt.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pictura.data.scene_words import NUMBERS, article, plural
from pictura.data.scene_world import COLOURS, NOVEL_SHAPES, SHAPES, Scene, Thing, paint, pick, relation

ANSWERS = ("yes", "no", *NUMBERS, *COLOURS, *SHAPES, *NOVEL_SHAPES)
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Noun:
    """A description of things by colour, shape, or both; None leaves it open."""

    colour: str | None
    shape: str | None

    def __str__(self) -> str:
        return " ".join(word for word in (self.colour, self.shape or "thing") if word)

    def fits(self, thing: Thing) -> bool:
        return self.colour in (None, thing.colour) and self.shape in (None, thing.shape)

    def count(self, scene: Scene) -> int:
        return sum(self.fits(thing) for thing in scene.things)


_FORMS: tuple[Callable[[str, str], Noun], ...] = (
    lambda colour, _: Noun(colour, None),
    lambda _, shape: Noun(None, shape),
    Noun,
)


def _present(rng: np.random.Generator, scene: Scene) -> Noun:
    thing = pick(rng, scene.things)
    return pick(rng, _FORMS)(thing.colour, thing.shape)


def _absent(rng: np.random.Generator, scene: Scene, pairs: Pairs) -> Noun:
    """Something that is not there, in each form as often as what is; half of the pairs share their colour or their
    shape with something there."""
    form = pick(rng, _FORMS)
    if form is Noun and rng.random() < 0.5:
        thing = pick(rng, scene.things)
        near = [p for p in pairs if (p[0] == thing.colour) != (p[1] == thing.shape) and not Noun(*p).count(scene)]
        if near:
            return Noun(*pick(rng, near))
    absent = [noun for pair in pairs if not (noun := form(*pair)).count(scene)]
    return pick(rng, absent or [Noun(*pair) for pair in pairs if not Noun(*pair).count(scene)])


def _ask_count(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> tuple[str, str]:
    """Evenly over the numbers that the scene has an example of, zero among them."""
    nouns = [_absent(rng, scene, pairs)]
    for thing in scene.things:
        nouns += [Noun(thing.colour, None), Noun(None, thing.shape), Noun(thing.colour, thing.shape)]
    by_count = {noun.count(scene): noun for noun in sorted(nouns, key=lambda _: rng.random())}
    number = pick(rng, sorted(by_count))
    return f"how many {plural(str(by_count[number]))} are there?", NUMBERS[number]


def _ask_exist(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> tuple[str, str]:
    if rng.random() < 0.5:
        return f"is there {article(str(_present(rng, scene)))}?", "yes"
    return f"is there {article(str(_absent(rng, scene, pairs)))}?", "no"


def _ask_colour(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> tuple[str, str]:
    single = [t for t in scene.things if Noun(None, t.shape).count(scene) == 1]
    if not single:
        return _ask_exist(scene, rng, pairs)
    thing = pick(rng, single)
    return f"what colour is the {thing.shape}?", thing.colour


def _ask_shape(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> tuple[str, str]:
    single = [t for t in scene.things if Noun(t.colour, None).count(scene) == 1]
    if not single:
        return _ask_exist(scene, rng, pairs)
    thing = pick(rng, single)
    return f"what shape is the {thing.colour} thing?", thing.shape


def _ask_relation(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> tuple[str, str]:
    single = [t for t in scene.things if Noun(t.colour, t.shape).count(scene) == 1]
    if len(single) < 2:
        return _ask_exist(scene, rng, pairs)
    a, b = sorted(single, key=lambda _: rng.random())[:2]
    where, answer = relation(a, b), "yes"
    if rng.random() < 0.5:
        where, answer = OPPOSITE[where], "no"  # the opposite, since "above" may be a little "left of" too
    return f"is the {a.colour} {a.shape} {where} the {b.colour} {b.shape}?", answer


_QUESTIONS = (_ask_count, _ask_exist, _ask_colour, _ask_shape, _ask_relation)


def question(scene: Scene, rng: np.random.Generator, pairs: Pairs) -> tuple[str, str]:
    """A question about `scene` and its answer, one of `ANSWERS`. `pairs` (colour, shape): what may be asked about."""
    return pick(rng, _QUESTIONS)(scene, rng, pairs)


def kind_of(words: str) -> str:
    """What a question asks for: count, exist, colour, shape or relation."""
    begins = {"how many": "count", "is there": "exist", "what colour": "colour", "what shape": "shape"}
    return next((kind for start, kind in begins.items() if words.startswith(start)), "relation")


def _total(noun: Noun, number: int) -> str:
    return f"the two pictures show {NUMBERS[number]} {noun if number == 1 else plural(str(noun))} in all"


# The forms of a statement: its words about (noun, number), and its truth where `left` and `right` things fit the noun.
_STATEMENTS: tuple[tuple[Callable[[Noun, int], str], Callable[[int, int, int], bool]], ...] = (
    (lambda noun, _: f"both pictures show {article(str(noun))}", lambda left, right, _: left > 0 and right > 0),
    (lambda noun, _: f"neither picture shows {article(str(noun))}", lambda left, right, _: left == right == 0),
    (lambda noun, _: f"only the left picture shows {article(str(noun))}", lambda left, right, _: left > 0 == right),
    (lambda noun, _: f"there are more {plural(str(noun))} on the right", lambda left, right, _: right > left),
    (_total, lambda left, right, number: left + right == number),
)


def statement(
    left: Scene, another: Callable[[], Scene], rng: np.random.Generator, pairs: Pairs
) -> tuple[str, Scene, bool]:
    """A sentence about `left` and a right scene, the right scene, and whether the sentence is true.

    Form and truth are drawn first; then right scenes (from `another`) and nouns until they agree with both.
    """
    while True:
        words, holds = pick(rng, _STATEMENTS)
        truth, open_word, number = rng.random() < 0.5, pick(rng, ("colour", "shape", "")), pick(rng, (1, 2))
        for _ in range(300):  # a few forms cannot be had from some scenes: then another form
            right = _echo(rng, left, another())
            named = pick(rng, (left, right, None))
            thing = pick(rng, named.things) if named else None
            colour, shape = (thing.colour, thing.shape) if thing else pick(rng, pairs)
            noun = Noun(None if open_word == "colour" else colour, None if open_word == "shape" else shape)
            if holds(noun.count(left), noun.count(right), number) == truth:
                return words(noun, number), right, truth


def _echo(rng: np.random.Generator, left: Scene, right: Scene) -> Scene:
    """Half of the time `right` repeats the look of something in `left`; by chance two scenes hardly share a thing."""
    if rng.random() < 0.5:
        return right
    seen, (first, *rest) = pick(rng, left.things), right.things
    first = replace(first, shape=seen.shape, colour=seen.colour, rgb=paint(rng, seen.colour))
    return replace(right, things=(first, *rest))
