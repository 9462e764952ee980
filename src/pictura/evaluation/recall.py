"""Who stands where among all candidates, by vectors of pictures and of texts: what retrieval is measured by."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pictura.data.batches import Batch
from pictura.data.source import Source
from pictura.evaluation.base import TIE, exact_products
from pictura.evaluation.embed import Embedder

ASKED, ANSWERS = 8, 5  # pictures and texts shown in a report, and how many answers for each


class Answer(NamedTuple):
    """A candidate for one query, for the report."""

    place: int
    score: float
    rank: int  # from 1
    own: bool

    def says(self) -> str:
        return f"{self.score:.2f}" if self.rank <= ANSWERS else f"rank {self.rank:,} · {self.score:.2f}"


class Ranking(NamedTuple):
    """ranks: [q], from 0, of each query's best right answer; answers: of a handful of queries, by their place."""

    ranks: Tensor
    answers: dict[int, list[Answer]]


class ByVectors:
    """Ranks by cosines: `walk` over the pictures, then `rankings`."""

    def walk(self, embedder: Embedder, source: Source) -> Iterator[Batch]:
        """The batches of `source`, without their pictures, whose vectors are kept here."""
        self.parts = list[Tensor]()
        for features, batch in embedder.walk(source):
            self.parts.append(features)
            yield batch

    def rankings(
        self, embedder: Embedder, source: Source, texts: Sequence[str], pairs: Tensor
    ) -> tuple[Ranking, Ranking]:
        """pairs: [2 p], (picture, text) -> pictures that look for their texts, texts that look for their pictures."""
        images, words = torch.cat(self.parts), embedder.texts(texts)
        one, two = ranks_both_ways(images, words, pairs, device=embedder.device)
        return Ranking(one, nearest(images, words, pairs)), Ranking(two, nearest(words, images, pairs.flip(0)))


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
    places = torch.arange(len(candidates))
    return {i: listed(candidates @ queries[i], places, pairs[1][pairs[0] == i]) for i in spread(len(queries))}


def listed(scores: Tensor, places: Tensor, own: Tensor) -> list[Answer]:
    """scores: [c] of the candidates at `places`: [c], own: the places of right ones -> the best, and the best right
    one behind them, where it is not among them."""
    right = torch.isin(places, own)
    found = scores.topk(min(ANSWERS, len(places))).indices.tolist()
    answers = [Answer(int(places[j]), float(scores[j]), rank, bool(right[j])) for rank, j in enumerate(found, 1)]
    if right.any() and not any(answer.own for answer in answers):
        best = int(scores.masked_fill(~right, -torch.inf).argmax())
        before = ~(scores < scores[best] - TIE) & ~right
        answers.append(Answer(int(places[best]), float(scores[best]), int(before.sum()) + 1, True))
    return answers
