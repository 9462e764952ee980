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

WHAT = {  # metrics, in words
    "clean/top1": "top-1 of the pictures alone",
    "covered/top1": "top-1 with a blank label on them",
    "covered/fooled": "answered with a name that is not written on it",
    "inscribed/top1": "top-1 with that name on it",
    "fooled": "answered with that name then",
}


@dataclass(frozen=True, kw_only=True)
class TypographicConfig(EvaluatorConfig):
    """Zero-shot top-1 before and after another class's name is stuck on each picture, and how often that is answered;
    and with the same labels blank, since what they cover is lost to one that cannot read, too.

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
    """Yields top-1 as `clean`; with blank labels as `covered`; with the name of another class on them as `inscribed`;
    and `fooled`, the share answered with that class then, which by chance is `covered/fooled`. A tie counts as fooled,
    and so does a NaN."""

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
        self.covered = Inscribed(source, seed, self.names, blank=True)
        self.numbers: tuple[float, ...] = ()  # those of WHAT
        self.fooled = torch.empty(0, dtype=torch.bool)  # [n], of the pictures in `outcome`

    def check(self, model: Any) -> None:
        check_reads_texts(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        asked = Classifier.of(embedder, self.names, self.prompts)
        plain = ((asked.scores(features), batch) for features, batch in embedder.walk(self.plain))
        clean = dict(self.tally(plain, asked.scale))[f"{self.title}/top1"]
        covered, by_chance = self.labelled(embedder, asked, self.covered)
        inscribed, self.fooled = self.labelled(embedder, asked, self.source)
        self.numbers = clean, covered, share(by_chance), inscribed, share(self.fooled)
        for what, value in zip(WHAT, self.numbers, strict=True):
            yield f"{self.title}/{what}", value

    def labelled(self, embedder: Embedder, asked: Classifier, source: Source) -> tuple[float, Tensor]:
        """Top-1 on pictures with labels stuck on, and of each, [n], whether the answer is the class `written`."""
        taken = list[Tensor]()

        def scored() -> Iterator[tuple[Tensor, Batch]]:
            for features, batch in embedder.walk(source):
                scores = asked.scores(features)
                taken.append(taken_in(scores, torch.tensor(batch["written"])))
                yield scores, batch

        return dict(self.tally(scored(), asked.scale))[f"{self.title}/top1"], torch.cat(taken)

    def panels(self) -> list[Panel]:
        if not self.numbers:
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
        table = Table(f"{self.title}: numbers", ("", "share"), list(zip(WHAT.values(), said, strict=True)), note=note)
        note = "The answer with its confidence, and where it is another class, the true one after it."
        return [table, Gallery(f"{self.title}: what it reads", rows, note=note)]


def taken_in(scores: Tensor, written: Tensor) -> Tensor:
    """scores: [b k], written: [b] -> [b bool], where no other class clearly beats the written one."""
    others = scores.scatter(1, written[:, None], -torch.inf).amax(1)
    return ~(scores.gather(1, written[:, None])[:, 0] < others - TIE)


def share(of: Tensor) -> float:
    """[n] bool -> how many of them are true, from 0 to 1."""
    return float(of.double().mean())
