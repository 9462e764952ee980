"""Phrases of a bank, ranked for pictures by a CLIP: captions without a model that writes any.

Texts are embedded and compared block by block, so that a million phrases need no more memory than their strings: of
vectors and scores there is one block at a time, and for each picture the best so far.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pictura.data.source import Source
from pictura.evaluation.base import check_reads_texts, exact_products
from pictura.evaluation.embed import Embedder, Picture

BLOCK = 16384  # phrases embedded at once
PICTURES = 1024  # pictures compared with them at once
LARGEST = 2**28  # bytes of a file; a million phrases have about 50 MB


def phrases_of(given: Path | str | Source) -> list[str]:
    """The bank in a text file, UTF-8, one phrase a line, or all captions of a source; each once, in order. ValueError
    for a file that is not there, too large or no UTF-8, and for a bank without a phrase."""
    lines = given.all_captions() if isinstance(given, Source) else _lines(Path(given).expanduser())
    bank = list(dict.fromkeys(phrase for line in lines if (phrase := " ".join(line.split()))))
    if not bank:
        whose = "the data" if isinstance(given, Source) else str(given)
        raise ValueError(f"{whose}: no phrase in it; give a text file with one on each line, or data with captions")
    return bank


def _lines(path: Path) -> Iterator[str]:
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"{path}: {size:,} bytes, more than the {LARGEST:,} that a bank of phrases may have")
        with path.open(encoding="utf-8-sig") as file:
            yield from file
    except OSError as error:
        raise ValueError(f"{path}: no bank of phrases there ({error.strerror}); give a text file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no UTF-8 text ({error.reason} at byte {error.start}); convert it") from None


def ranked(
    embedder: Embedder, pictures: Source | Sequence[Picture], bank: Sequence[str], top: int = 5
) -> list[list[tuple[str, float]]]:
    """For each of n pictures the `top` phrases of the bank, (phrase, cosine), the best first, equal ones in the bank's
    order. Of a source, bad pictures are left out; of a list, a bad one is a ValueError, as are a model that reads no
    texts alone, an empty bank, and a `top` below 1."""
    check_reads_texts(embedder.model)
    if isinstance(bank, str) or not bank:
        raise ValueError(f"bank: {bank!r} is no list of phrases; see `phrases_of`")
    if top < 1:
        raise ValueError(f"top: {top} is below 1; try 5")
    scores, places = nearest(embedder.images(pictures), blocks(embedder, bank), top)
    rows = zip(scores.tolist(), places.tolist(), strict=True)
    return [[(bank[place], score) for score, place in zip(*row, strict=True)] for row in rows]


def blocks(embedder: Embedder, bank: Sequence[str], size: int = BLOCK) -> Iterator[Tensor]:
    """The vectors of the bank's phrases, [m e], in their order, `size` of them at a time."""
    for begin in range(0, len(bank), size):
        yield embedder.texts(bank[begin : begin + size])


def nearest(images: Tensor, texts: Iterable[Tensor], top: int) -> tuple[Tensor, Tensor]:
    """images: [n e], texts: blocks [m e], unit vectors -> cosines and places among all texts, [n top] each (fewer where
    there are fewer texts), the best first. A cosine that is no number comes last."""
    best, where = images.new_empty(len(images), 0), torch.empty(len(images), 0, dtype=torch.long)
    begin = 0
    for block in texts:
        some = zip(images.split(PICTURES), best.split(PICTURES), where.split(PICTURES), strict=True)
        parts = [_merged(x, known, places, block, begin, top) for x, known, places in some]
        best, where = (torch.cat(column) for column in zip(*parts, strict=True))
        begin += len(block)
    return best, where


def _merged(images: Tensor, best: Tensor, where: Tensor, block: Tensor, begin: int, top: int) -> tuple[Tensor, Tensor]:
    """The best so far and their places, and a block of texts from place `begin` on -> the best now."""
    with exact_products():
        scores = images @ block.T
    scores = torch.cat([best, scores.masked_fill(scores.isnan(), -torch.inf)], 1)
    k, known = min(top, scores.shape[1]), best.shape[1]
    chosen = scores.topk(k).indices.sort(1).values  # first in the order of the bank, which a stable sort keeps
    kept, order = scores.gather(1, chosen).sort(dim=1, descending=True, stable=True)
    chosen = chosen.gather(1, order)
    earlier = where.gather(1, chosen.clamp(max=known - 1)) if known else chosen
    return kept, torch.where(chosen < known, earlier, chosen - known + begin)
