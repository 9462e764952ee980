"""`subset`: a part of a source, the same share of every class: what fewer pictures would have been worth."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pictura.data.randomness import random_generator
from pictura.data.source import BadSample, Example, Source, SourceConfig
from pictura.data.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class SubsetConfig(SourceConfig):
    """share: of the examples of `of`, above 0 and at most 1; where there are labels, of each class, at least one.

    Shares of one `seed` lie within each other: the examples of 0.1 are among those of 0.3.
    """

    kind: ClassVar[str] = "subset"

    of: SourceConfig
    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share: {self.share} must be above 0 and at most 1; try 0.1")

    def build(self) -> "Subset":
        """Open the source and choose."""
        return Subset(self.of.build(), self.share, self.seed)


class Subset(Wrapper):
    """The chosen examples, in the order of the source."""

    def __init__(self, source: Source, share: float, seed: int = 0) -> None:
        self.source, self.provides, self.class_names, self.bad = source, source.provides, source.class_names, source.bad
        self.least_classes = source.least_classes
        labels = labels_of(source) if "label" in source.provides else np.zeros(len(source), dtype=np.int64)
        order = random_generator(seed, 0, 0, "subset").permutation(len(source))
        chosen = []
        for label in np.unique(labels[labels >= 0]):
            members = order[labels[order] == label]
            chosen.append(members[: max(1, round(share * len(members)))])
        self.indices: npt.NDArray[np.int64] = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def place(self, index: int) -> int:
        return int(self.indices[index])

    def __getitem__(self, index: int) -> Example:
        return self.source[self.place(index)]


def labels_of(source: Source) -> npt.NDArray[np.int64]:
    """The label of every example, -1 for a bad one: each is read once, where the source has no quicker way."""
    labels = np.full(len(source), -1, dtype=np.int64)
    for index in range(len(source)):
        try:
            labels[index] = source[index]["label"]
        except BadSample:
            continue
    return labels
