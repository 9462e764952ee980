"""Image-text retrieval: R@1, R@5, R@10 and median rank both ways (Karpathy's protocol; Radford et al. 2021, table 13).

The rule. A picture finds its text when any of its captions is among the first k; a text finds its picture when any
picture it belongs to is. Captions that are the same string are one text: one candidate, one query, and it belongs to
every picture that carries it. A wrong candidate that ties with the best right one stands before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import TIE, Evaluator, EvaluatorConfig, thumbnail
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery, Line, Panel

BLOCK = 2048  # pictures and texts compared at once: 16 MiB of scores
ASKED, ANSWERS = 8, 5  # pictures and texts shown in the report, and how many answers for each


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(EvaluatorConfig):
    """`data` needs pictures and captions, any number for each picture."""

    kind: ClassVar[str] = "retrieval"

    data: SourceConfig = field(default_factory=SourceConfig)

    def build(self) -> "Retrieval":
        return Retrieval(self, self.data.build())


class Retrieval(Evaluator):
    """Yields {image_to_text,text_to_image}/{R@1,R@5,R@10,median_rank}; the best rank is 1."""

    def __init__(self, config: RetrievalConfig, source: Source) -> None:
        missing = {"image", "captions"} - source.provides
        if missing:
            raise ValueError(f"retrieval: the data has no {' and no '.join(sorted(missing))}")
        self.title = "/".join(filter(None, (config.kind, config.name)))
        self.source = source
        self.indices: list[int] = []  # of the pictures that could be read
        self.texts: list[str] = []  # distinct
        self.pairs = torch.empty(2, 0, dtype=torch.long)  # [2 p]: picture's place in `indices`, text's in `texts`
        self.nearest_texts: dict[int, tuple[list[float], list[int]]] = {}  # a few pictures -> scores and texts
        self.nearest_pictures: dict[int, tuple[list[float], list[int]]] = {}

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
        for direction, ranks in zip(
            ("image_to_text", "text_to_image"),
            ranks_both_ways(images, texts, self.pairs, device=embedder.device),
            strict=True,
        ):
            for k in (1, 5, 10):
                yield f"{self.title}/{direction}/R@{k}", float((ranks < k).double().mean())
            yield f"{self.title}/{direction}/median_rank", float(np.median(ranks.numpy())) + 1
        self.nearest_texts = nearest(images, texts, spread(len(images)))
        self.nearest_pictures = nearest(texts, images, spread(len(texts)))

    def panels(self) -> list[Panel]:
        if not self.texts:
            return []
        own = {(int(i), int(t)) for i, t in self.pairs.T}
        asked = []
        for i, (scores, found) in self.nearest_texts.items():
            lines = [Line(self.texts[t], f"{score:.2f}", (i, t) in own) for score, t in zip(scores, found, strict=True)]
            asked.append(thumbnail(self.source, self.indices[i], tuple(lines), lines[0].mark))
        rows = []
        for t, (scores, found) in self.nearest_pictures.items():
            answers = zip(scores, found, strict=True)
            rows.append(
                (
                    f"“{self.texts[t]}”",
                    [
                        thumbnail(self.source, self.indices[i], (Line(f"{score:.2f}"),), (i, t) in own)
                        for score, i in answers
                    ],
                )
            )
        how = f"{len(self.indices):,} pictures, {len(self.texts):,} different captions."
        return [
            Gallery(
                f"{self.title}: nearest captions",
                [("", asked)],
                True,
                note=f"The picture's own captions are marked. {how}",
            ),
            Gallery(
                f"{self.title}: nearest pictures",
                rows,
                note="The best answers to a caption, best first; its own picture is framed in green.",
            ),
        ]


def distinct_texts(captions: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """Captions of each picture -> distinct texts in order of appearance, and pairs [2 p] (picture, text), each once."""
    number: dict[str, int] = {}
    pairs = {(i, number.setdefault(text, len(number))): None for i, some in enumerate(captions) for text in some}
    return list(number), torch.tensor(list(pairs), dtype=torch.long).view(-1, 2).T


def ranks_both_ways(
    images: Tensor, texts: Tensor, pairs: Tensor, *, device: torch.device | str = "cpu", block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """images: [n e], texts: [u e], unit vectors; pairs: [2 p] -> ranks from 0 of pictures with a caption, and of texts.

    In one pass over blocks of scores, which serve both directions; the whole n × u matrix is never there.
    """
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


def nearest(queries: Tensor, candidates: Tensor, asked: Sequence[int]) -> dict[int, tuple[list[float], list[int]]]:
    """queries: [q e], candidates: [c e] -> for each one asked, scores and positions of the best, best first."""
    scores, found = (queries[list(asked)] @ candidates.T).topk(min(ANSWERS, len(candidates)))
    return dict(zip(asked, zip(scores.tolist(), found.tolist(), strict=True), strict=True))
