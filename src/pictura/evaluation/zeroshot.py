"""Zero-shot classification (Radford et al. 2021, section 3.1): the class whose name, put in sentences, lies nearest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import Evaluator, EvaluatorConfig, exact_products, outranked, thumbnail
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Confusion, Gallery, Line, Panel, Picture
from pictura.evaluation.prompts import fill, templates_of

SHOWN = 12  # best and worst pictures in the report


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig(EvaluatorConfig):
    """`templates`: a set's name (plain, photo, simple, imagenet), one template or several.

    `class_names` replace the data's own, in the order of its labels.
    """

    kind: ClassVar[str] = "zeroshot"

    data: SourceConfig
    templates: str | tuple[str, ...] = "simple"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        templates_of(self.templates)

    def build(self) -> "ZeroShot":
        """The evaluator, its data opened."""
        return ZeroShot(self.data.build(), self.templates, self.class_names, self.name)


class ZeroShot(Evaluator):
    """Yields top1, top5 (of more than five classes) and mean_per_class: recall, averaged over classes with pictures."""

    def __init__(
        self,
        source: Source,
        templates: str | Sequence[str] = "simple",
        class_names: Sequence[str] = (),
        name: str = "",
    ) -> None:
        missing = {"image", "label"} - source.provides
        if missing:
            raise ValueError(f"zeroshot: the data has no {' and no '.join(sorted(missing))}")
        names = tuple(class_names or source.class_names)
        if len(names) < 2:
            raise ValueError("zeroshot: needs at least two class names, from the data or as `class_names`")
        if source.class_names and len(names) != len(source.class_names):
            raise ValueError(f"class_names: {len(names)} given, but the data has {len(source.class_names)} classes")
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise ValueError(f"class_names: {twice!r} names two classes; give each its own words")
        self.title = f"zeroshot/{name}" if name else "zeroshot"
        self.names = names
        self.templates = templates_of(templates)
        self.source = source
        self.outcome: list[Tensor] = []  # index, label, prediction, probabilities of both; each [n]

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        classes = classifier(embedder, self.names, self.templates)
        scale = embedder.scale
        kept: list[tuple[Tensor, ...]] = []
        for features, batch in embedder.walk(self.source):
            label = batch["label"]
            if int(label.min()) < 0 or int(label.max()) >= len(self.names):
                wrong = int(label.min()) if int(label.min()) < 0 else int(label.max())
                raise ValueError(
                    f"{self.title}: label {wrong} in the data, but there are {len(self.names)} class names"
                )
            with exact_products():
                scores = features @ classes
            predicted = scores.argmax(1)
            probability = (scale * scores).softmax(1)
            sure, of_true = (probability.gather(1, of[:, None])[:, 0] for of in (predicted, label))
            kept.append((batch["index"], label, predicted, sure, of_true, outranked(scores, label).sum(1)))
        if not kept:
            raise ValueError(f"{self.title}: the data has no usable picture")
        *self.outcome, rank = (torch.cat(column) for column in zip(*kept, strict=True))
        label = self.outcome[1]
        yield f"{self.title}/top1", float((rank < 1).double().mean())
        if len(self.names) > 5:
            yield f"{self.title}/top5", float((rank < 5).double().mean())
        pictures = label.bincount(minlength=len(self.names))
        right = label[rank < 1].bincount(minlength=len(self.names))
        yield f"{self.title}/mean_per_class", float((right / pictures)[pictures > 0].double().mean())

    def confusion(self) -> Tensor:
        """[k k] counts, true class by predicted class, of the latest run."""
        _, label, predicted, _, _ = self.outcome
        k = len(self.names)
        return (label * k + predicted).bincount(minlength=k * k).view(k, k)

    def panels(self) -> list[Panel]:
        if not self.outcome:
            return []
        _, label, predicted, sure, of_true = self.outcome
        right = label == predicted
        best = [i for i in of_true.argsort(descending=True, stable=True).tolist() if right[i]][:SHOWN]
        worst = [i for i in sure.argsort(descending=True, stable=True).tolist() if not right[i]][:SHOWN]
        rows = [
            (heading, [self.picture(i) for i in some])
            for heading, some in (("Surest and right", best), ("Surest and wrong", worst))
            if some
        ]
        asked = (
            f"{len(self.templates)} sentences for each"
            if len(self.templates) > 1
            else f"asked as “{self.templates[0]}”"
        )
        note = f"Rows are the truth, columns the answer. {len(label):,} pictures, {len(self.names)} classes, {asked}."
        confusion = Confusion(f"{self.title}: confusion", self.confusion().tolist(), self.names, note=note)
        note = "The answer with its confidence; where it was wrong, the truth after it."
        return [confusion, Gallery(f"{self.title}: best and worst", rows, note=note)]

    def picture(self, i: int) -> Picture:
        index, label, predicted, sure, of_true = (column[i].item() for column in self.outcome)
        lines = [Line(self.names[int(predicted)], f"{100 * sure:.0f} %", mark=label == predicted)]
        if label != predicted:
            lines.append(Line(self.names[int(label)], f"{100 * of_true:.0f} %", mark=True))
        return thumbnail(self.source, int(index), tuple(lines), label == predicted)


def classifier(embedder: Embedder, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """k class names × templates -> [e k]: each text of unit length, their mean over templates, of unit length again."""
    texts = embedder.texts([fill(template, name) for name in names for template in templates])
    return F.normalize(texts.view(len(names), len(templates), -1).mean(1), dim=-1).T
