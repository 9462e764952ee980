"""What an evaluator is: it looks at data through an `Embedder`, yields (name, value), and has panels for the report."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pictura.config import Config
from pictura.data.decode import decode
from pictura.data.source import BadSample, Source
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import THUMBNAIL, Line, Panel, Picture

TIE = 1e-6  # cosine scores of unit vectors in float32 are no better than this, so closer ones are equal


@dataclass(frozen=True, kw_only=True)
class EvaluatorConfig(Config, ABC):
    """A measurement, chosen by `kind`. `name` goes into its metrics: `zeroshot/<name>/top1`, else `zeroshot/top1`."""

    name: str = ""

    @abstractmethod
    def build(self) -> "Evaluator":
        """Open the data once; a user's mistake in naming it is a `ValueError` here, before anything is trained."""


class Evaluator(ABC):
    """Can be run again and again (validation during training); `panels` show the latest run."""

    def check(self, model: Any) -> None:  # noqa: B027  many measure any model
        """ValueError, before anything is trained, for a model that this cannot measure."""

    @abstractmethod
    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        """Yield (slash name, value)."""

    @abstractmethod
    def panels(self) -> list[Panel]:
        """What to look at after `run`; empty before."""

    def each(self) -> dict[str, Tensor]:
        """Of the latest run, the metrics that are means over examples: {metric: [n]}, in the order of the data."""
        return {}


def check_reads_texts(model: Any) -> None:
    """ValueError for a model that has nothing to do with words."""
    if not hasattr(model, "encode_text"):
        others = "questions, statements or retrieval" if hasattr(model, "heads") else "accuracy, probe or knn"
        raise ValueError(f"this model ({model.config.kind}) reads no texts alone; measure it by {others}")


def measure(evaluators: Mapping[str, Evaluator], embedder: Embedder) -> dict[str, float]:
    """Run all evaluators of a recipe, {key: evaluator} -> {metric: value}. ValueError when two yield the same name."""
    values: dict[str, float] = {}
    owner: dict[str, str] = {}
    for key, evaluator in evaluators.items():
        for metric, value in evaluator.run(embedder):
            if metric in owner:
                other = f"evaluation.{owner[metric]}"
                raise ValueError(f"evaluation.{key}: {metric} is measured by {other} too; give one of them a `name`")
            owner[metric], values[metric] = key, value
    return values


@contextmanager
def exact_products() -> Iterator[None]:
    """True float32 matrix products inside, whatever a run has set for speed: ranks hang on the last digits."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def outranked(scores: Tensor, own: Tensor) -> Tensor:
    """scores: [b n], of which own: [b] is the right one -> [b bool n], the others that are not clearly below it.

    A tie counts against the model, and so does a NaN: a collapsed or diverged model must not look good.
    """
    right = scores.gather(1, own[:, None])
    beats = ~(scores < right - TIE)
    return beats.scatter(1, own[:, None], False)


def thumbnail(source: Source, index: int, lines: tuple[Line, ...] = (), good: bool | None = None) -> Picture:
    """Example `index` as a small picture for the report."""
    try:
        example = source[index]
        image = decode(example["image"], at_least=THUMBNAIL, key=example["key"])
    except BadSample as bad:  # it was readable a moment ago; a report with a gap is better than no report
        return Picture(None, (Line(str(bad)), *lines), good)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return Picture(image, lines, good)
