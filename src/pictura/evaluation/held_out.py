"""A training objective on data that was not trained on: its loss and its metrics, without dropout."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch

from pictura.data.batches import Batches, LoaderConfig, prefetch
from pictura.data.reader import FROM_SOURCE, GIVEN
from pictura.data.source import Source, SourceConfig
from pictura.data.stream import Stream
from pictura.distributed.ranks import alone
from pictura.evaluation.base import Evaluator, EvaluatorConfig
from pictura.evaluation.embed import Embedder, evaluating
from pictura.evaluation.panels import Panel, Table, shown
from pictura.objectives.base import Objective, ObjectiveConfig, Task


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig(EvaluatorConfig):
    """`objective` is measured on `data`, which must give what it needs. What it draws by chance (which words it hides,
    which captions it exchanges) is the same each time. An objective that compares the examples of a batch sees them in
    equal batches of at most `batch_size`; a few examples may be left over. One that cannot be read is replaced by
    another."""

    kind: ClassVar[str] = "held_out"

    objective: ObjectiveConfig
    data: SourceConfig
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size: {self.batch_size} is below 1; try 256")
        if self.objective.weight != 1 or self.objective.schedule:
            raise ValueError("objective.weight: a loss by itself has no weight and no schedule; leave both out")

    def build(self) -> "HeldOut":
        """The evaluator, its data opened."""
        name: str = self.name or self.objective.kind  # type: ignore[attr-defined]
        return HeldOut(self.data.build(), self.objective.build(), name, self.batch_size)


class HeldOut(Evaluator):
    """Yields `loss`, and whatever metrics the objective has, each the mean over batches."""

    def __init__(self, source: Source, objective: Objective, name: str, batch_size: int = 256) -> None:
        self.title = f"held_out/{name}"
        if isinstance(source, Stream):
            raise ValueError(f"{self.title}: a stream is read without end; measure on a table, folders or shards")
        if missing := {FROM_SOURCE.get(need, need) for need in objective.needs - GIVEN} - source.provides:
            raise ValueError(f"{self.title}: the data has no {' and no '.join(sorted(missing))}")
        self.source, self.objective, self.batch_size = source, objective, batch_size
        self.found = dict[str, float]()

    def check(self, model: Any) -> None:
        self.objective.attach(model)
        names = getattr(model.config, "class_names", ()), self.source.class_names
        if "label" in self.objective.needs and all(names) and names[0] != names[1]:
            raise ValueError(f"{self.title}: the model's classes are not those of the data, or in another order")
        if any(True for _ in self.objective.parameters()):
            raise ValueError(
                f"{self.title}: this objective has a head of its own, which a model does not keep; measure features"
            )

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        self.check(embedder.model)
        task = Task(embedder.model, {"o": self.objective}, {"o": 1.0})
        together = 1 + task.others if "other" in task.needs else 1  # texts beside each picture
        count = max(1, -(-len(self.source) * together // self.batch_size))
        loader = LoaderConfig(batch_size=max(1, len(self.source) // count), workers=embedder.workers, max_bad=1.0)
        batches = Batches(
            self.source, embedder.view, embedder.tokenizer, loader, seed=0, needs=task.needs, others=task.others
        )
        sums: dict[str, float] = defaultdict(float)
        with alone(), evaluating(task):
            for done, batch in enumerate(prefetch(islice(batches.iterate(), count), embedder.device), 1):
                with torch.inference_mode():
                    metrics = task(batch).metrics
                for name, value in metrics.items():
                    if name.startswith("o/"):
                        sums[name[2:]] += float(value)
                embedder.tell("batches", done, count)
        for key, reason in batches.bad.rows():
            embedder.bad.add(key, reason)
        self.found = {name: value / count for name, value in sums.items()}
        yield from ((f"{self.title}/{name}", value) for name, value in self.found.items())

    def panels(self) -> list[Panel]:
        rows = [(name, shown(name, value)) for name, value in self.found.items()]
        return [Table(f"{self.title}: what was not trained on", ("metric", "value"), rows)] if rows else []
