"""The picture world of `scenes`: what exists in it, which of it training never sees, and where things stand.

A scene is a short list of things (shape, colour, size, texture, place) over a background, in shares of the picture's
side. It is a function of (seed, split, index) alone: every random number comes from Philox keyed by them, one stream
per purpose, so a scene can be told of without being drawn, and drawn again the same.
"""

import math
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal, TypeVar

import numpy as np

T = TypeVar("T")
Split = Literal["train", "fresh", "heldout", "shapes", "counts", "style", "everything"]

# Far apart in RGB, so that the jitter of `paint` never brings one nearer to another's name.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 34, 40),
    "orange": (250, 136, 20),
    "yellow": (252, 226, 40),
    "lime": (150, 225, 30),
    "green": (24, 140, 50),
    "teal": (16, 138, 140),
    "cyan": (50, 218, 240),
    "blue": (40, 96, 236),
    "navy": (18, 26, 112),
    "purple": (122, 40, 178),
    "magenta": (226, 30, 196),
    "pink": (255, 160, 190),
    "brown": (122, 68, 30),
    "white": (252, 252, 252),
    "gray": (118, 118, 118),
    "black": (16, 16, 18),
}
SHAPES = (
    "circle", "square", "triangle", "star", "ring", "cross",
    "heart", "diamond", "crescent", "arrow", "hourglass", "bolt",
)  # fmt: skip
NOVEL_SHAPES = ("hexagon", "drop", "house")  # only in the splits `shapes` and `everything`
SIZES = {"small": 0.14, "medium": 0.19, "large": 0.26}  # radius as a share of the picture's side
TEXTURES = ("plain", "plain", "plain", "striped", "dotted", "checked")  # repeated: drawn more often
BACKGROUNDS = ("plain", "shaded", "speckled", "striped")
STYLES = ("flat", "shaded", "outlined", "noisy")
CLUTTER = ("stroke", "crumb", "hook")  # nobody asks for these, and no caption tells of them
NOVEL_STYLE = "sketched"  # only in the splits `style` and `everything`
MANY = (5, 6)  # how many things the split `counts` shows
MOTIONS = (
    "moving left", "moving right", "moving up", "moving down", "growing", "shrinking", "spinning", "standing still",
)  # fmt: skip
_TOWARDS = {"moving left": (-1, 0), "moving right": (1, 0), "moving up": (0, -1), "moving down": (0, 1)}


@dataclass(frozen=True, slots=True)
class Thing:
    """One object. `x`, `y` (centre) and `radius` are shares of the picture's side, y down; `angle` in radians."""

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float
    radius: float
    angle: float
    rgb: tuple[float, float, float]  # 0 … 1, the named colour with its jitter


@dataclass(frozen=True, slots=True)
class Scene:
    """Things in drawing order (later ones lie on top), over a background, in one drawing style."""

    things: tuple[Thing, ...]
    background: str
    style: str
    clutter: tuple[Thing, ...] = ()  # below all things


def held_out(colour: str, shape: str) -> bool:
    """Whether training never shows this combination: one in five; every colour and shape keeps most of its partners."""
    if shape not in SHAPES:
        return False
    return (list(COLOURS).index(colour) + 2 * SHAPES.index(shape)) % 5 == 0


_ALL = [(colour, shape) for shape in SHAPES for colour in COLOURS]
SEEN = tuple(pair for pair in _ALL if not held_out(*pair))
HELD_OUT = tuple(pair for pair in _ALL if held_out(*pair))
NOVEL = tuple((colour, shape) for shape in NOVEL_SHAPES for colour in COLOURS)
_STREAMS: tuple[Split, ...] = ("train", "fresh", "heldout", "shapes", "counts", "style", "everything")


def combinations(split: Split) -> tuple[tuple[str, str], ...]:
    """The (colour, shape) pairs that the pictures of a split may show."""
    special = {"heldout": HELD_OUT, "shapes": NOVEL, "everything": SEEN + HELD_OUT + NOVEL}
    return special.get(split, SEEN)


def generator(seed: int, split: Split, index: int, purpose: int) -> np.random.Generator:
    """The keyed randomness of one scene: Philox under the key (seed, split), far from every other (index, purpose)."""
    return np.random.Generator(np.random.Philox(counter=[0, purpose, index, 0], key=[seed, _STREAMS.index(split)]))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, evenly (a third of the cost of `rng.choice`)."""
    return options[int(rng.random() * len(options))]


def weighted(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """One of the names, as often as its weight says."""
    totals = list(accumulate(weights.values()))
    return list(weights)[bisect(totals, rng.random() * totals[-1])]


def lay_out(
    rng: np.random.Generator,
    split: Split,
    objects: tuple[int, int],
    zoom: tuple[float, float] = (1, 1),
    overlap: float = 0.3,
    clutter: int = 0,
) -> Scene:
    """A new scene of `objects` (least, most) things; the split `counts` shows `MANY` instead. See `ScenesConfig`."""
    pairs = combinations(split)
    times = zoom[0] if zoom[0] == zoom[1] else zoom[0] * (zoom[1] / zoom[0]) ** rng.random()
    least, most = MANY if split == "counts" else objects
    wanted = least + int(rng.random() * (most - least + 1))
    things: list[Thing] = []
    while len(things) < wanted:
        colour, shape = pick(rng, pairs)
        if things and rng.random() < 0.25:  # twins, so that "two red circles" is something to say
            colour, shape = things[-1].colour, things[-1].shape
        place = _place(rng, things, times, overlap)
        if place is None:  # the first ones left no room
            things.clear()
            continue
        x, y, radius, size = place
        texture = "plain" if size == "small" else pick(rng, TEXTURES)  # a pattern would eat a small shape
        things.append(Thing(shape, colour, size, texture, x, y, radius, 0.5 * rng.random() - 0.25, paint(rng, colour)))
    styles = (NOVEL_STYLE,) if split == "style" else (*STYLES, NOVEL_STYLE) if split == "everything" else STYLES
    background, style = pick(rng, BACKGROUNDS), pick(rng, styles)
    return Scene(tuple(things), background, style, tuple(_litter(rng) for _ in range(clutter)))


def _litter(rng: np.random.Generator) -> Thing:
    """Something small that is none of the world's things, anywhere."""
    colour, radius = pick(rng, tuple(COLOURS)), 0.03 + 0.07 * rng.random()
    x, y, angle = rng.random(), rng.random(), 2 * math.pi * rng.random()
    return Thing(pick(rng, CLUTTER), colour, "small", "plain", x, y, radius, angle, paint(rng, colour))


def _place(
    rng: np.random.Generator, others: Sequence[Thing], times: float, overlap: float
) -> tuple[float, float, float, str] | None:
    """A free place and size (x, y, radius and the size's name), or None where it is too crowded.

    Radii are those of `SIZES`, `times` as large; neighbours overlap by a share `overlap` of the smaller one's at most.
    """
    names = list(SIZES)
    for attempt in range(60):
        size = pick(rng, names[: 3 if attempt < 20 else 1])  # crowded: only a small thing may still fit
        radius = times * SIZES[size] * (0.93 + 0.14 * rng.random())
        x, y = (radius + (1 - 2 * radius) * rng.random() for _ in "xy")
        if all(math.hypot(x - o.x, y - o.y) > radius + o.radius - overlap * min(radius, o.radius) for o in others):
            return x, y, radius, size
    return None


def paint(rng: np.random.Generator, colour: str) -> tuple[float, float, float]:
    """The named colour, a little lighter or darker and a little off in hue."""
    light = 0.94 + 0.12 * rng.random()
    red, green, blue = (min(max(light * c / 255 + 0.05 * rng.random() - 0.025, 0.0), 1.0) for c in COLOURS[colour])
    return red, green, blue


def relation(a: Thing, b: Thing) -> str:
    """Where `a` is seen from `b`, along the axis on which they are further apart."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def move(rng: np.random.Generator, scene: Scene, frames: int) -> tuple[list[Scene], str]:
    """A short clip: the topmost thing of `scene` acts, the others stand. `frames` scenes and one of `MOTIONS`."""
    motion = pick(rng, MOTIONS)
    *others, actor = scene.things
    if motion == "spinning" and actor.shape in ("circle", "ring"):
        actor = replace(actor, texture="striped")  # a plain round thing spins unseen
    towards = _TOWARDS.get(motion, (0, 0))
    grows = {"growing": 1, "shrinking": -1}.get(motion, 0)
    reach = actor.radius * (1.4 if grows else 1)
    way = min(0.5, 1 - 2 * reach)  # so that it stays in the picture
    x, y = (
        min(max(at, room), 1 - room)
        for at, room in ((actor.x, reach + abs(towards[0]) * way / 2), (actor.y, reach + abs(towards[1]) * way / 2))
    )
    acts = []
    for frame in range(frames):
        t = frame / max(frames - 1, 1) - 0.5
        radius = actor.radius * (1 + 0.8 * grows * t)
        angle = actor.angle + (math.pi * (t + 0.5) if motion == "spinning" else 0)
        act = replace(actor, x=x + way * t * towards[0], y=y + way * t * towards[1], radius=radius, angle=angle)
        acts.append(replace(scene, things=(*others, act)))
    return acts, motion
