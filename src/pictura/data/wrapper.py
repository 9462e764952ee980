"""Sources that are made of another one."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pictura.data.source import Source


class Wrapper(Source):
    """A source made of another one, `source`, that says what this says beside its examples. A detection source may say,
    in COCO's and LVIS's terms: `image_ids` of its pictures; `category_ids` and `frequencies` of its classes; whether it
    is `federated`; and of picture `index` its `negatives(index)`, its `not_exhaustive(index)` and, without reading it,
    its `objects(index)`. What `source` does not say is None here.

    A wrapper that gives other pictures overrides `place`; one with other classes `known` and `told`. `Changed` is for
    those that give the same pictures.
    """

    source: Source

    def place(self, index: int) -> int:
        """Which of the source's examples is example `index`."""
        return index

    def captions(self, index: int) -> list[str]:
        return self.source.captions(self.place(index))

    def answers(self, least: int) -> tuple[str, ...]:
        """Those of the source: what may be answered does not depend on which of its examples are given."""
        return self.source.answers(least)

    def known(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Labels of the source -> those of them that are known here, by their numbers here."""
        return labels

    def told(self, place: int, rows: dict[str, Any]) -> dict[str, Any]:
        """An example of the source, or its `objects`, with the boxes that are told here."""
        return rows

    @property
    def image_ids(self) -> list[int] | None:
        ids = getattr(self.source, "image_ids", None)
        own = [ids[self.place(index)] for index in range(len(self))] if ids else []
        return own if own and len({*own}) == len(own) else None  # a picture that comes again is no picture of the file

    @property
    def category_ids(self) -> tuple[int, ...] | None:
        return self._of_classes("category_ids")

    @property
    def frequencies(self) -> tuple[str, ...] | None:
        return self._of_classes("frequencies")

    @property
    def federated(self) -> bool | None:
        return getattr(self.source, "federated", None)

    @property
    def negatives(self) -> Callable[[int], npt.NDArray[np.int64]] | None:
        return None if getattr(self.source, "negatives", None) is None else self._negatives

    @property
    def not_exhaustive(self) -> Callable[[int], npt.NDArray[np.int64]] | None:
        return None if getattr(self.source, "not_exhaustive", None) is None else self._not_exhaustive

    @property
    def objects(self) -> Callable[[int], dict[str, Any]] | None:
        return None if getattr(self.source, "objects", None) is None else self._objects

    def _of_classes(self, name: str) -> tuple[Any, ...] | None:
        values = getattr(self.source, name, None)
        of = dict(zip(self.source.class_names, values, strict=True)) if values else {}
        return tuple(of[name] for name in self.class_names) if of else None

    def _negatives(self, index: int) -> npt.NDArray[np.int64]:
        source: Any = self.source
        return self.known(source.negatives(self.place(index)))

    def _not_exhaustive(self, index: int) -> npt.NDArray[np.int64]:
        source: Any = self.source
        return self.known(source.not_exhaustive(self.place(index)))

    def _objects(self, index: int) -> dict[str, Any]:
        source: Any = self.source
        return self.told(self.place(index), source.objects(self.place(index)))


class Changed(Wrapper):
    """All examples of a source in its order, something in each of them changed, or added to it.

    gives: the keys of examples that are added. What is left to write is `__getitem__`.
    """

    def __init__(self, source: Source, *gives: str) -> None:
        self.source, self.provides, self.bad = source, source.provides.union(gives), source.bad
        self.class_names, self.least_classes = source.class_names, source.least_classes

    def __len__(self) -> int:
        return len(self.source)

    def all_captions(self) -> Iterator[str]:
        return self.source.all_captions()
