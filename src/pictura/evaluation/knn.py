"""What the neighbours say: a picture's class by a vote of the training pictures nearest to it, nothing being fitted.

Each of the k nearest training pictures votes for its class with exp(cosine / temperature) (Wu et al., Unsupervised
Feature Learning via Non-Parametric Instance Discrimination, 2018, section 3.4, who take k = 200 and temperature 0.07).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pictura.data.batches import Batch
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import TIE, EvaluatorConfig, exact_products
from pictura.evaluation.embed import Embedder
from pictura.evaluation.labelled import Labelled, check_labelled, matched
from pictura.evaluation.taught import read_of, solving_device, taught

BLOCK = 8192  # training pictures at once


@dataclass(frozen=True, kw_only=True)
class KNNConfig(EvaluatorConfig):
    """`train` and `test` need pictures and labels of the same classes.

    k: neighbours that vote; all training pictures where there are fewer. layer: a stage of the picture tower, -1 the
    last; None takes what the model itself ends with.
    """

    kind: ClassVar[str] = "knn"

    train: SourceConfig
    test: SourceConfig
    k: int = 200
    temperature: float = 0.1
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k: {self.k} neighbours cannot vote; at least 1, and 20 or 200 are common")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: {self.temperature} must be above zero; try 0.1")

    def build(self) -> "KNN":
        """The evaluator, its data opened."""
        return KNN(self.train.build(), self.test.build(), self.k, self.temperature, self.layer, self.name)


class KNN(Labelled):
    """A class is scored by its votes; features of the training pictures are held, and a block of cosines."""

    def __init__(
        self,
        train: Source,
        test: Source,
        k: int = 200,
        temperature: float = 0.1,
        layer: int | None = None,
        name: str = "",
    ) -> None:
        title = f"knn/{name}" if name else "knn"
        super().__init__(test, title, train.class_names or test.class_names)
        check_labelled(train, f"{title}: train")
        self.train, self.k, self.temperature, self.layer = train, k, temperature, layer
        self.order = matched(test.class_names, train.class_names, title, ("test", "train"))

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        x, label, self.names = taught(embedder, self.train, self.source, self.layer, self.title)
        device = solving_device(embedder)
        x, label = x.to(device), label.to(device)
        layer = "" if self.layer is None else f" in layer {self.layer}"
        self.how = f"by vote of the nearest {min(self.k, len(x)):,}{layer} of {len(x):,} other pictures"

        def scored() -> Iterator[tuple[Tensor, Batch]]:
            for rows, batch in embedder.walk(self.source, read_of(self.layer)):
                yield votes(rows.to(device), x, label, len(self.names), self.k, self.temperature).cpu(), batch

        yield from self.tally(scored(), 1 / self.temperature, self.order)


@exact_products()
def votes(rows: Tensor, x: Tensor, label: Tensor, classes: int, k: int, temperature: float) -> Tensor:
    """rows: [b d], x: [n d], unit vectors; label: [n] -> temperature × log of the votes for each class, [b classes].

    So a score is a cosine, as exact as one, and a softmax of scores / temperature is each class's share of the votes.
    Pictures that tie for the last places share them: which of them came first would be chance, or the order of files.
    """
    k = min(k, len(x))
    cosine, place = nearest(rows, x, k + 1)  # one more, to see whether it ties
    first, last = cosine[:, :1].double(), cosine[:, k - 1 : k]
    tied = (last - cosine[:, k:] <= TIE).any(1)
    clear = (cosine[:, :k] > last + TIE) | ~tied[:, None]
    weight = ((cosine[:, :k] - first) / temperature).exp() * clear  # at most 1, whatever the temperature
    counts = weight.new_zeros(len(rows), classes).scatter_add_(1, label[place[:, :k]], weight)
    if tied.any():
        crowd = level(rows[tied], last[tied], x, label, classes)
        seats = (~clear[tied]).sum(1, keepdim=True)
        share = seats * crowd / crowd.sum(1, keepdim=True)
        counts[tied] += share * ((last[tied] - first[tied]) / temperature).exp()
    return (first + temperature * counts.log()).float()


def level(rows: Tensor, cosine: Tensor, x: Tensor, label: Tensor, classes: int) -> Tensor:
    """rows: [b d], cosine: [b 1] -> how many of x: [n d] in each class are just as near, [b classes] float64."""
    counts = rows.new_zeros(len(rows), classes, dtype=torch.float64)
    for part, of in zip(x.split(BLOCK), label.split(BLOCK), strict=True):
        counts.index_add_(1, of, ((rows @ part.T - cosine).abs() <= TIE).double())
    return counts


def nearest(rows: Tensor, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """rows: [b d], x: [n d] -> cosines and places in x of the k nearest, or of all, [b k], nearest first."""
    best, place = rows.new_empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.long, device=rows.device)
    for begin in range(0, len(x), BLOCK):
        part = x[begin : begin + BLOCK]
        here = torch.arange(begin, begin + len(part), device=rows.device).expand(len(rows), -1)
        best, found = torch.cat([best, rows @ part.T], 1).topk(min(k, best.shape[1] + len(part)))
        place = torch.cat([place, here], 1).gather(1, found)
    return best, place
