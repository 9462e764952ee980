"""Says true things about scenes: captions in varied wording.

Colours, shapes and textures keep their one word, so that a caption can be checked against the scene; the frame varies.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pictura.data.scene_world import Scene, Thing, pick, relation, weighted

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
FRAMES = (
    "{}", "{}", "{}", "a picture of {}", "an image of {}", "a drawing of {}", "a scene with {}",
    "we see {}", "this shows {}", "{} in a picture",
)  # fmt: skip
_COLOUR_ONLY = ("something {}", "a {} thing", "a {} object")
RELATIONS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


def article(phrase: str) -> str:
    """ "orange star" → "an orange star"."""
    return f"{'an' if phrase.startswith(('a', 'e', 'i', 'o', 'u', 'hour')) else 'a'} {phrase}"


def plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")


def join(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def name(thing: Thing, rng: np.random.Generator | None = None, detail: float = 0.35) -> str:
    """ "small striped red circle": colour and shape always, size and texture each with the chance `detail`."""
    words = [thing.colour, thing.shape]
    if rng is not None:
        if thing.texture != "plain" and rng.random() < detail:
            words.insert(0, thing.texture)
        if thing.size != "medium" and rng.random() < detail:
            words.insert(0, thing.size)
    return " ".join(words)


def _shuffled(things: Sequence[Thing], rng: np.random.Generator) -> list[Thing]:
    return sorted(things, key=lambda _: rng.random())


def _list(scene: Scene, rng: np.random.Generator) -> str:
    """Everything there: "a red circle, a small blue star and two green rings" (equal things are counted together)."""
    twins: dict[tuple[str, str], list[Thing]] = {}
    for thing in _shuffled(scene.things, rng):
        twins.setdefault((thing.colour, thing.shape), []).append(thing)
    parts = [
        article(name(same[0], rng)) if len(same) == 1 else f"{NUMBERS[len(same)]} {colour} {plural(shape)}"
        for (colour, shape), same in twins.items()
    ]
    return join(parts)


def _one(scene: Scene, rng: np.random.Generator) -> str:
    return article(name(pick(rng, scene.things), rng, detail=0.7))


def _colour(scene: Scene, rng: np.random.Generator) -> str:
    """Only colours: "something blue and a red thing"; up to two of them."""
    colours = list(dict.fromkeys(thing.colour for thing in _shuffled(scene.things, rng)))[:2]
    return join([article(p[2:]) if p[:2] == "a " else p for p in (pick(rng, _COLOUR_ONLY).format(c) for c in colours)])


def _shape(scene: Scene, rng: np.random.Generator) -> str:
    """Only shapes: "a star and a ring"; up to two of them."""
    shapes = list(dict.fromkeys(thing.shape for thing in _shuffled(scene.things, rng)))[:2]
    return join([article(s) for s in shapes])


def _relation(scene: Scene, rng: np.random.Generator) -> str:
    if len(scene.things) < 2:
        return _list(scene, rng)
    a, b = _shuffled(scene.things, rng)[:2]
    return f"{article(name(a, rng))} {pick(rng, RELATIONS[relation(a, b)])} {article(name(b, rng))}"


def _count(scene: Scene, rng: np.random.Generator) -> str:
    """How many of one shape, of one colour, or in all: "two stars", "three red things", "four things"."""
    thing = pick(rng, scene.things)
    noun, same = pick(rng, (
        (thing.shape, [t for t in scene.things if t.shape == thing.shape]),
        (f"{thing.colour} thing", [t for t in scene.things if t.colour == thing.colour]),
        ("thing", scene.things),
    ))  # fmt: skip
    return f"{NUMBERS[len(same)]} {noun if len(same) == 1 else plural(noun)}"


def _background(scene: Scene, rng: np.random.Generator) -> str:
    return f"{_list(scene, rng)} on a {scene.background} background"


KINDS = {
    "list": _list,
    "one": _one,
    "colour": _colour,
    "shape": _shape,
    "relation": _relation,
    "count": _count,
    "background": _background,
}


def caption(scene: Scene, rng: np.random.Generator, mentions: Mapping[str, float]) -> str:
    """One true sentence; `mentions` weighs the kinds of it (keys of `KINDS`)."""
    return pick(rng, FRAMES).format(KINDS[weighted(rng, mentions)](scene, rng))
