"""Whether a model's probabilities can be believed, and whether it knows what it does not know."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import Evaluator, EvaluatorConfig, check_reads_texts, outranked
from pictura.evaluation.calibrate import calibration_error, separation
from pictura.evaluation.charts import chart
from pictura.evaluation.embed import Embedder
from pictura.evaluation.labelled import placed
from pictura.evaluation.panels import Panel, Table, percent
from pictura.evaluation.prompts import prompts_of
from pictura.evaluation.zeroshot import Classifier, named

BINS = 15


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig(EvaluatorConfig):
    """Of zero-shot classification with these `templates`; `class_names` replace the data's own."""

    kind: ClassVar[str] = "calibration"

    data: SourceConfig
    templates: str | tuple[str, ...] = "simple"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        prompts_of(self.templates)

    def build(self) -> "Calibration":
        """The evaluator, its data opened."""
        return Calibration(self.data.build(), self.templates, self.class_names, self.name)


class Calibration(Evaluator):
    """Yields `error`, the gap between how sure and how right the answers are, over bins (Guo et al. 2017, equation 3);
    `cross_entropy` in nats; `brier`, the squared distance of the probabilities from the truth (Brier 1950); and
    `separation`: the chance that a picture's highest cosine is above another's when that one's own class is not asked
    about, 0.5 for a model that cannot tell what is of no class."""

    def __init__(
        self,
        source: Source,
        templates: str | tuple[str, ...] = "simple",
        class_names: tuple[str, ...] = (),
        name: str = "",
    ) -> None:
        self.title = f"calibration/{name}" if name else "calibration"
        self.names, self.source = named(source, class_names, "calibration"), source
        self.prompts = prompts_of(templates)
        self.sure, self.right = torch.empty(0), torch.empty(0, dtype=torch.bool)

    def check(self, model: Any) -> None:
        check_reads_texts(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        asked, kept = Classifier.of(embedder, self.names, self.prompts), list[tuple[Tensor, ...]]()
        for features, batch in embedder.walk(self.source):
            label = placed(batch["label"], None, len(self.names), self.title)
            scores = asked.scores(features)
            share = (asked.scale * scores).softmax(1)
            own = share.gather(1, label[:, None])[:, 0]
            brier = share.square().sum(1) - 2 * own + 1
            right = ~outranked(scores, label).any(1)
            seen, unseen = asked.highest(features), asked.highest(features, but=label)
            kept.append((share.amax(1), right, own.log(), brier, seen, unseen))
        if not kept:
            raise ValueError(f"{self.title}: the data has no usable picture")
        self.sure, self.right, logs, brier, seen, unseen = (torch.cat(column) for column in zip(*kept, strict=True))
        yield f"{self.title}/error", calibration_error(self.sure, self.right, BINS)
        yield f"{self.title}/cross_entropy", -float(logs.double().mean())
        yield f"{self.title}/brier", float(brier.double().mean())
        yield f"{self.title}/separation", separation(seen, unseen)

    def panels(self) -> list[Panel]:
        if not len(self.sure):
            return []
        rows, points = [], []
        place = (self.sure * BINS).ceil().long().clamp(1, BINS) - 1
        for b in place.unique().tolist():
            inside = place == b
            sure, right = float(self.sure[inside].mean()), float(self.right[inside].double().mean())
            rows.append((percent(sure), percent(right), f"{int(inside.sum()):,}"))
            points.append((100 * sure, 100 * right))
        note = (
            "A model whose probabilities can be believed is as often right as it is sure: its line is the straight one."
        )
        table = Table(f"{self.title}: by how sure it was", ("sure", "right", "pictures"), rows)
        return [Reliability(f"{self.title}: sure and right", points, note=note), table]


@dataclass(frozen=True)
class Reliability(Panel):
    """How right answers are over how sure they are, in per cent."""

    points: list[tuple[float, float]]

    def html(self) -> str:
        last = self.points[-1]
        straight = [(0.0, 0.0), (100.0, 100.0)]
        lines = {"right": (self.points, f"{last[1]:.0f} %"), "sure": (straight, f"{last[0]:.0f} %")}
        return f'<div class="charts">{chart("per cent right by per cent sure", lines, along="sure, per cent")}</div>'
