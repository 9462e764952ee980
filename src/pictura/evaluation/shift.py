"""What a model loses on other pictures of the same classes, such as those of a phone after those of a studio.

A shift that came by itself, where `robustness` makes one: zero-shot accuracy on both sets, as Radford et al. (2021,
section 3.3) and Taori et al. (2020, section 2) compare ImageNet with its shifted sets, by classes that both have.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from pictura.data.batches import Batch
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import Evaluator, EvaluatorConfig, check_reads_texts
from pictura.evaluation.embed import Embedder
from pictura.evaluation.intervals import unpaired
from pictura.evaluation.labelled import Labelled, check_labelled, placed, shortened
from pictura.evaluation.panels import Gallery, Panel, Picture, Table, percent
from pictura.evaluation.prompts import Prompts, prompts_of
from pictura.evaluation.robustness import Remembering
from pictura.evaluation.zeroshot import Classifier, distinct, named

FELL = 6  # classes whose pictures are shown
SHOWN = 6  # pictures of each, of either side
LISTED = 50  # classes in the table


@dataclass(frozen=True, kw_only=True)
class ShiftConfig(EvaluatorConfig):
    """Zero-shot top-1 on `data` and on `shifted`, other pictures of the same classes, and what is lost between them.

    Classes are matched by name, in any order; one that only one side has is left out of both. `templates` and
    `class_names`, which say the names of `data` in other words, are those of kind `zeroshot`.
    """

    kind: ClassVar[str] = "shift"

    data: SourceConfig
    shifted: SourceConfig
    templates: str | tuple[str, ...] = "simple"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        prompts_of(self.templates)

    def build(self) -> "Shift":
        """The evaluator, its data opened."""
        return Shift(self.data.build(), self.shifted.build(), self.templates, self.class_names, self.name)


class Side(Labelled):
    """One of the two sets. `order`: [labels in the data] -> place of its class among those of both, -1 for none."""

    def __init__(self, source: Source, title: str, names: Sequence[str], order: Tensor, prompts: Prompts) -> None:
        super().__init__(source, title, names)
        self.order, self.prompts = order, prompts

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        asked = Classifier.of(embedder, self.names, self.prompts)
        yield from self.tally(self.scored(embedder, asked), asked.scale)

    def scored(self, embedder: Embedder, asked: Classifier) -> Iterator[tuple[Tensor, Batch]]:
        for features, batch in embedder.walk(self.source):
            label = placed(batch["label"], self.order, len(self.names), self.title)
            if (here := label >= 0).any():
                yield asked.scores(features[here]), {"label": label[here], "index": batch["index"][here]}

    def counts(self) -> tuple[Tensor, Tensor]:
        """Of each class, how many pictures there are and how many are right; [k] each."""
        label, k = self.outcome[1], len(self.names)
        return label.bincount(minlength=k), label[self.rank < 1].bincount(minlength=k)

    def some(self, c: int, right: bool) -> list[int]:
        """Pictures of class `c` that are right, or not, the surest first."""
        _, label, predicted, sure, _ = self.outcome
        order, wanted = sure.argsort(descending=True, stable=True), (label == c) & ((predicted == c) == right)
        return order[wanted[order]][:SHOWN].tolist()


class Shift(Evaluator):
    """Yields what `zeroshot` does of `source` and of `shifted`; `drop`, the first less the second, with the 95 %
    interval of top1; and `kept`, the second by the first, 0 where nothing is right. A drop of mean_per_class is that of
    classes with pictures on both sides, and has nothing to do with how many there are of each."""

    def __init__(
        self,
        source: Source,
        shifted: Source,
        templates: str | Path | Sequence[str] | Prompts = "simple",
        class_names: Sequence[str] = (),
        name: str = "",
    ) -> None:
        self.title = f"shift/{name}" if name else "shift"
        both = {"source": source, "shifted": shifted}
        for whose, one in both.items():
            check_labelled(one, f"{self.title}: {whose}")
            distinct(one.class_names, f"{self.title}: {whose}")
        words = dict(zip(source.class_names, named(source, class_names, self.title), strict=True))
        others = set(shifted.class_names)
        shared = [name for name in source.class_names if name in others]
        if len(shared) < 2:
            has = [f"{whose} has {shortened(one.class_names)}" for whose, one in both.items()]
            raise ValueError(f"{self.title}: both need two classes of the same names, or more; {' and '.join(has)}")
        place = {name: i for i, name in enumerate(shared)}
        self.left_out = {whose: [n for n in one.class_names if n not in place] for whose, one in both.items()}
        self.names, prompts = tuple(words[name] for name in shared), prompts_of(templates)
        examples = {name: some for name, some in prompts.examples.items() if name in self.names}
        self.prompts = replace(prompts, examples=examples)
        self.sides = [
            Side(one, f"{self.title}/{whose}", self.names, torch.tensor([place.get(n, -1) for n in one.class_names]),
                 self.prompts)
            for whose, one in both.items()
        ]  # fmt: skip
        self.found: dict[str, float] = {}  # of the latest run, without the title

    def check(self, model: Any) -> None:
        check_reads_texts(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        remembering, found = Remembering(embedder), dict[str, float]()
        for side in self.sides:
            for metric, value in side.run(remembering):
                found[metric.removeprefix(f"{self.title}/")] = value
        one, other = (side.rank < 1 for side in self.sides)
        names = ("drop/top1", "drop/top1_low", "drop/top1_high")
        found |= dict(zip(names, unpaired(one, other), strict=True))
        fell = self.fell()
        if (known := fell.isfinite()).any():
            found["drop/mean_per_class"] = float(fell[known].mean())
        right = found["source/top1"]
        found["kept/top1"] = found["shifted/top1"] / right if right else 0.0
        self.found = found
        for metric, value in found.items():
            yield f"{self.title}/{metric}", value

    def each(self) -> dict[str, Tensor]:
        return {metric: rows for side in self.sides for metric, rows in side.each().items()}

    def fell(self) -> Tensor:
        """[k] by how much each class's recall is lower on the shifted pictures, NaN where a side has none of it."""
        (before, right), (after, still) = (side.counts() for side in self.sides)
        return right.double() / before - still.double() / after

    def panels(self) -> list[Panel]:
        if not self.found:
            return []
        note = f"{len(self.names)} classes that both have, {len(self.prompts.templates)} sentences for each."
        for whose, names in self.left_out.items():
            if names:
                note += f" Left out, being in {whose} alone: {shortened(names, 6)}."
        low, high = (points(self.found[f"drop/top1_{end}"]) for end in ("low", "high"))
        drop, per_class = self.found["drop/top1"], self.found.get("drop/mean_per_class")
        rows = [
            (whose, f"{len(side.rank):,}", *(percent(self.found[f"{whose}/{m}"]) for m in ("top1", "mean_per_class")))
            for whose, side in zip(self.left_out, self.sides, strict=True)
        ]
        last = "" if per_class is None else points(per_class)
        rows.append(("lost, in points", "", f"{points(drop)} ({low} to {high})", last))
        rows.append(("kept", "", percent(self.found["kept/top1"]), ""))
        heads = ("", "pictures", "top-1 (95 % interval)", "mean of classes")
        return [Table(f"{self.title}: numbers", heads, rows, note=note), *self.by_class()]

    def by_class(self) -> list[Panel]:
        """The classes by how far they fell, and pictures of those that fell most."""
        fell, counts = self.fell(), [side.counts() for side in self.sides]
        order = [c for c in fell.argsort(descending=True, stable=True).tolist() if fell[c].isfinite()]
        rows, shown = [], list[tuple[str, list[Picture]]]()
        for c in order:
            shares = [f"{percent(float(right[c] / n[c]))} of {int(n[c]):,}" for n, right in counts]
            rows.append((self.names[c], *shares, points(float(fell[c]))))
            if len(shown) < 2 * FELL and fell[c] > 0:
                for side, share, right in zip(self.sides, shares, (True, False), strict=True):
                    if some := side.some(c, right):
                        heading = f"{self.names[c]}, {side.title.rpartition('/')[2]}: {share} right"
                        shown.append((heading, [side.picture(i) for i in some]))
        note = f"The {LISTED} of {len(rows)} that fell most." if len(rows) > LISTED else ""
        heads = ("class", "source", "shifted", "points lost")
        table = Table(f"{self.title}: by class", heads, rows[:LISTED], note=note)
        note = "Surest first: of the source those that are right, of the shifted those that are not."
        return [table, Gallery(f"{self.title}: what fell most", shown, note=note)] if shown else [table]


def points(share: float) -> str:
    """A difference of shares, in points."""
    return f"{100 * share:.1f}"
