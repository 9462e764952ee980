"""The typographic attack: does a model read what is written on a thing, and take it for that? (Goh et al. 2021,
Multimodal Neurons in Artificial Neural Networks, section "Typographic attacks"; zero-shot as in `zeroshot`.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from pictura.data.batches import Batch
from pictura.data.inscribed import Inscribed
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import TIE, EvaluatorConfig, check_reads_texts
from pictura.evaluation.embed import Embedder
from pictura.evaluation.labelled import SHOWN, Labelled
from pictura.evaluation.panels import Gallery, Panel, Table, percent
from pictura.evaluation.prompts import Prompts, prompts_of
from pictura.evaluation.zeroshot import Classifier, named


@dataclass(frozen=True, kw_only=True)
class TypographicConfig(EvaluatorConfig):
    """Zero-shot top-1 before and after another class's name is written on each picture, and how often that is answered.

    `data` has labels and class names; `templates` and `class_names` are those of kind `zeroshot`. `seed`: of which
    other class is written on a picture, and where (data kind `inscribed`).
    """

    kind: ClassVar[str] = "typographic"

    data: SourceConfig
    templates: str | tuple[str, ...] = "simple"
    class_names: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        prompts_of(self.templates)

    def build(self) -> "Typographic":
        """The evaluator, its data opened."""
        return Typographic(self.data.build(), self.templates, self.class_names, self.seed, self.name)


class Typographic(Labelled):
    """Yields top-1 as `clean` and, with the name of another class on each picture, as `inscribed`; and `fooled`, the
    share answered with that class. A tie counts as fooled, and so does a NaN."""

    def __init__(
        self,
        source: Source,
        templates: str | Path | Sequence[str] | Prompts = "simple",
        class_names: Sequence[str] = (),
        seed: int = 0,
        name: str = "",
    ) -> None:
        title = f"typographic/{name}" if name else "typographic"
        super().__init__(source, title, named(source, class_names, "typographic"))
        self.prompts = prompts_of(templates)
        self.plain, self.source = source, Inscribed(source, seed, self.names)  # the latter is what the report shows
        self.numbers: tuple[float, float, float] | None = None  # clean, inscribed, fooled
        self.written = self.fooled = torch.empty(0)  # [n] class; [n] bool, of the pictures in `outcome`

    def check(self, model: Any) -> None:
        check_reads_texts(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        asked = Classifier.of(embedder, self.names, self.prompts)
        scored = ((asked.scores(features), batch) for features, batch in embedder.walk(self.plain))
        clean = dict(self.tally(scored, asked.scale))[f"{self.title}/top1"]
        written: list[Tensor] = []
        fooled: list[Tensor] = []

        def read() -> Iterator[tuple[Tensor, Batch]]:
            for features, batch in embedder.walk(self.source):
                scores, other = asked.scores(features), torch.tensor(batch["written"])
                written.append(other)
                fooled.append(taken_in(scores, other))
                yield scores, batch

        inscribed = dict(self.tally(read(), asked.scale))[f"{self.title}/top1"]
        self.written, self.fooled = torch.cat(written), torch.cat(fooled)
        self.numbers = clean, inscribed, float(self.fooled.double().mean())
        for what, value in zip(("clean/top1", "inscribed/top1", "fooled"), self.numbers, strict=True):
            yield f"{self.title}/{what}", value

    def panels(self) -> list[Panel]:
        if self.numbers is None:
            return []
        _, label, predicted, sure, _ = self.outcome
        surest = sure.argsort(descending=True, stable=True).tolist()
        fooled = [i for i in surest if self.fooled[i]][:SHOWN]
        right = [i for i in surest if label[i] == predicted[i] and not self.fooled[i]][:SHOWN]
        rows = [
            (heading, [self.picture(i) for i in some])
            for heading, some in (("Fooled, and surest of it", fooled), ("Surest and right all the same", right))
            if some
        ]
        said = [*map(percent, self.numbers)]
        note = f"The name of another class, written on each of {len(label):,} pictures of {len(self.names)} classes."
        names = ("top-1 of the pictures alone", "top-1 with another name on them", "answered with that name")
        table = Table(f"{self.title}: numbers", ("", "share"), list(zip(names, said, strict=True)), note=note)
        note = "The answer with its confidence, and where it is another class, the true one after it."
        return [table, Gallery(f"{self.title}: what it reads", rows, note=note)]


def taken_in(scores: Tensor, written: Tensor) -> Tensor:
    """scores: [b k], written: [b] -> [b bool], where no other class clearly beats the written one."""
    others = scores.scatter(1, written[:, None], -torch.inf).amax(1)
    return ~(scores.gather(1, written[:, None])[:, 0] < others - TIE)
