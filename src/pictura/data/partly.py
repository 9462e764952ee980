"""`partly_labelled`: of the boxes of a source those of some classes; the others stand there, and nobody says so.

What open-vocabulary detection is measured by (Zareian et al. 2021; ViLD, Gu et al. 2022, section 4.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt

from pictura.data.randomness import random_generator
from pictura.data.source import BadSample, Example, Source, SourceConfig, did_you_mean
from pictura.data.wrapper import Wrapper

ROWS = ("boxes", "crowd", "masks", "areas")


@dataclass(frozen=True, kw_only=True)
class PartlyLabelledConfig(SourceConfig):
    """classes: those whose boxes are told, by name, in the order of their new labels; frequencies: in their place, all
    that LVIS calls so; few: so many boxes, and no more, of classes beside them, from pictures that come `repeat` times
    as often.

    Which boxes are the few is drawn by `seed`; the boxes of 2 are among those of 5. A crowd is told as a box is, where
    it is one of `classes`; it is never among the few.
    """

    kind: ClassVar[str] = "partly_labelled"

    of: SourceConfig
    classes: tuple[str, ...] = ()
    frequencies: tuple[Literal["rare", "common", "frequent"], ...] = ()
    few: dict[str, int] = field(default_factory=dict)
    repeat: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.classes and self.frequencies:
            raise ValueError("classes, frequencies: both given; leave one of them out")
        if not (self.classes or self.frequencies or self.few):
            raise ValueError("classes: none given, so there would be nothing to learn")
        if self.repeat < 1 or any(count < 1 for count in self.few.values()):
            raise ValueError("repeat, few: below 1; leave them out, and no box of that class is told")

    def build(self) -> "PartlyLabelled":
        """Open the source, and look for the few."""
        return PartlyLabelled(self, self.of.build())


class PartlyLabelled(Wrapper):
    """See `PartlyLabelledConfig`. Of a class of the few a picture is `not_exhaustive` where it shows untold ones."""

    def __init__(self, config: PartlyLabelledConfig, source: Source) -> None:
        if "boxes" not in source.provides:
            raise ValueError("of: this data has no boxes")
        self.source, self.provides, self.bad = source, source.provides, source.bad
        classes = _of(config.frequencies, source) if config.frequencies else config.classes
        self.class_names = (*classes, *config.few)
        for name in self.class_names:
            if self.class_names.count(name) > 1:
                raise ValueError(f"classes, few: {name!r} is there twice")
            if name not in source.class_names:
                raise ValueError(f"classes: the data has no {name!r}{did_you_mean(name, source.class_names)}")
        place = {name: label for label, name in enumerate(self.class_names)}
        self.label = np.array([place.get(name, -1) for name in source.class_names], np.int64)
        self.all = len(classes)  # of these classes every box is told
        self.few = self._few(config)  # {example: rows that are told beside them}
        again = np.repeat(np.array(sorted(self.few), np.int64), config.repeat - 1)
        self.order = np.concatenate([np.arange(len(source)), again])

    def _few(self, config: PartlyLabelledConfig) -> dict[int, list[int]]:
        """Examples in an order of chance, until there are enough boxes of each class."""
        wanted, found = dict(config.few), dict[int, list[int]]()
        order = random_generator(config.seed, 0, 0, "few").permutation(len(self.source)).tolist() if wanted else []
        for index in order:
            if not wanted:
                break
            try:
                example: Any = self.source[index] if self.objects is None else cast(Any, self.source).objects(index)
            except BadSample:
                continue
            for row, label in enumerate(example["labels"]):
                name = self.source.class_names[label]
                if wanted.get(name) and not example["crowd"][row]:
                    found.setdefault(index, []).append(row)
                    wanted[name] -= 1
                    wanted = {name: count for name, count in wanted.items() if count}
        if wanted:
            raise ValueError(f"few: the data has too few boxes of {', '.join(wanted)}")
        return found

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Example:
        place = self.place(index)
        return cast(Example, self.told(place, cast(dict[str, Any], self.source[place])))

    def place(self, index: int) -> int:
        return int(self.order[index])

    def known(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        own = self.label[labels]
        return own[own >= 0]

    def told(self, place: int, rows: dict[str, Any]) -> dict[str, Any]:
        own, told = self._told(place, rows)
        return rows | {"labels": own[told]} | {key: rows[key][told] for key in ROWS if key in rows}

    def _told(self, place: int, rows: dict[str, Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Of each box of the source [k]: its label here, -1 for none, and whether it is told."""
        own = self.label[rows["labels"]]
        told = (own >= 0) & (own < self.all)
        told[self.few.get(place, [])] = True
        return own, told

    def _not_exhaustive(self, index: int) -> npt.NDArray[np.int64]:
        found, place, source = super()._not_exhaustive(index), self.place(index), cast(Any, self.source)
        if self.objects is None:
            return found
        own, told = self._told(place, source.objects(place))
        return np.union1d(found, own[(own >= 0) & ~told])


def _of(frequencies: Sequence[str], source: Source) -> tuple[str, ...]:
    """The classes of a source that are so frequent, by the r, c or f that it says of each."""
    letters, asked = getattr(source, "frequencies", None) or (), {one[0] for one in frequencies}
    names = tuple(name for name, letter in zip(source.class_names, letters, strict=bool(letters)) if letter in asked)
    if not names:
        raise ValueError(
            f"frequencies: the data calls no class {' or '.join(frequencies)}, as LVIS does; give `classes`"
        )
    return names
