"""Beam search (Sutskever et al., Sequence to Sequence Learning with Neural Networks, 2014, section 3.2), for all
pictures of a batch at once.

The best `beams` beginnings go on, token by token; one that ends leaves the beam, which gets narrower, and is kept.
Captions of different lengths are compared as in ClipCap's released code, by the mean of the tokens' log-probabilities
(a `length_penalty` of 1); beginnings, which are of one length, by the sum.
"""

from collections.abc import Callable
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

Further = Callable[[Tensor, Tensor], Tensor]


class Caption(NamedTuple):
    """ids: of its tokens, without the start and the end; score: log-probability, its end included, by its length."""

    ids: list[int]
    score: float


def check_search(beams: int, longest: int, most: int, length_penalty: float) -> None:
    """ValueError for a search that cannot be; `most` tokens, the end included, are what the model can say."""
    if beams < 1:
        raise ValueError(f"beams: {beams} is below 1; 1 is greedy, 5 is usual")
    if not 1 <= longest <= most:
        raise ValueError(f"longest: {longest} tokens; this model says from 1 to {most}, the end included")
    if not 0 <= length_penalty < inf:
        raise ValueError(f"length_penalty: {length_penalty} must be at least 0; 0 is none, 1 the mean over tokens")


def beam_search(
    first: Tensor, further: Further, *, beams: int, longest: int, end: int, length_penalty: float = 0.0
) -> list[Caption]:
    """first: [b k], scores of each picture's first token before softmax -> the best caption found for each.

    further(rows: [b·beams], tokens: [b·beams]): the beams that go on, by their places among the b·beams before, and
    what each says now -> scores of the next token, [b·beams k]. A caption of n tokens, its end included, at most
    `longest`, has its summed log-probability / n^length_penalty as its score; one that is not at its end by then ends
    there. Greedy with one beam, exhaustive with so many that none is left out. No tie is broken by chance. Where scores
    are no numbers the caption is empty and its score -inf.
    """
    b, k = first.shape
    scores = first[:, None].expand(b, beams, k)
    picture = torch.arange(b, device=first.device)[:, None]
    sums = first.new_full((b, beams), -inf, dtype=torch.float32)
    sums[:, 0] = 0.0  # one beginning; the other beams are empty
    said = torch.empty(b, beams, 0, dtype=torch.long, device=first.device)
    best = torch.full((b, longest), end, device=first.device)
    best_score = torch.full_like(sums[:, 0], -inf)
    only_end = torch.arange(k, device=first.device) != end
    for n in range(1, longest + 1):
        steps = scores.float().log_softmax(-1)
        if n == longest:
            steps = steps.masked_fill(only_end, -inf)
        sums, place = (sums[..., None] + steps).flatten(1).topk(beams)
        origin, token = place // k, place % k
        said = torch.cat([said[picture, origin], token[..., None]], -1)
        ended = token == end
        score, which = (sums / n**length_penalty).masked_fill(~ended, -inf).max(1)
        better = score > best_score
        best_score = torch.where(better, score, best_score)
        best[:, :n] = torch.where(better[:, None], said[picture[:, 0], which], best[:, :n])
        sums = sums.masked_fill(ended, -inf)
        # What goes on can only become less likely, and at most `longest` tokens long.
        if n == longest or bool((best_score >= sums.max(1).values / longest**length_penalty).all()):
            break
        scores = further((picture * beams + origin).flatten(), token.flatten()).view(b, beams, k)
    rows = zip(best.tolist(), best_score.tolist(), strict=True)
    return [Caption(row[: row.index(end)] if end in row else row, score) for row, score in rows]
