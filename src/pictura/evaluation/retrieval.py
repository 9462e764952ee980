"""Image-text retrieval: R@1, R@5, R@10 and median rank both ways (Karpathy's protocol; Radford et al. 2021, table 13).

The rule. A picture finds its text when any of its captions is among the first k; a text finds its picture when any
picture it belongs to is. Captions that are the same string are one text: one candidate, one query, and it belongs to
every picture that carries it. A wrong candidate that ties with the best right one stands before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import TIE, Evaluator, EvaluatorConfig, check_reads_texts, exact_products, thumbnail
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery, Line, Panel

ASKED, ANSWERS = 8, 5  # pictures and texts shown in the report, and how many answers for each


class Answer(NamedTuple):
    """A candidate for one query, for the report."""

    place: int
    score: float
    rank: int  # from 1
    own: bool

    def says(self) -> str:
        return f"{self.score:.2f}" if self.rank <= ANSWERS else f"rank {self.rank:,} · {self.score:.2f}"


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(EvaluatorConfig):
    """`data` needs pictures and captions, any number for each picture."""

    kind: ClassVar[str] = "retrieval"

    data: SourceConfig

    def build(self) -> "Retrieval":
        """The evaluator, its data opened."""
        return Retrieval(self.data.build(), self.name)


class Retrieval(Evaluator):
    """Yields {image_to_text,text_to_image}/{R@1,R@5,R@10,median_rank}; the best rank is 1."""

    def __init__(self, source: Source, name: str = "") -> None:
        missing = {"image", "captions"} - source.provides
        if missing:
            raise ValueError(f"retrieval: the data has no {' and no '.join(sorted(missing))}")
        self.title = f"retrieval/{name}" if name else "retrieval"
        self.source = source
        self.indices: list[int] = []  # of the pictures that could be read
        self.texts: list[str] = []  # distinct
        self.pairs = torch.empty(2, 0, dtype=torch.long)  # [2 p]: picture's place in `indices`, text's in `texts`
        self.nearest_texts: dict[int, list[Answer]] = {}  # of a few pictures
        self.nearest_pictures: dict[int, list[Answer]] = {}  # of a few texts

    def check(self, model: Any) -> None:
        check_reads_texts(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        parts: list[Tensor] = []
        self.indices = []
        captions: list[list[str]] = []
        for features, batch in embedder.walk(self.source):
            parts.append(features)
            self.indices += batch["index"].tolist()
            captions += batch["captions"]
        self.texts, self.pairs = distinct_texts(captions)
        if not self.texts:
            raise ValueError(f"{self.title}: the data has no usable picture with a caption")
        images, texts = torch.cat(parts), embedder.texts(self.texts)
        self.nearest_texts = nearest(images, texts, self.pairs)
        self.nearest_pictures = nearest(texts, images, self.pairs.flip(0))
        both = ranks_both_ways(images, texts, self.pairs, device=embedder.device)
        for direction, ranks in zip(("image_to_text", "text_to_image"), both, strict=True):
            for k in (1, 5, 10):
                yield f"{self.title}/{direction}/R@{k}", float((ranks < k).double().mean())
            yield f"{self.title}/{direction}/median_rank", float(np.median(ranks.numpy())) + 1

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
        note = (
            f"The best captions for a picture, its own marked; one of its own with its rank where none is near. {of}."
        )
        captions = Gallery(f"{self.title}: nearest captions", [("", asked)], wide=True, note=note)
        note = "The best pictures for a caption; its own has a green edge, and comes last where it is not near."
        return [captions, Gallery(f"{self.title}: nearest pictures", rows, note=note)]


def distinct_texts(captions: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """Captions of each picture -> distinct texts in order of appearance, and pairs [2 p] (picture, text), each once."""
    number: dict[str, int] = {}
    pairs = {(i, number.setdefault(text, len(number))): None for i, some in enumerate(captions) for text in some}
    return list(number), torch.tensor(list(pairs), dtype=torch.long).view(-1, 2).T


@exact_products()
def ranks_both_ways(
    images: Tensor, texts: Tensor, pairs: Tensor, *, device: torch.device | str = "cpu", block: int | None = None
) -> tuple[Tensor, Tensor]:
    """images: [n e], texts: [u e], unit vectors; pairs: [2 p] -> ranks from 0 of pictures with a caption, and of texts.

    In one pass over block × block scores, which serve both directions; the whole n × u matrix is never there.
    """
    block = block or (1024 if torch.device(device).type == "cpu" else 8192)  # a processor's cache, a GPU's launches
    images, texts, pairs = images.to(device), texts.to(device), pairs.to(device)
    pairs = pairs[:, pairs[0].argsort(stable=True)]
    best_of_image = torch.full((len(images),), -torch.inf, device=device)
    best_of_text = torch.full((len(texts),), -torch.inf, device=device)
    for picture, text in zip(pairs[0].split(block), pairs[1].split(block), strict=True):
        score = (images[picture] * texts[text]).sum(1)
        best_of_image.scatter_reduce_(0, picture, score, "amax")
        best_of_text.scatter_reduce_(0, text, score, "amax")
    # Counting those clearly below, and taking the rest: so NaN, which compares with nothing, counts against the model.
    below_image = torch.zeros(len(images), dtype=torch.long, device=device)
    below_text = torch.zeros(len(texts), dtype=torch.long, device=device)
    for i in range(0, len(images), block):
        first, last = torch.searchsorted(pairs[0], torch.tensor([i, i + block], device=device)).tolist()
        picture, text = pairs[:, first:last]
        for t in range(0, len(texts), block):
            scores = images[i : i + block] @ texts[t : t + block].T
            here = (text >= t) & (text < t + block)
            scores[picture[here] - i, text[here] - t] = -torch.inf  # its own are below, that is, never in the way
            below_image[i : i + block] += (scores < best_of_image[i : i + block, None] - TIE).sum(1)
            below_text[t : t + block] += (scores < best_of_text[t : t + block] - TIE).sum(0)
    asked = pairs[0].unique()
    return (len(texts) - below_image)[asked].cpu(), (len(images) - below_text).cpu()


def spread(n: int) -> list[int]:
    """A handful of positions, evenly over n."""
    return [i * n // ASKED for i in range(ASKED)] if n > ASKED else list(range(n))


@exact_products()
def nearest(queries: Tensor, candidates: Tensor, pairs: Tensor) -> dict[int, list[Answer]]:
    """queries: [q e], candidates: [c e], pairs: [2 p] of right answers -> a handful of queries with their best answers.

    The best right one follows where it is not among them.
    """
    answers = {}
    for i in spread(len(queries)):
        scores = candidates @ queries[i]
        own = pairs[1][pairs[0] == i]
        found = scores.topk(min(ANSWERS, len(candidates))).indices
        listed = [Answer(j, float(scores[j]), rank, bool((own == j).any())) for rank, j in enumerate(found.tolist(), 1)]
        if len(own) and not any(answer.own for answer in listed):
            best = int(own[scores[own].argmax()])
            before = ~(scores < scores[best] - TIE)
            before[own] = False
            listed.append(Answer(best, float(scores[best]), int(before.sum()) + 1, True))
        answers[i] = listed
    return answers
