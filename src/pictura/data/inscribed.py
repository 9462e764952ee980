"""`inscribed`: pictures with the name of another class stuck on them. Does a model read, or look?

The typographic attack of Goh et al., Multimodal Neurons in Artificial Neural Networks, Distill 2021, section
"Typographic attacks", whose labels are photographed; these are drawn.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pictura.data.decode import decode
from pictura.data.randomness import random_generator
from pictura.data.source import BadSample, Example, Source, SourceConfig, shown
from pictura.data.wrapper import Changed

SIZE = 96  # pixels that letters are drawn at, before they are fitted to a picture
LONGEST = 60  # characters of a name that are written
ROOM = 0.94, 0.4  # of the middle square's width and height that a label may take


@dataclass(frozen=True, kw_only=True)
class InscribedConfig(SourceConfig):
    """The pictures of `of`, which has labels and class names, with another class's name on each.

    Which other class is written, and where, is a function of (seed, example). blank: the same labels stuck on without
    their words, which cover as much and say nothing.
    """

    kind: ClassVar[str] = "inscribed"

    of: SourceConfig
    seed: int = 0
    blank: bool = False

    def build(self) -> "Inscribed":
        """Open the source. Raises ValueError when it has no pictures, no labels or not two names to choose from."""
        return Inscribed(self.of.build(), self.seed, blank=self.blank)


class Inscribed(Changed):
    """The source's examples, `image` with a label stuck on, and `written`: int, the class whose name is on it.

    `names`, one for each class, are written in place of the source's own. The font knows Latin letters only.
    """

    def __init__(self, source: Source, seed: int = 0, names: Sequence[str] = (), blank: bool = False) -> None:
        if missing := {"image", "label"} - source.provides:
            raise ValueError(f"inscribed: the data has no {' and no '.join(sorted(missing))}")
        super().__init__(source, "written")
        self.seed, self.blank, self.words = seed, blank, [written(name) for name in names or source.class_names]
        if len({*self.words} - {""}) < 2:
            raise ValueError("inscribed: the data needs `class_names`, at least two different ones, to write another")
        number = {word: i for i, word in enumerate(dict.fromkeys(self.words))}
        self._word = np.array([number[word] if word else -1 for word in self.words])

    def __getitem__(self, index: int) -> Example:
        example = cast(dict[str, Any], self.source[index])
        key, label = example["key"], example["label"]
        if not 0 <= label < len(self.words):
            raise BadSample(key, f"label {label}, but there are {len(self.words)} class names")
        rng = random_generator(self.seed, 0, index, "inscribed")
        others = np.flatnonzero((self._word != self._word[label]) & (self._word >= 0))
        other = int(others[rng.integers(len(others))])
        image = inscribe(decode(example["image"], key=key), self.words[other], rng, self.blank)
        return cast(Example, example | {"image": np.asarray(image), "written": other})


def written(name: str) -> str:
    """A class name as people write it, on one line."""
    return shown(" ".join(name.replace("_", " ").split()))[:LONGEST]


def inscribe(image: Image.Image, words: str, rng: np.random.Generator, blank: bool = False) -> Image.Image:
    """A copy of the picture with a white label, the words in black on it as large as fit, or nothing where it is blank.

    It lies within the middle square, which is what models see that crop.
    """
    side = min(image.size)
    plates = [plate(words, lines) for lines in (1, 2, 3)]
    scales = [min(ROOM[0] * side / one.width, ROOM[1] * side / one.height) for one in plates]
    best = int(np.argmax(scales))
    size = [max(1, int(length * scales[best])) for length in plates[best].size]
    fitted = plates[best].resize(size, Image.Resampling.LANCZOS)
    free = [int(rng.integers(side - length + 1)) for length in size]
    left, top = ((whole - side) // 2 + moved for whole, moved in zip(image.size, free, strict=True))
    out = image.copy()
    out.paste("white" if blank else fitted.convert("RGB"), (left, top, left + size[0], top + size[1]))
    return out


@lru_cache(maxsize=256)
def plate(words: str, lines: int) -> Image.Image:
    """The words in about so many lines, black on white with a margin, grey-scale."""
    text = textwrap.fill(words, max(1, -(-len(words) // lines) + 3 * (lines > 1)), break_long_words=False)
    font, margin = ImageFont.load_default(SIZE), SIZE // 6
    measure = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = measure.textbbox((0, 0), text, font, align="center", stroke_width=2)
    size = max(1, round(right - left)) + 2 * margin, max(1, round(bottom - top)) + 2 * margin
    out = Image.new("L", size, "white")
    draw = ImageDraw.Draw(out)
    draw.text((margin - left, margin - top), text, "black", font, align="center", stroke_width=2)
    return out
