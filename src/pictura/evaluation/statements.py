"""Whether statements about pairs of pictures are told true from false: NLVR2's accuracy (Suhr et al. 2019)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import Evaluator, EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Panel, Table
from pictura.evaluation.questions import check_task


@dataclass(frozen=True, kw_only=True)
class StatementsConfig(EvaluatorConfig):
    """`data` needs pairs of pictures, statements, and labels that are 1 where these are true."""

    kind: ClassVar[str] = "statements"

    data: SourceConfig

    def build(self) -> "Statements":
        """The evaluator, its data opened."""
        return Statements(self.data.build(), self.name)


class Statements(Evaluator):
    """Yields `accuracy`, and the shares of the true and of the false ones that are told."""

    def __init__(self, source: Source, name: str = "") -> None:
        if missing := {"images", "statement", "label"} - source.provides:
            raise ValueError(f"statements: the data has no {' and no '.join(sorted(missing))}")
        self.title = f"statements/{name}" if name else "statements"
        self.source, self.found = source, dict[str, float]()

    def check(self, model: Any) -> None:
        check_task(model, "pair")

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        self.check(embedder.model)
        said, label = list[Tensor](), list[Tensor]()
        for scores, batch in embedder.asked(self.source, lambda m, b: m.compare(b["left"], b["right"], b["statement"])):
            said.append(scores.argmax(1))
            label.append(batch["label"].cpu())
        if not said:
            raise ValueError(f"{self.title}: the data has no usable pair")
        truth = torch.cat(label)
        right = (torch.cat(said) == truth).double()
        self.found = {"accuracy": float(right.mean())}
        for name, value in (("true", 1), ("false", 0)):
            if (truth == value).any():
                self.found[name] = float(right[truth == value].mean())
        yield from ((f"{self.title}/{name}", value) for name, value in self.found.items())

    def panels(self) -> list[Panel]:
        if not self.found:
            return []
        rows = [(name, f"{value:.1%}") for name, value in self.found.items()]
        return [Table(f"{self.title}: told right", ("statements", "share"), rows)]
