"""Retrieval by a model that reads a picture and a text together: all pairs are scored, or those alone that a faster
model, with a vector for each picture and each text, has put first (ViLT, Kim et al. 2021, section 4.4).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pictura.data.batches import Batch, ordered, prefetch
from pictura.data.source import Source
from pictura.data.text import Tokenizer
from pictura.evaluation.base import TIE, exact_products
from pictura.evaluation.embed import Embedder, evaluating
from pictura.evaluation.ranks import Judged, listed, ranks_both_ways, spread

PAIRS_AT_ONCE = 256
BLOCK = 1024  # queries whose candidates are looked for at once


class Shortlist(NamedTuple):
    """queries: [q], their places; candidates: [q k], the places of those that are looked at for each; ranks: [q], from
    0, that the best right one has among all, by whoever chose them."""

    queries: Tensor
    candidates: Tensor
    ranks: Tensor


class Pairs:
    """Judges by what a model says of a picture and a text together: `walk` over the pictures, then `judged`.

    first: a model with its tokenizer that embeds both alone, of which the `top` for each query are looked at again.
    """

    def __init__(self, first: tuple[Any, Tokenizer | None] | None, top: int) -> None:
        self.first, self.top = first, top

    def walk(self, embedder: Embedder, source: Source) -> Iterator[Batch]:
        """The batches of `source`, without their pictures."""
        if self.first is None:
            for batch in ordered(source, embedder.view, None, embedder.batch_size, embedder.workers, bad=embedder.bad):
                yield {key: value for key, value in batch.items() if key != "image"}
            return
        model, tokenizer = self.first
        self.embedder = Embedder(
            model.to(embedder.device), tokenizer, device=embedder.device, batch_size=embedder.batch_size,
            workers=embedder.workers, progress=embedder.progress,
        )  # fmt: skip
        self.embedder.bad, self.parts = embedder.bad, list[Tensor]()
        for features, batch in self.embedder.walk(source):
            self.parts.append(features)
            yield batch

    def judged(self, embedder: Embedder, source: Source, texts: Sequence[str], pairs: Tensor) -> tuple[Judged, Judged]:
        """pairs: [2 p], (picture, text) -> pictures that look for their texts, texts that look for their pictures."""
        one, two = self._shortlists(texts, pairs)
        u, right = len(texts), pairs[0] * len(texts) + pairs[1]
        codes = [one.queries[:, None] * u + one.candidates, two.candidates * u + two.queries[:, None]]
        wanted = torch.cat([code.flatten() for code in codes]).unique()
        scores = pair_scores(embedder, source, texts, torch.stack([wanted // u, wanted % u]))
        first, second = (
            judged(s, scores[torch.searchsorted(wanted, c)], torch.isin(c, right))
            for s, c in zip((one, two), codes, strict=True)
        )
        return first, second

    def _shortlists(self, texts: Sequence[str], pairs: Tensor) -> tuple[Shortlist, Shortlist]:
        queries = pairs[0].unique(), torch.arange(len(texts))
        if self.first is None:  # everybody looks at everything
            every = queries[1], torch.arange(int(pairs[0].max()) + 1)
            one, two = (
                Shortlist(q, c.expand(len(q), -1), torch.zeros_like(q)) for q, c in zip(queries, every, strict=True)
            )
            return one, two
        images, words = torch.cat(self.parts), self.embedder.texts(texts)
        ranks = ranks_both_ways(images, words, pairs, device=self.embedder.device)
        nearest = top_of(images[queries[0]], words, self.top), top_of(words, images, self.top)
        one, two = (Shortlist(*parts) for parts in zip(queries, nearest, ranks, strict=True))
        return one, two


@exact_products()
def top_of(queries: Tensor, candidates: Tensor, k: int) -> Tensor:
    """[q e], [c e], unit vectors -> [q k], the places of the nearest."""
    k = min(k, len(candidates))
    return torch.cat([(block @ candidates.T).topk(k).indices for block in queries.split(BLOCK)])


def judged(shortlist: Shortlist, scores: Tensor, own: Tensor) -> Judged:
    """scores: [q k] of the candidates, own: [q k], which of them are right.

    A query none of whose candidates is right keeps the rank that it had. A wrong candidate that ties stands before.
    """
    best = scores.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
    before = (~(scores < best - TIE) & ~own).sum(1)
    ranks = torch.where(own.any(1), before, shortlist.ranks)
    answers = {}
    for i in spread(len(shortlist.queries)):
        places = shortlist.candidates[i]
        answers[int(shortlist.queries[i])] = listed(scores[i], places, places[own[i]])
    return Judged(ranks, answers)


def check_matches(model: Any) -> None:
    """ValueError for a model that cannot say whether a picture and a text match."""
    if not {"rank", "matching"} & set(getattr(model, "heads", ())):
        raise ValueError(
            f"this model ({model.config.kind}) has no head for rank or matching; train a vilt with tasks: [matching]"
        )


def pair_scores(embedder: Embedder, source: Source, texts: Sequence[str], pairs: Tensor) -> Tensor:
    """pairs: [2 p], (picture, text) in rising order, a picture being its place among those of `source` that can be
    read -> [p] float32, higher where they match.

    A few hundred pairs at a time; patches of a picture are computed once for all of its texts in such a batch.
    """
    assert embedder.tokenizer is not None
    ids = embedder.tokenizer(texts, embedder.model.config.text.context_length)
    scores, done, first = torch.empty(pairs.shape[1]), 0, 0
    batches = ordered(source, embedder.view, None, embedder.batch_size, embedder.workers, bad=embedder.bad)
    for batch in prefetch(batches, embedder.device):
        last = first + len(batch["index"])
        end = int(torch.searchsorted(pairs[0].contiguous(), last))
        for at in range(done, end, PAIRS_AT_ONCE):
            pictures, rows = pairs[:, at : min(at + PAIRS_AT_ONCE, end)]
            some = batch["image"][int(pictures[0]) - first : int(pictures[-1]) - first + 1]
            asked = ids[rows]
            asked = asked[:, : int((asked > 0).any(0).sum())].to(embedder.device)
            with evaluating(embedder.model), torch.inference_mode():
                scores[at : at + len(rows)] = embedder.model.match(some, asked, pictures - pictures[0]).float().cpu()
            embedder.tell("pairs", at + len(rows), pairs.shape[1])
        first, done = last, end
    return scores
