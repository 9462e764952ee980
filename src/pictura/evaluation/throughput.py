"""How fast a model reads pictures and texts on this machine."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pictura.data.source import Example, Source, SourceConfig
from pictura.data.wrapper import Wrapper
from pictura.evaluation.base import Evaluator, EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Panel

TEXTS = 512
TEXT = "{} things of many colours, in a photo"  # what texts share at their beginning is computed once


@dataclass(frozen=True, kw_only=True)
class ThroughputConfig(EvaluatorConfig):
    """Of the first `pictures` of `data`, decoded and prepared as the model wants them."""

    kind: ClassVar[str] = "throughput"

    data: SourceConfig
    pictures: int = 512

    def __post_init__(self) -> None:
        if self.pictures < 1:
            raise ValueError(f"pictures: {self.pictures} is below 1; try 512")

    def build(self) -> "Throughput":
        """The evaluator, its data opened."""
        return Throughput(self.data.build(), self.pictures, self.name)


class First(Wrapper):
    """The first `count` examples of a source."""

    def __init__(self, source: Source, count: int) -> None:
        self.source, self.count = source, min(count, len(source))
        self.provides, self.class_names, self.bad = source.provides, source.class_names, source.bad

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        return self.source[index]


class Throughput(Evaluator):
    """Yields `pictures_per_second`, from files or bytes to vectors, and for models that read texts alone
    `texts_per_second`, of a dozen tokens. The first batch is not timed. Figures of a busy machine say little."""

    def __init__(self, source: Source, pictures: int, name: str = "") -> None:
        if "image" not in source.provides:
            raise ValueError("throughput: the data has no image")
        self.title = f"throughput/{name}" if name else "throughput"
        self.source = First(source, pictures)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        done, began, first = 0, time.perf_counter(), 0
        for number, (rows, _) in enumerate(embedder.walk(self.source)):
            done += len(rows)
            if not number and len(self.source) > len(rows):
                began, first = time.perf_counter(), done
        if done == first:
            raise ValueError(f"{self.title}: the data has no usable picture")
        yield f"{self.title}/pictures_per_second", (done - first) / (time.perf_counter() - began)
        if embedder.tokenizer is not None and hasattr(embedder.model, "encode_text"):
            texts = [TEXT.format(word(number)) for number in range(2 * TEXTS)]
            embedder.texts(texts[:TEXTS])
            began = time.perf_counter()
            embedder.texts(texts[TEXTS:])
            yield f"{self.title}/texts_per_second", TEXTS / (time.perf_counter() - began)

    def panels(self) -> list[Panel]:
        return []


def word(number: int) -> str:
    """Letters for a number, those that change most first."""
    return "".join(chr(ord("a") + number // 26**place % 26) for place in range(3))
