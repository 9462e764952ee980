"""How near what belongs together lies, and how evenly everything is spread: alignment and uniformity.

Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere,
2020, section 4.1.2, with their alpha = 2 and t = 2. Both are better the lower they are, and a collapsed model has 0 for
both: alignment alone says nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pictura.data.batch_views import BatchView, BatchViewConfig
from pictura.data.batches import Batch
from pictura.data.randomness import random_generator
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import Evaluator, EvaluatorConfig, exact_products
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Panel, Table
from pictura.evaluation.taught import solving_device
from pictura.models.pictures import standardise_

BLOCK = 2048  # examples; block x block cosines are held at once


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig(EvaluatorConfig):
    """`data` needs pictures; where it has captions, and the model reads texts, the first one is a picture's pair.

    view: two random views of each picture are a pair too, as SimCLR trains on them; `seed` is that of their chances.
    """

    kind: ClassVar[str] = "alignment"

    data: SourceConfig
    view: BatchViewConfig | None = None
    seed: int = 0

    def build(self) -> "Alignment":
        """The evaluator, its data opened."""
        return Alignment(self.data.build(), self.name, None if self.view is None else self.view.build(), self.seed)


class Alignment(Evaluator):
    """Yields uniformity_image; with captions pairs, the alignment of pictures and captions, and uniformity_text; with a
    view views, the alignment of two views."""

    def __init__(self, source: Source, name: str = "", view: BatchView | None = None, seed: int = 0) -> None:
        if "image" not in source.provides:
            raise ValueError("alignment: the data has no image")
        self.title = f"alignment/{name}" if name else "alignment"
        self.source, self.view, self.seed = source, view, seed
        self.values: dict[str, float] = {}
        self.note = ""

    def check(self, model: Any) -> None:
        size = model.config.tower.image_size
        if self.view is not None and self.view.config.side(size, size) != size:
            raise ValueError(f"view.image_size: {self.view.config.image_size}, but the model sees {size}; leave it out")

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        images, captions = self.read(embedder)
        self.values, device = {}, solving_device(embedder)
        self.note = f"{len(images):,} examples; lower is better."
        if captions is not None:
            texts = embedder.texts(captions)
            self.values["pairs"] = alignment(images, texts)
        if self.view is not None:
            self.values["views"] = alignment(*self.viewed(embedder, self.view))
        self.values["uniformity_image"] = uniformity(images, device=device)
        if captions is not None:
            self.values["uniformity_text"] = uniformity(texts, device=device)
        for what, value in self.values.items():
            yield f"{self.title}/{what}", value

    def read(self, embedder: Embedder) -> tuple[Tensor, list[str] | None]:
        """Unit vectors [n e] and n captions, of the pictures that have one; None where there is nobody to read them."""
        reads = embedder.tokenizer is not None and "captions" in self.source.provides
        parts: list[Tensor] = []
        captions: list[str] = []
        for rows, batch in embedder.walk(self.source):
            if reads:
                first = [some[0] if some else "" for some in batch["captions"]]
                rows = rows[torch.tensor([bool(text) for text in first])]
                captions += filter(None, first)
            parts.append(rows)
        n = sum(map(len, parts))
        if n < 2:
            of = "picture with a caption" if reads else "picture"
            raise ValueError(f"{self.title}: the data has {n or 'no'} usable {of}; at least two are needed")
        return torch.cat(parts), captions if reads else None

    def viewed(self, embedder: Embedder, view: BatchView) -> tuple[Tensor, Tensor]:
        """Unit vectors of two views of every picture, [n e] each."""

        def twice(image: Tensor, batch: Batch) -> Tensor:
            generators = (random_generator(self.seed, 0, index, "views") for index in batch["index"].tolist())
            seeds = [int(generator.integers(2**63)) for generator in generators]
            return standardise_(view(image, seeds, 2), embedder.model.config)

        both = [rows.chunk(2) for rows, _ in embedder.walk(self.source, change=twice)]
        one, two = (torch.cat(some) for some in zip(*both, strict=True))
        return one, two

    def panels(self) -> list[Panel]:
        if not self.values:
            return []
        says = {
            "pairs": "alignment of pictures and captions: 0 where each lies on its own, 2 at right angles",
            "views": "alignment of two views of a picture",
            "uniformity_image": "uniformity of pictures: 0 where all are one, near -4 where all directions are used",
            "uniformity_text": "uniformity of captions",
        }
        rows = [(says[what], f"{value:.3f}") for what, value in self.values.items()]
        return [Table(self.title, ("measure", "value"), rows, note=self.note)]


def alignment(x: Tensor, y: Tensor) -> float:
    """x, y: [n e], unit vectors -> the mean of ||x - y||^2 over the pairs, of whatever belongs together."""
    blocks = zip(x.split(BLOCK), y.split(BLOCK), strict=True)
    return float(sum((a - b).square().sum(dtype=torch.float64) for a, b in blocks)) / len(x)


@exact_products()
def uniformity(x: Tensor, *, device: torch.device | str = "cpu") -> float:
    """x: [n e], unit vectors -> log of the mean of exp(-2 ||x_i - x_j||^2) over i < j; in blocks, never [n n]."""
    x = x.to(device)
    n, total = len(x), 0.0
    for i in range(0, n, BLOCK):
        for j in range(i, n, BLOCK):
            near = (4 * (x[i : i + BLOCK] @ x[j : j + BLOCK].T) - 4).exp()  # of unit vectors, ||a - b||^2 = 2 - 2 a.b
            total += float((near.triu(1) if i == j else near).sum(dtype=torch.float64))
    return math.log(total / (n * (n - 1) / 2))
