"""How often a classifier's own head is right, on pictures with labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.labelled import Labelled, matched, words
from pictura.evaluation.reading import check_head


@dataclass(frozen=True, kw_only=True)
class AccuracyConfig(EvaluatorConfig):
    """`data` needs pictures and labels of the classes that the model was trained for, in any order."""

    kind: ClassVar[str] = "accuracy"

    data: SourceConfig

    def build(self) -> "Accuracy":
        """The evaluator, its data opened."""
        return Accuracy(self.data.build(), self.name)


class Accuracy(Labelled):
    """Yields `loss` too, the cross-entropy."""

    def __init__(self, source: Source, name: str = "") -> None:
        super().__init__(source, f"accuracy/{name}" if name else "accuracy")

    def check(self, model: Any) -> None:
        check_head(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        check_head(embedder.model)
        order = self.order(embedder.model.config.class_names, embedder.model.config.classes)
        yield from self.tally(embedder.walk(self.source, "scores"), order=order)
        yield f"{self.title}/loss", self.loss

    def order(self, class_names: tuple[str, ...], classes: int) -> Tensor | None:
        """Take over the model's names. The place among them of each label in the data, None where it is the same."""
        names = self.source.class_names
        order = matched(names, class_names, self.title, ("the data", "the model"))
        if names and len(names) != classes:
            raise ValueError(f"{self.title}: the data has {len(names)} classes and the model {classes}, without names")
        self.names = words(class_names or names, classes)
        return order
