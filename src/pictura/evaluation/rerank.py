"""Retrieval by a model that reads a picture and a text together: all pairs are scored, or those alone that a faster
model, with a vector for each picture and each text, has put first (ViLT, Kim et al. 2021, section 4.4).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pictura.data.batches import Batch, ordered, prefetch
from pictura.data.source import Source
from pictura.data.text import Tokenizer
from pictura.evaluation.base import TIE, exact_products
from pictura.evaluation.embed import Embedder, evaluating
from pictura.evaluation.recall import Ranking, listed, ranks_both_ways, spread

PAIRS_AT_ONCE = 256
BLOCK = 1024  # queries whose candidates are looked for at once


class Shortlist(NamedTuple):
    """queries: [q], their places; candidates: [q k], the places of those that are looked at for each; ranks: [q], from
    0, that the best right one has among all, by whoever chose them."""

    queries: Tensor
    candidates: Tensor
    ranks: Tensor


class ByPairs:
    """Ranks by what a model says of a picture and a text together: `walk` over the pictures, then `rankings`.

    first: a model with its tokenizer that embeds both alone, of which the `top` for each query are looked at again.
    """

    def __init__(self, first: tuple[Any, Tokenizer | None] | None, top: int) -> None:
        self.first, self.top = first, top

    def walk(self, embedder: Embedder, source: Source) -> Iterator[Batch]:
        """The batches of `source`, without their pictures."""
        self.indices, self.parts = list[int](), list[Tensor]()
        if self.first is None:
            batches = ordered(source, embedder.view, None, embedder.batch_size, embedder.workers, bad=embedder.bad)
            for batch in batches:
                self.indices += batch["index"].tolist()
                yield {key: value for key, value in batch.items() if key != "image"}
            return
        model, tokenizer = self.first
        self.embedder = Embedder(
            model.to(embedder.device), tokenizer, device=embedder.device, batch_size=embedder.batch_size,
            workers=embedder.workers, progress=embedder.progress,
        )  # fmt: skip
        self.embedder.bad = embedder.bad
        for features, batch in self.embedder.walk(source):
            self.indices += batch["index"].tolist()
            self.parts.append(features)
            yield batch

    def rankings(
        self, embedder: Embedder, source: Source, texts: Sequence[str], pairs: Tensor
    ) -> tuple[Ranking, Ranking]:
        """pairs: [2 p], (picture, text) -> pictures that look for their texts, texts that look for their pictures."""
        n, u, places = len(self.indices), len(texts), {index: place for place, index in enumerate(self.indices)}
        if self.first is None:
            every = torch.arange(u)
            scores = torch.stack(pair_scores(embedder, source, places, texts, [every] * n))
            own = torch.zeros(n, u, dtype=torch.bool)
            own[pairs[0], pairs[1]] = True
            asked = pairs[0].unique()
            one = Shortlist(asked, every.expand(len(asked), u), torch.zeros_like(asked))
            two = Shortlist(every, torch.arange(n).expand(u, n), torch.zeros_like(every))
            return ranking(one, scores[asked], own[asked]), ranking(two, scores.T, own.T)
        one, two = self._shortlists(texts, pairs)
        codes = one.queries[:, None] * u + one.candidates, two.candidates * u + two.queries[:, None]
        wanted = torch.cat([code.flatten() for code in codes]).unique()
        candidates = (wanted % u).split((wanted // u).bincount(minlength=n).tolist())
        scores = torch.cat(pair_scores(embedder, source, places, texts, candidates))
        right = pairs[0] * u + pairs[1]
        found = [(scores[torch.searchsorted(wanted, code)], torch.isin(code, right)) for code in codes]
        return ranking(one, *found[0]), ranking(two, *found[1])

    def _shortlists(self, texts: Sequence[str], pairs: Tensor) -> tuple[Shortlist, Shortlist]:
        asked, images, words = pairs[0].unique(), torch.cat(self.parts), self.embedder.texts(texts)
        self.embedder.model.to("cpu")  # its memory is wanted by the other one
        one, two = ranks_both_ways(images, words, pairs, device=self.embedder.device)
        to_texts, to_images = top_of(images[asked], words, self.top), top_of(words, images, self.top)
        return Shortlist(asked, to_texts, one), Shortlist(torch.arange(len(texts)), to_images, two)


def check_matches(model: Any) -> None:
    """ValueError for a model that cannot say whether a picture and a text match."""
    if not {"rank", "matching"} & set(getattr(model, "heads", ())):
        raise ValueError(
            f"this model ({model.config.kind}) has no head for rank or matching; train a vilt with tasks: [matching]"
        )


def pair_scores(
    embedder: Embedder, source: Source, places: Mapping[int, int], texts: Sequence[str], candidates: Sequence[Tensor]
) -> list[Tensor]:
    """places: of each index of `source` that matters, its picture's place; candidates: of each place [k] texts -> of
    each place [k] float32, higher where they match; NaN where a picture cannot be read.

    A few hundred pairs at a time; a picture is embedded once for all of its texts among these.
    """
    assert embedder.tokenizer is not None
    config = embedder.model.config.text
    ids = embedder.tokenizer(texts, config.context_length)
    last, total = config.ends(ids), sum(map(len, candidates))
    scores, done = [torch.full((len(some),), torch.nan) for some in candidates], 0
    batches = ordered(source, embedder.view, None, embedder.batch_size, embedder.workers, bad=embedder.bad)
    for batch in prefetch(batches, embedder.device):
        rows = {row: places[i] for row, i in enumerate(batch["index"].tolist()) if i in places}
        counts = [len(candidates[place]) for place in rows.values()]
        if not sum(counts):
            continue
        texts_of = torch.cat([candidates[place] for place in rows.values()])
        pictures_of = torch.tensor(list(rows)).repeat_interleave(torch.tensor(counts))
        found = []
        for text, row in zip(texts_of.split(PAIRS_AT_ONCE), pictures_of.split(PAIRS_AT_ONCE), strict=True):
            seen, which = row.unique(return_inverse=True)
            image = [batch["image"][i] for i in seen.tolist()]
            words = ids[text][:, : int(last[text].max()) + 1].to(embedder.device)
            with evaluating(embedder.model), torch.inference_mode():
                found.append(embedder.model.match(image, words, which).float().cpu())
            done += len(text)
            embedder.tell("pairs", done, total)
        for place, part in zip(rows.values(), torch.cat(found).split(counts), strict=True):
            scores[place] = part
    return scores


@exact_products()
def top_of(queries: Tensor, candidates: Tensor, k: int) -> Tensor:
    """[q e], [c e], unit vectors -> [q k], the places of the nearest."""
    k = min(k, len(candidates))
    return torch.cat([(block @ candidates.T).topk(k).indices for block in queries.split(BLOCK)])


def ranking(shortlist: Shortlist, scores: Tensor, own: Tensor) -> Ranking:
    """scores: [q k] of the candidates, own: [q k], which of them are right.

    A query none of whose candidates is right keeps the rank that it had. A wrong candidate whose score is the same as
    that of the best right one stands before it, and so does one whose score is no number.
    """
    best = scores.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
    before = (~(scores < best - TIE) & ~own).sum(1)
    ranks = torch.where(own.any(1), before, shortlist.ranks)
    answers = {}
    for i in spread(len(shortlist.queries)):
        places = shortlist.candidates[i]
        answers[int(shortlist.queries[i])] = listed(scores[i], places, places[own[i]])
    return Ranking(ranks, answers)
