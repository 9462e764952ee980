"""The embedded default source: a procedural picture world. Everything runs on it with no download, and every claim can
be checked against ground truth.

`scene_world.py` says what exists and where, `scene_draw.py` draws it, `scene_words.py` tells of it,
`scene_questions.py` asks about it and `scene_choices.py` gives sentences to choose among; this file serves it as a
source.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from pictura.data import scene_choices, scene_draw, scene_questions, scene_words
from pictura.data.scene_choices import ChoiceKind, Choices
from pictura.data.scene_world import (
    COLOURS,
    MANY,
    MOTIONS,
    NOVEL_SHAPES,
    SHAPES,
    Scene,
    Split,
    Thing,
    combinations,
    generator,
    lay_out,
    move,
)
from pictura.data.source import Example, Source, SourceConfig

Part = Literal["image", "captions", "label", "boxes", "masks", "question", "questions", "statement", "clip", "choices"]
_MENTIONS = {"list": 4.0, "one": 2.0, "colour": 1.0, "shape": 1.0, "relation": 1.0, "count": 0.5, "background": 0.5}
# One stream of random numbers for each: what draws a picture must not know what decides about its words.
_LAYOUT, _DRAWING, _WORDS, _QUESTIONS, _PARTNER, _MOTION, _RIGHT, _CHOICES = range(8)
_LABELLED = ("label", "boxes", "statement", "clip")  # parts with labels: they say what `class_names` are


@dataclass(frozen=True, kw_only=True)
class ScenesConfig(SourceConfig):
    """`count` scenes of a `split`; each example holds what `gives` names, and only that is computed.

    gives: `image` uint8 [y x c]; `captions`; `label` of scenes of one thing; `boxes` float32 [k 4] (x0 y0 x1 y1 px)
        with `labels` int64 [k] and `crowd` bool [k], all false; `masks` bool [k y x]; `question` with `answers`,
        {answer: 1}, and `question_kind` (count, exist, colour, shape or relation), or `questions`, pairs of (question,
        answer); `statement` about two `images` uint8 [2 y x c] with its truth as `label`; `clip` uint8 [t y x c] with
        its motion as `label`; `choices`, sentences of which the one at `answer` alone is true, and their `choice_kind`.
        Boxes and masks are of the visible part; captions of a clip say the motion ("a red star moving left").
    split: `train`; `fresh` (new scenes of what training has seen); `heldout` (colour-shape combinations that training
        never shows); `shapes` (novel shapes); `counts` (more things); `style` (a new drawing style); `everything`.
    zoom: how many times larger than usual things are, drawn for each scene; small below 1, above 2 cut off by the edge.
        overlap: of neighbours, as a share of the smaller one's radius, at most. clutter: how many strokes and crumbs
        lie about, below the things.
    mentions: weights of the kinds of captions: list one colour shape relation count background.
    choice_kinds: taken in turn: binding (colours of two things exchanged), order (the two exchanged), relation (the
        opposite), count, negation, and with a word replaced shape and colour. A scene of which an example's kind cannot
        be asked is laid out anew.
    """

    kind: ClassVar[str] = "scenes"
    count: int = 1_000_000
    image_size: int = 64
    objects: tuple[int, int] = (1, 4)
    split: Split = "train"
    gives: tuple[Part, ...] = ("image", "captions")
    zoom: tuple[float, float] = (1.0, 1.0)
    overlap: float = 0.3
    clutter: int = 0
    captions: int = 1
    questions: int = 1
    frames: int = 8
    mentions: dict[str, float] = field(default_factory=lambda: dict(_MENTIONS))
    label_of: Literal["combination", "shape", "colour"] = "combination"
    choice_kinds: tuple[ChoiceKind, ...] = get_args(ChoiceKind)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.objects[0] <= self.objects[1] <= 8:
            raise ValueError(f"objects: {list(self.objects)} is not a range within 1 … 8; try [1, 4]")
        if "label" in self.gives and self.objects != (1, 1):
            raise ValueError(
                f"gives: a label needs one thing per scene, not {list(self.objects)}; set objects to [1, 1]"
            )
        if "choices" in self.gives:
            self._check_choices()
        if len(labelled := [part for part in self.gives if part in _LABELLED]) > 1:
            raise ValueError(f"gives: {' and '.join(labelled)} each bring labels of their own; ask for one of them")
        for name in ("count", "captions", "questions", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is too few; at least 1")
        if not 0.25 <= self.zoom[0] <= self.zoom[1] <= 4:
            raise ValueError(f"zoom: {list(self.zoom)} is not a range within 0.25 … 4; try [0.5, 1]")
        if not 0 <= self.overlap <= 1:
            raise ValueError(f"overlap: {self.overlap} is no share, from 0 to 1")
        if not 0 <= self.clutter <= 64:
            raise ValueError(f"clutter: {self.clutter} is not from 0 to 64")
        if self.image_size < 8:
            raise ValueError(f"image_size: {self.image_size} px is too small to see anything; try 64")
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed} is negative; try 0")
        if unknown := set(self.mentions) - set(scene_words.KINDS):
            there_are = ", ".join(scene_words.KINDS)
            raise ValueError(f"mentions: no such kind of caption {sorted(unknown)}; there are {there_are}")
        if min(self.mentions.values(), default=0) < 0 or not sum(self.mentions.values()) > 0:
            raise ValueError("mentions: weights must not be negative and not all zero")

    def _check_choices(self) -> None:
        if "clip" in self.gives:
            raise ValueError("gives: choices are of a picture that stands still; leave out clip")
        if not self.choice_kinds:
            raise ValueError(f"choice_kinds: none is chosen; there are {', '.join(get_args(ChoiceKind))}")
        if self.most < 2 and (two := [kind for kind in self.choice_kinds if kind in scene_choices.NEEDS_TWO]):
            raise ValueError(
                f"choice_kinds: {', '.join(two)} need scenes of two things; choose other kinds, or objects [1, 4]"
            )

    @property
    def most(self) -> int:
        """Things in one scene, at most."""
        return MANY[1] if self.split == "counts" else self.objects[1]

    def build(self) -> "Scenes":
        return Scenes(self)


_KEYS: dict[str, tuple[str, ...]] = {
    "question": ("question", "answers", "question_kind"),
    "boxes": ("boxes", "labels", "crowd"),
    "statement": ("images", "statement", "label"),
    "clip": ("clip", "label"),
    "choices": ("choices", "answer", "choice_kind"),
}


class Scenes(Source):
    """Random access to scenes; the example at an index depends on (seed, split, index) and the configuration alone."""

    def __init__(self, config: ScenesConfig) -> None:
        self.config = config
        self.provides = frozenset(key for part in config.gives for key in _KEYS.get(part, (part,)))
        self.class_names = self._class_names()
        self._label = {name: number for number, name in enumerate(self.class_names)}

    def _class_names(self) -> tuple[str, ...]:
        config = self.config
        if "statement" in config.gives:
            return ("false", "true")
        if "clip" in config.gives:
            return MOTIONS
        shapes = SHAPES + NOVEL_SHAPES if config.split in ("shapes", "everything") else SHAPES
        pairs = tuple(f"{colour} {shape}" for shape in shapes for colour in COLOURS)
        return {"combination": pairs, "shape": shapes, "colour": tuple(COLOURS)}[config.label_of]

    def __len__(self) -> int:
        return self.config.count

    def _generator(self, index: int, purpose: int) -> np.random.Generator:
        return generator(self.config.seed, self.config.split, index, purpose)

    def scene(self, index: int) -> Scene:
        """The ground truth behind example `index`."""
        if "choices" in self.config.gives:
            return self._chosen(index)[0]
        return self._lay_out(self._generator(index, _LAYOUT))

    def choice_kind(self, index: int) -> ChoiceKind:
        """What the choices of example `index` differ in."""
        return self.config.choice_kinds[index % len(self.config.choice_kinds)]

    def _chosen(self, index: int) -> tuple[Scene, Choices]:
        """The first scene at `index` of which there is something to choose."""
        c, layout, rng = self.config, self._generator(index, _LAYOUT), self._generator(index, _CHOICES)
        pairs = combinations(c.split)
        return scene_choices.choose(self.choice_kind(index), lambda: self._lay_out(layout), rng, pairs, c.most)

    def _lay_out(self, rng: np.random.Generator) -> Scene:
        c = self.config
        return lay_out(rng, c.split, c.objects, c.zoom, c.overlap, c.clutter)

    def label(self, thing: Thing) -> int:
        """Position of a thing's colour, shape or combination in `class_names`."""
        word = {"shape": thing.shape, "colour": thing.colour}.get(self.config.label_of, f"{thing.colour} {thing.shape}")
        return self._label[word]

    def captions(self, index: int) -> list[str]:
        """The captions of one scene, without drawing it; where none are given, the question or the statement."""
        scene = self.scene(index)
        if "captions" not in self.config.gives and "question" in self.config.gives:
            return [self._question(index, scene)["question"]]
        if "captions" not in self.config.gives and "statement" in self.config.gives:
            return [self._told(index, scene)[0]]
        return self._captions(index, scene)

    def answers(self, least: int) -> tuple[str, ...]:
        """All that the world knows: what is seldom asked about is right all the same."""
        return scene_questions.ANSWERS if self.provides & {"question", "questions"} else ()

    def _captions(self, index: int, scene: Scene) -> list[str]:
        if "clip" in self.config.gives:  # what holds of one frame need not hold of the next
            frames, motion = self._moved(index, scene)
            return [f"{scene_words.article(scene_words.name(frames[0].things[-1]))} {motion}"]
        rng = self._generator(index, _WORDS)
        return [scene_words.caption(scene, rng, self.config.mentions) for _ in range(self.config.captions)]

    def _draw(self, index: int, scene: Scene, purpose: int = _DRAWING) -> NDArray[np.uint8]:
        return scene_draw.draw(scene, self.config.image_size, self._generator(index, purpose))

    def __getitem__(self, index: int) -> Example:
        config, gives = self.config, self.config.gives
        if not 0 <= index < config.count:
            raise IndexError(f"scene {index} of {config.count}")
        example: dict[str, Any] = {"key": f"{config.split}-{index}"}
        if "choices" in gives:
            scene, (sentences, answer) = self._chosen(index)
            example |= {"choices": sentences, "answer": answer, "choice_kind": self.choice_kind(index)}
        else:
            scene = self.scene(index)
        if "image" in gives:
            example["image"] = self._draw(index, scene)
        if "captions" in gives:
            example["captions"] = self._captions(index, scene)
        if "label" in gives:
            example["label"] = self.label(scene.things[0])
        if "boxes" in gives or "masks" in gives:
            example |= self._regions(scene)
        if "question" in gives:
            example |= self._question(index, scene)
        if "questions" in gives:
            rng, pairs = self._generator(index, _QUESTIONS), combinations(config.split)
            example["questions"] = [scene_questions.question(scene, rng, pairs) for _ in range(config.questions)]
        if "statement" in gives:
            example |= self._statement(index, scene)
        if "clip" in gives:
            example |= self._clip(index, scene)
        return cast(Example, example)

    def _regions(self, scene: Scene) -> dict[str, Any]:
        masks = scene_draw.masks(scene, self.config.image_size)
        seen = masks.any((1, 2))  # in a crowd one may be hidden wholly
        regions: dict[str, Any] = {"masks": masks[seen]} if "masks" in self.config.gives else {}
        if "boxes" in self.config.gives:
            regions["boxes"] = scene_draw.boxes(masks[seen])
            regions["labels"] = np.array([self.label(thing) for thing in scene.things], np.int64)[seen]
            regions["crowd"] = np.zeros(seen.sum(), bool)
        return regions

    def _question(self, index: int, scene: Scene) -> dict[str, Any]:
        rng, pairs = self._generator(index, _QUESTIONS), combinations(self.config.split)
        words, answer = scene_questions.question(scene, rng, pairs)
        return {"question": words, "answers": {answer: 1.0}, "question_kind": scene_questions.kind_of(words)}

    def _told(self, index: int, left: Scene) -> tuple[str, Scene, bool]:
        rng = self._generator(index, _PARTNER)
        return scene_questions.statement(left, lambda: self._lay_out(rng), rng, combinations(self.config.split))

    def _statement(self, index: int, left: Scene) -> dict[str, Any]:
        text, right, truth = self._told(index, left)
        images = np.stack([self._draw(index, left), self._draw(index, right, _RIGHT)])
        return {"images": images, "statement": text, "label": int(truth)}

    def _moved(self, index: int, scene: Scene) -> tuple[list[Scene], str]:
        return move(self._generator(index, _MOTION), scene, self.config.frames)

    def _clip(self, index: int, scene: Scene) -> dict[str, Any]:
        frames, motion = self._moved(index, scene)
        return {"clip": np.stack([self._draw(index, frame) for frame in frames]), "label": self._label[motion]}
