"""Several models side by side: what each was measured to be, and how sure it is that they differ."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pictura.evaluation.base import Evaluator, EvaluatorConfig, measure
from pictura.evaluation.embed import Embedder
from pictura.evaluation.intervals import paired
from pictura.evaluation.panels import Panel, Table, shown
from pictura.evaluation.ready import load
from pictura.evaluation.report import write_report
from pictura.evaluation.watched import watched

Difference = tuple[float, float, float]  # of the means, and its 95 % interval


@dataclass(frozen=True)
class Measured:
    """One model's metrics, and those of each example where a metric is their mean: {metric: [n]}."""

    name: str
    metrics: Mapping[str, float]
    each: Mapping[str, Tensor]

    @classmethod
    def by(cls, name: str, evaluators: Mapping[str, Evaluator], embedder: Embedder) -> "Measured":
        """Run all evaluators."""
        metrics = measure(evaluators, embedder)
        each = {metric: rows for one in evaluators.values() for metric, rows in one.each().items() if metric in metrics}
        return cls(name, metrics, each)

    def less(self, other: "Measured") -> dict[str, Difference]:
        """By how much this one is above the other, by a paired bootstrap over examples (Efron 1979), of the metrics
        that are means over examples. Of other examples than the other's (some were bad) there is none."""
        both = [metric for metric in self.each if metric in other.each]
        same = [metric for metric in both if self.each[metric].shape == other.each[metric].shape]
        return {metric: paired(self.each[metric], other.each[metric]) for metric in same}


def compare(
    models: Sequence[str | Path],
    suite: Callable[[Any], Mapping[str, EvaluatorConfig]],
    report: Path | None = None,
    first: Callable[[Mapping[str, float]], Panel] | None = None,
) -> list[Measured]:
    """Measure models, one after the other, by what `suite` chooses for the first of them.

    With `report`, a page: of one model with the evaluators' pictures, of several side by side; `first` makes a panel
    of the first model's metrics that comes before all.
    """
    measured, evaluators = list[Measured](), dict[str, Evaluator]()
    panels: list[Panel] = []
    for model in models:
        embedder = load(model).embedder
        if not evaluators:
            evaluators = {name: config.build() for name, config in suite(embedder.model).items()}
        for evaluator in evaluators.values():
            evaluator.check(embedder.model)
        with watched(embedder):
            measured.append(Measured.by(str(model), evaluators, embedder))
        if model is models[0] and report is not None:
            panels = [panel for evaluator in evaluators.values() for panel in evaluator.panels()]
    if report is not None:
        if len(models) > 1:
            panels = [panel(measured), *panels]
        if first is not None:
            panels = [first(measured[0].metrics), *panels]
        write_report(report, title=" and ".join(map(str, models)), metrics=measured[0].metrics, panels=panels)
    return measured


def rows(models: Sequence[Measured]) -> list[tuple[str, ...]]:
    """metric, its value for each model, and for all but the first the difference from the first; those whose interval
    leaves out zero are marked."""
    first, table = models[0], []
    differences = [one.less(first) for one in models[1:]]
    for metric in dict.fromkeys(metric for one in models for metric in one.metrics):
        values = [shown(metric, one.metrics[metric]) if metric in one.metrics else "" for one in models]
        table.append((metric, *values, *(told(some.get(metric)) for some in differences)))
    return table


def told(difference: Difference | None) -> str:
    """In points, with the interval."""
    if difference is None:
        return ""
    mean, low, high = (100 * number for number in difference)
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f}){'' if low <= 0 <= high else ' *'}"


def heads(models: Sequence[Measured]) -> tuple[str, ...]:
    """Of the rows."""
    return ("metric", *(one.name for one in models), *(f"{one.name} - {models[0].name}" for one in models[1:]))


def panel(models: Sequence[Measured]) -> Panel:
    """For the report."""
    note = "Differences in points with their 95 % interval, by a paired bootstrap over the examples; * leaves out zero."
    return Table("Side by side", heads(models), rows(models), note=note)


def as_csv(models: Sequence[Measured]) -> str:
    """model,metric,value,low,high: a line for each; the interval is of the difference from the first model."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("model", "metric", "value", "difference", "low", "high"))
    for one in models:
        differences = {} if one is models[0] else one.less(models[0])
        for metric, value in one.metrics.items():
            writer.writerow((one.name, metric, value, *differences.get(metric, ("", "", ""))))
    return file.getvalue()
