"""Whether a model's probabilities can be believed, and whether it knows what it does not know."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import Evaluator, EvaluatorConfig, check_reads_texts, outranked, thumbnail
from pictura.evaluation.calibrate import average_precision, calibration_error, separation
from pictura.evaluation.charts import chart
from pictura.evaluation.embed import Embedder
from pictura.evaluation.labelled import SHOWN, placed
from pictura.evaluation.panels import Gallery, Line, Panel, Table, percent
from pictura.evaluation.prompts import prompts_of
from pictura.evaluation.zeroshot import Classifier, named

BINS = 15


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig(EvaluatorConfig):
    """Of zero-shot classification with these `templates`; `class_names` replace the data's own.

    outside: pictures that are of none of the classes, to be told from those of `data`, such as ImageNet-O's.
    """

    kind: ClassVar[str] = "calibration"

    data: SourceConfig
    outside: SourceConfig | None = None
    templates: str | tuple[str, ...] = "simple"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        prompts_of(self.templates)

    def build(self) -> "Calibration":
        """The evaluator, its data opened."""
        outside = None if self.outside is None else self.outside.build()
        return Calibration(self.data.build(), self.templates, self.class_names, self.name, outside)


class Calibration(Evaluator):
    """Yields `error`, the gap between how sure and how right the answers are, over bins (Guo et al. 2017, equation 3);
    `cross_entropy` in nats; `brier`, the squared distance of the probabilities from the truth (Brier 1950); and
    `separation`: the chance that a picture's highest cosine is above another's when that one's own class is not asked
    about, 0.5 for a model that cannot tell what is of no class.

    With pictures from `outside`: `outside/separation`, the same chance against these; and `outside/aupr`, the average
    precision of finding them by how unsure the answer is, ImageNet-O's score, whose chance level is their share.
    """

    def __init__(
        self,
        source: Source,
        templates: str | tuple[str, ...] = "simple",
        class_names: tuple[str, ...] = (),
        name: str = "",
        outside: Source | None = None,
    ) -> None:
        self.title = f"calibration/{name}" if name else "calibration"
        if outside is not None and "image" not in outside.provides:
            raise ValueError(f"{self.title}: outside: the data has no image")
        self.outside, self.strange = outside, list[tuple[int, float, str]]()  # example, how sure, of what
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
        if self.outside is not None:
            yield from self.run_outside(embedder, asked, self.outside, seen)

    def run_outside(
        self, embedder: Embedder, asked: Classifier, outside: Source, seen: Tensor
    ) -> Iterator[tuple[str, float]]:
        kept = list[tuple[Tensor, ...]]()
        for features, batch in embedder.walk(outside):
            sure, answer = (asked.scale * asked.scores(features)).softmax(1).max(1)
            kept.append((batch["index"], asked.highest(features), sure, answer))
        if not kept:
            raise ValueError(f"{self.title}: outside: the data has no usable picture")
        index, highest, sure, answer = (torch.cat(column) for column in zip(*kept, strict=True))
        some = sure.argsort(descending=True, stable=True)[:SHOWN].tolist()
        self.strange = [(int(index[i]), float(sure[i]), self.names[int(answer[i])]) for i in some]
        yield f"{self.title}/outside/separation", separation(seen, highest)
        yield f"{self.title}/outside/aupr", average_precision(-sure, -self.sure)

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
        panels: list[Panel] = [Reliability(f"{self.title}: sure and right", points, note=note), table]
        if self.outside is not None and self.strange:
            shown = [
                thumbnail(self.outside, i, (Line(answer, f"{100 * sure:.0f} %"),), False)
                for i, sure, answer in self.strange
            ]
            note = "Pictures of none of the classes, of which it was surest all the same, and what it took them for."
            panels.append(Gallery(f"{self.title}: pictures of something else", [("Surest", shown)], note=note))
        return panels


@dataclass(frozen=True)
class Reliability(Panel):
    """How right answers are over how sure they are, in per cent."""

    points: list[tuple[float, float]]

    def html(self) -> str:
        last = self.points[-1]
        straight = [(0.0, 0.0), (100.0, 100.0)]
        lines = {"right": (self.points, f"{last[1]:.0f} %"), "sure": (straight, f"{last[0]:.0f} %")}
        return f'<div class="charts">{chart("per cent right by per cent sure", lines, along="sure, per cent")}</div>'
