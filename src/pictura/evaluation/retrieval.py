"""Image-text retrieval: R@1, R@5, R@10 and median rank both ways (Karpathy's protocol; Radford et al. 2021, table 13).

The rule. A picture finds its text when any of its captions is among the first k; a text finds its picture when any
picture it belongs to is. Captions that are the same string are one text: one candidate, one query, and it belongs to
every picture that carries it. A wrong candidate that ties with the best right one stands before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pictura.data.source import Source, SourceConfig
from pictura.data.text import Tokenizer
from pictura.evaluation.base import Evaluator, EvaluatorConfig, check_reads_texts, thumbnail
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery, Line, Panel
from pictura.evaluation.recall import Answer, ByVectors, distinct_texts
from pictura.evaluation.rerank import ByPairs, check_matches
from pictura.weights.foreign import load_model


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(EvaluatorConfig):
    """`data` needs pictures and captions, any number for each picture.

    A model that reads a picture and a text together (a ViLT with a head for `rank` or `matching`) scores all pairs, or,
    with `first`, a CLIP as every command takes one, only the `top` that this one finds for each picture and each text.
    """

    kind: ClassVar[str] = "retrieval"

    data: SourceConfig
    first: str | None = None
    top: int = 16

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top: {self.top} is below 1; try 16")

    def build(self) -> "Retrieval":
        """The evaluator, its data opened, and the model that comes first."""
        source, first = self.data.build(), None
        if self.first is not None:
            first = load_model(self.first)
            if not hasattr(first[0], "encode_text"):
                kind = first[0].config.kind  # type: ignore[union-attr]
                raise ValueError(f"first: {self.first} ({kind}) has no vectors of texts; name a CLIP")
        return Retrieval(source, self.name, first, self.top)


class Retrieval(Evaluator):
    """Yields {image_to_text,text_to_image}/{R@1,R@5,R@10,median_rank}; the best rank is 1."""

    def __init__(
        self, source: Source, name: str = "", first: tuple[Any, Tokenizer | None] | None = None, top: int = 16
    ) -> None:
        missing = {"image", "captions"} - source.provides
        if missing:
            raise ValueError(f"retrieval: the data has no {' and no '.join(sorted(missing))}")
        self.title = f"retrieval/{name}" if name else "retrieval"
        self.source, self.first, self.top = source, first, top
        self.ranks: dict[str, Tensor] = {}  # of each direction, [n], the best one 0
        self.indices: list[int] = []  # of the pictures that could be read
        self.texts: list[str] = []  # distinct
        self.pairs = torch.empty(2, 0, dtype=torch.long)  # [2 p]: picture's place in `indices`, text's in `texts`
        self.nearest_texts: dict[int, list[Answer]] = {}  # of a few pictures
        self.nearest_pictures: dict[int, list[Answer]] = {}  # of a few texts

    def check(self, model: Any) -> None:
        if self.first is not None or hasattr(model, "match"):
            check_matches(model)
        else:
            check_reads_texts(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        self.check(embedder.model)
        by = ByPairs(self.first, self.top) if hasattr(embedder.model, "match") else ByVectors()
        self.indices, captions = [], list[list[str]]()
        for batch in by.walk(embedder, self.source):
            self.indices += batch["index"].tolist()
            captions += batch["captions"]
        self.texts, self.pairs = distinct_texts(captions)
        if not self.texts:
            raise ValueError(f"{self.title}: the data has no usable picture with a caption")
        found = by.rankings(embedder, self.source, self.texts, self.pairs)
        (images, self.nearest_texts), (texts, self.nearest_pictures) = found
        for direction, ranks in zip(("image_to_text", "text_to_image"), (images, texts), strict=True):
            self.ranks[direction] = ranks
            for k in (1, 5, 10):
                yield f"{self.title}/{direction}/R@{k}", float((ranks < k).double().mean())
            yield f"{self.title}/{direction}/median_rank", float(np.median(ranks.numpy())) + 1

    def each(self) -> dict[str, Tensor]:
        return {f"{self.title}/{way}/R@{k}": ranks < k for way, ranks in self.ranks.items() for k in (1, 5, 10)}

    def panels(self) -> list[Panel]:
        if not self.texts:
            return []
        asked = []
        for i, answers in self.nearest_texts.items():
            lines = tuple(Line(self.texts[answer.place], answer.says(), answer.own) for answer in answers)
            asked.append(thumbnail(self.source, self.indices[i], lines, answers[0].own))
        rows = []
        for t, answers in self.nearest_pictures.items():
            found = [
                thumbnail(self.source, self.indices[answer.place], (Line(answer.says()),), answer.own or None)
                for answer in answers
            ]
            rows.append((f"“{self.texts[t]}”", found))
        of = f"{len(self.indices):,} pictures, {len(self.texts):,} different captions"
        far = "one of its own with its rank where none is near" if self.first is None else "where one is among them"
        note = f"The best captions for a picture, its own marked; {far}. {of}."
        captions = Gallery(f"{self.title}: nearest captions", [("", asked)], wide=True, note=note)
        far = ", and comes last where it is not near" if self.first is None else ""
        note = f"The best pictures for a caption; its own has a green edge{far}."
        return [captions, Gallery(f"{self.title}: nearest pictures", rows, note=note)]
