"""Zero-shot classification (Radford et al. 2021, section 3.1): the class whose name, put in sentences, lies nearest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from pictura.data.batches import Batch
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import EvaluatorConfig, check_reads_texts, exact_products
from pictura.evaluation.embed import Embedder
from pictura.evaluation.labelled import Labelled, check_labelled
from pictura.evaluation.prompts import fill, templates_of


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig(EvaluatorConfig):
    """`templates`: a set's name (plain, photo, simple, imagenet, scene), one template or several.

    `class_names` replace the data's own, in the order of its labels.
    """

    kind: ClassVar[str] = "zeroshot"

    data: SourceConfig
    templates: str | tuple[str, ...] = "simple"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        templates_of(self.templates)

    def build(self) -> "ZeroShot":
        """The evaluator, its data opened."""
        return ZeroShot(self.data.build(), self.templates, self.class_names, self.name)


class ZeroShot(Labelled):
    """Each class is scored by the cosine of the picture and its sentences."""

    def __init__(
        self,
        source: Source,
        templates: str | Sequence[str] = "simple",
        class_names: Sequence[str] = (),
        name: str = "",
    ) -> None:
        check_labelled(source, "zeroshot")
        names = tuple(class_names or source.class_names)
        if len(names) < 2:
            raise ValueError("zeroshot: needs at least two class names, from the data or as `class_names`")
        if source.class_names and len(names) != len(source.class_names):
            raise ValueError(f"class_names: {len(names)} given, but the data has {len(source.class_names)} classes")
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise ValueError(f"class_names: {twice!r} names two classes; give each its own words")
        super().__init__(source, f"zeroshot/{name}" if name else "zeroshot", names)
        self.templates = templates_of(templates)
        several = len(self.templates) > 1
        self.how = f"{len(self.templates)} sentences for each" if several else f"asked as “{self.templates[0]}”"

    def check(self, model: Any) -> None:
        check_reads_texts(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        classes = classifier(embedder, self.names, self.templates)

        def scored() -> Iterator[tuple[Tensor, Batch]]:
            for features, batch in embedder.walk(self.source):
                with exact_products():
                    scores = features @ classes
                yield scores, batch

        yield from self.tally(scored(), embedder.scale)


def classifier(embedder: Embedder, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """k class names × templates -> [e k]: each text of unit length, their mean over templates, of unit length again."""
    texts = embedder.texts([fill(template, name) for name in names for template in templates])
    return F.normalize(texts.view(len(names), len(templates), -1).mean(1), dim=-1).T
