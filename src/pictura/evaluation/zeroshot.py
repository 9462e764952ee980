"""Zero-shot classification (Radford et al. 2021, section 3.1): the class whose name, put in sentences, lies nearest."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import EvaluatorConfig, check_reads_texts, exact_products
from pictura.evaluation.embed import Embedder
from pictura.evaluation.labelled import Labelled, check_labelled
from pictura.evaluation.prompts import Prompts, fill, prompts_of


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig(EvaluatorConfig):
    """`templates`: a set's name (`pictura prompts` lists them), a .yaml file of prompts, one template or several.

    `class_names` replace the data's own, in the order of its labels.
    """

    kind: ClassVar[str] = "zeroshot"

    data: SourceConfig
    templates: str | tuple[str, ...] = "simple"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        prompts_of(self.templates)

    def build(self) -> "ZeroShot":
        """The evaluator, its data opened."""
        return ZeroShot(self.data.build(), self.templates, self.class_names, self.name)


class ZeroShot(Labelled):
    """Each class is scored by the cosine of the picture and its sentences."""

    def __init__(
        self,
        source: Source,
        templates: str | Path | Sequence[str] | Prompts = "simple",
        class_names: Sequence[str] = (),
        name: str = "",
    ) -> None:
        title = f"zeroshot/{name}" if name else "zeroshot"
        super().__init__(source, title, named(source, class_names, "zeroshot"))
        self.prompts = prompts_of(templates)
        several = len(self.prompts.templates) > 1
        self.how = f"{len(self.prompts.templates)} sentences for each"
        if not several:
            self.how = f"asked as “{self.prompts.templates[0]}”"

    def check(self, model: Any) -> None:
        check_reads_texts(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        asked = Classifier.of(embedder, self.names, self.prompts)
        scored = ((asked.scores(features), batch) for features, batch in embedder.walk(self.source))
        yield from self.tally(scored, asked.scale)


def named(source: Source, class_names: Sequence[str], title: str) -> tuple[str, ...]:
    """What the classes of labelled data are called. ValueError for fewer than two, another number than the data has,
    and two with one name."""
    check_labelled(source, title)
    names = distinct(class_names or source.class_names, title)
    if source.class_names and len(names) != len(source.class_names):
        raise ValueError(f"class_names: {len(names)} given, but the data has {len(source.class_names)} classes")
    return names


def distinct(names: Sequence[str], title: str) -> tuple[str, ...]:
    """ValueError for fewer than two names, an empty one, and the same one twice."""
    if len(names) < 2:
        raise ValueError(f"{title}: needs at least two class names, from the data, as `class_names`, or by --labels")
    if not all(name.strip() for name in names):
        raise ValueError(f"{title}: a class name is empty; a class without words cannot be found")
    twice = next((name for name, number in Counter(names).items() if number > 1), None)
    if twice is not None:
        raise ValueError(f"{title}: {twice!r} names two classes; give each its own words")
    return tuple(names)


@dataclass(frozen=True)
class Classifier:
    """`vectors`: [s e k], of unit length, the columns of s classifiers whose probabilities are averaged with `shares`,
    [s]; where vectors were averaged, s is 1. `scale` is what `scores` are multiplied by before a softmax."""

    vectors: Tensor
    shares: Tensor
    temperature: float

    @classmethod
    def of(cls, embedder: Embedder, names: Sequence[str], prompts: Prompts) -> "Classifier":
        """k names, put in sentences."""
        made = cls.averaged(sentences(embedder, names, prompts), prompts, 1 / embedder.scale)
        return replace(made, vectors=with_examples(embedder, names, prompts, made.vectors))

    @classmethod
    def averaged(cls, vectors: Tensor, prompts: Prompts, temperature: float) -> "Classifier":
        """vectors: [t e k], what each template says; `temperature` where the prompts have none of their own."""
        shares = torch.tensor(prompts.shares)
        if prompts.average == "vectors":
            vectors, shares = (shares[:, None, None] * vectors).sum(0, keepdim=True), torch.ones(1)
        return cls(F.normalize(vectors, dim=1), shares, prompts.temperature or temperature)

    @property
    def scale(self) -> float:
        return 1 / self.temperature if len(self.vectors) == 1 else 1.0

    def scores(self, features: Tensor) -> Tensor:
        """features: [b e] of unit length -> [b k], cosines, or where probabilities are averaged, their logarithms."""
        with exact_products():
            if len(self.vectors) == 1:
                return features @ self.vectors[0]
            total = torch.full((len(features), self.vectors.shape[2]), -torch.inf)
            for own, share in zip(self.vectors, self.shares.log(), strict=True):  # one by one: many are gigabytes
                total = torch.logaddexp(total, share + (features @ own / self.temperature).log_softmax(1))
        return total

    def highest(self, features: Tensor, but: Tensor | None = None) -> Tensor:
        """features: [b e] -> [b], the cosine of the nearest class, averaged over classifiers; of each picture's classes
        without the one that `but`, [b], says."""
        total = torch.zeros(len(features))
        with exact_products():
            for share, own in zip(self.shares, self.vectors, strict=True):
                cosines = features @ own
                if but is not None:
                    cosines = cosines.scatter(1, but[:, None], -2.0)
                total += share * cosines.amax(1)
        return total


def sentences(embedder: Embedder, names: Sequence[str], prompts: Prompts) -> Tensor:
    """k class names and t templates -> [t e k], the mean over a class's phrases of the texts' unit vectors."""
    phrases = [prompts.phrases(name) for name in names]
    texts = [fill(template, phrase) for some in phrases for phrase in some for template in prompts.templates]
    rows = embedder.texts(texts).view(-1, len(prompts.templates), embedder.model.config.embed_dim)
    if len(rows) > len(names):
        rows = torch.stack([own.mean(0) for own in rows.split([len(some) for some in phrases])])
    return rows.permute(1, 2, 0)


def with_examples(embedder: Embedder, names: Sequence[str], prompts: Prompts, vectors: Tensor) -> Tensor:
    """vectors: [s e k] -> [s e k], `share` of the texts' and the rest of the mean picture's, of the classes that have
    pictures. ValueError for a picture that is bad, or of a class that is not asked for."""
    if strange := next((name for name in prompts.examples if name not in names), None):
        raise ValueError(f"examples: {strange!r} is none of the classes, {', '.join(names[:5])}, …")
    for name, paths in prompts.examples.items():
        shown, column = F.normalize(embedder.images(paths).mean(0), dim=0), names.index(name)
        vectors[:, :, column] = prompts.share * vectors[:, :, column] + (1 - prompts.share) * shown
    return F.normalize(vectors, dim=1)


def classifier(embedder: Embedder, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """k class names × templates -> [e k]: each text of unit length, their mean over templates, of unit length again."""
    return Classifier.of(embedder, names, prompts_of(templates)).vectors[0]
