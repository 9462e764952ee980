"""How much a model's features know: a linear classifier on them, frozen, trained on some pictures and asked on others.

The common measure of features learnt without labels (SimCLR, section 2.3 and appendix B.8; CLIP, appendix A.3), here
without augmentation: each training picture is read once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pictura.data.batches import Batch
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.labelled import Labelled, check_labelled, matched
from pictura.evaluation.linear_fit import Solver, fit
from pictura.evaluation.taught import read_of, solving_device, taught


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(EvaluatorConfig):
    """`train` and `test` need pictures and labels of the same classes.

    solver: `ridge`, in closed form, or `logistic`, which takes longer and is mostly a little better. layer: a stage of
    the picture tower, -1 the last; None takes what the model itself ends with.
    """

    kind: ClassVar[str] = "probe"

    train: SourceConfig
    test: SourceConfig
    solver: Solver = "ridge"
    layer: int | None = None

    def build(self) -> "Probe":
        """The evaluator, its data opened."""
        return Probe(self.train.build(), self.test.build(), self.solver, self.layer, self.name)


class Probe(Labelled):
    """Yields `l2` too, the strength of the penalty that was best on a fifth of the training pictures."""

    def __init__(
        self, train: Source, test: Source, solver: Solver = "ridge", layer: int | None = None, name: str = ""
    ) -> None:
        title = f"probe/{name}" if name else "probe"
        super().__init__(test, title, train.class_names or test.class_names)
        check_labelled(train, f"{title}: train")
        self.train, self.solver, self.layer = train, solver, layer
        self.order = matched(test.class_names, train.class_names, title, ("test", "train"))

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        x, label, self.names = taught(embedder, self.train, self.source, self.layer, self.title)
        device = solving_device(embedder)
        try:
            linear, l2 = fit(self.solver, x.to(device), label.to(device), len(self.names))
        except ValueError as error:
            raise ValueError(f"{self.title}: train: {error}") from error
        layer = "" if self.layer is None else f" of layer {self.layer}"
        self.how = f"{self.solver} regression on features{layer} of {len(x):,} other pictures, l2 {l2:.2g}"

        def scored() -> Iterator[tuple[Tensor, Batch]]:
            for rows, batch in embedder.walk(self.source, read_of(self.layer)):
                yield linear(rows).cpu(), batch

        yield from self.tally(scored(), linear.scale, self.order)
        yield f"{self.title}/l2", l2
