"""How many labelled pictures a model needs: a classifier from 1, 2, 4, … pictures of each class.

The measure of the vision transformers (Dosovitskiy et al. 2021, section 4.1 and figures 3 and 4): ridge regression in
closed form on frozen features. Its penalty is fixed, since one picture of a class leaves none to choose it by. Which
pictures are drawn matters much, so several draws are made, and the mean comes with its 95 % confidence interval.

Beside it, for a model that reads texts, zero-shot classification of the same pictures, below which a linear classifier
from one or two pictures falls (Radford et al. 2021, section 3.1.5 and figure 6), and methods that keep the names.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from pictura.data.randomness import random_generator
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.adapters import Method, Words, learnt, worded, zero_shot
from pictura.evaluation.base import Evaluator, EvaluatorConfig, check_reads_texts, outranked
from pictura.evaluation.embed import Embedder
from pictura.evaluation.intervals import half_width
from pictura.evaluation.labelled import check_labelled, matched, placed
from pictura.evaluation.panels import Panel, Table, percent
from pictura.evaluation.prompts import prompts_of
from pictura.evaluation.rise import Points, Rise
from pictura.evaluation.taught import labelled, solving_device, taught
from pictura.evaluation.zeroshot import Classifier, named

BLOCK = 8192  # pictures whose scores are held at once


@dataclass(frozen=True, kw_only=True)
class FewShotConfig(EvaluatorConfig):
    """`train` and `test` need pictures and labels of the same classes.

    shots: pictures of each class to learn from; those of a smaller number are among those of a larger one. draws: of
    these pictures, each a function of (seed, draw, class). l2: strength of the penalty, in the unit of `linear_fit`,
    the mean variance of a feature: 1 is good from 1 to 16 pictures, and weaker ones fit the noise of so few; logistic
    regression, whose loss is flatter, takes a hundredth of it. layer: a stage of the picture tower, -1 the last; None
    takes what the model itself ends with.
    methods: `ridge`, `logistic`; `prompt_ridge`, `prompt_logistic` and `cache`, which begin at the classes' names and
    have strengths of their own (`adapters`); `zeroshot`, the names alone, is there beside these anyhow. templates,
    class_names: as `zeroshot` has them, the names in the order of the labels.
    """

    kind: ClassVar[str] = "few_shot"

    train: SourceConfig
    test: SourceConfig
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    draws: int = 5
    l2: float = 1.0
    layer: int | None = None
    seed: int = 0
    methods: tuple[Method, ...] = ("ridge",)
    templates: str | tuple[str, ...] = "simple"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise((0, *self.shots)))
        if not self.shots or not rising:
            raise ValueError(f"shots: {list(self.shots)} must be rising numbers of pictures, such as [1, 2, 4, 8, 16]")
        if self.draws < 1:
            raise ValueError(f"draws: {self.draws} is below 1; try 5")
        if not 0 < self.l2 < math.inf:
            raise ValueError(f"l2: {self.l2} must be above zero; try 1")
        if len(set(self.methods)) < len(self.methods) or not set(self.methods) - {"zeroshot"}:
            raise ValueError(f"methods: {list(self.methods)} must be different ones that learn, such as [ridge, cache]")
        if self.layer is not None and worded(self.methods):
            raise ValueError(f"layer: {self.layer} has nothing to do with words, and methods has; leave it out")
        if prompts_of(self.templates).average != "vectors" and worded(self.methods):
            raise ValueError("templates: few_shot begins at one vector of each class; take a set that averages vectors")

    def build(self) -> "FewShot":
        """The evaluator, its data opened."""
        return FewShot(
            self.train.build(),
            self.test.build(),
            shots=self.shots,
            draws=self.draws,
            l2=self.l2,
            layer=self.layer,
            seed=self.seed,
            name=self.name,
            methods=self.methods,
            templates=self.templates,
            class_names=self.class_names,
        )


class FewShot(Evaluator):
    """Yields <shots>/top1, the mean over the draws, and with several draws <shots>/half_width of its 95 % interval.

    The interval is about the pictures drawn for learning; the pictures asked about are the same in every draw. With
    methods other than ridge alone, names are <method>/<shots>/…; with words, zeroshot/top1 comes first, the choice
    being among the classes that are shown, and of each method <method>/dip, how far it is below at most, 0 if never.
    """

    def __init__(
        self,
        train: Source,
        test: Source,
        *,
        shots: Sequence[int] = FewShotConfig.shots,
        draws: int = FewShotConfig.draws,
        l2: float = FewShotConfig.l2,
        layer: int | None = None,
        seed: int = 0,
        name: str = "",
        methods: Sequence[Method] = FewShotConfig.methods,
        templates: str | Sequence[str] = FewShotConfig.templates,
        class_names: Sequence[str] = (),
    ) -> None:
        self.title = f"few_shot/{name}" if name else "few_shot"
        check_labelled(train, f"{self.title}: train")
        check_labelled(test, self.title)
        self.train, self.test = train, test
        self.shots, self.draws, self.l2, self.layer, self.seed = tuple(shots), draws, l2, layer, seed
        self.order = matched(test.class_names, train.class_names, self.title, ("test", "train"))
        self.methods = [method for method in methods if method != "zeroshot"]
        self.worded, self.prompts = worded(methods), prompts_of(templates)
        self.alone = tuple(methods) == ("ridge",)
        self.names = named(train if train.class_names else test, class_names, self.title) if self.worded else ()
        self.how = ""
        self.level: float | None = None  # zero-shot top-1
        self.found: dict[Method, dict[int, list[float]]] = {}  # shots -> top-1 of each draw

    def check(self, model: Any) -> None:
        if self.worded:
            check_reads_texts(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        x, label, names = taught(embedder, self.train, self.test, self.layer, self.title)
        asked, wanted = labelled(embedder, self.test, self.layer, self.title)
        wanted = placed(wanted, self.order, len(names), self.title)
        classes = torch.cat([label, wanted]).unique()  # those without a picture take no part
        words = self.words(embedder, classes)
        label, wanted = torch.searchsorted(classes, label), torch.searchsorted(classes, wanted)
        self.check_shots(label, [names[i] for i in classes.tolist()])
        device = solving_device(embedder)
        x, asked, wanted, self.found, self.level = x.to(device), asked.to(device), wanted.to(device), {}, None
        self.how = f"{len(asked):,} pictures, {len(classes)} classes, "
        self.how += f"ridge regression with l2 {self.l2:g}" if self.alone else f"l2 {self.l2:g}"
        if words is not None:
            words = words[0].to(device), words[1]
            self.level = top1(zero_shot(words[0]), asked, wanted)
            yield f"{self.title}/zeroshot/top1", self.level
        for method in self.methods:
            found, path = self.found.setdefault(method, {}), self.title if self.alone else f"{self.title}/{method}"
            for n in self.shots:
                found[n] = []
                for some in (draw(label, n, self.seed, i) for i in range(self.draws)):
                    scores = learnt(method, x[some.to(device)], label[some].to(device), len(classes), self.l2, words)
                    found[n].append(top1(scores, asked, wanted))
                yield f"{path}/{n}/top1", statistics.fmean(found[n])
                if self.draws > 1:
                    yield f"{path}/{n}/half_width", half_width(found[n])
            if self.level is not None:
                yield f"{path}/dip", self.dip(method)

    def words(self, embedder: Embedder, classes: Tensor) -> Words | None:
        """What the methods with words begin at, of these classes."""
        if not self.worded:
            return None
        if int(classes[-1]) >= len(self.names):
            raise ValueError(f"{self.title}: label {int(classes[-1])} in the data, but {len(self.names)} class_names")
        own = Classifier.of(embedder, self.names, self.prompts)
        return own.vectors[0][:, classes], own.scale

    def check_shots(self, label: Tensor, names: Sequence[str]) -> None:
        """ValueError for a class with fewer training pictures than shots."""
        counts = label.bincount(minlength=len(names))
        fewest = int(counts.argmin())
        n = int(counts[fewest])
        if n < self.shots[-1]:
            fit_in = [shots for shots in self.shots if shots <= n] or [n]
            mend = f"set shots to {fit_in}" if n else "test must not ask about classes that train does not show"
            wanted = f"{self.shots[-1]} pictures of each class are wanted"
            raise ValueError(f"{self.title}: shots: {wanted}, and train has {n} of {names[fewest]!r}; {mend}")

    def dip(self, method: Method) -> float:
        """How far below zero-shot its lowest mean is, 0 if never."""
        assert self.level is not None
        return max(0.0, self.level - min(map(statistics.fmean, self.found[method].values())))

    def panels(self) -> list[Panel]:
        if not self.found:
            return []
        lines: dict[str, Points] = {method: self.points(method) for method in self.found}
        note = f"Top-1 by pictures of each class that were learnt from. {self.how}"
        several = self.draws > 1
        note += f", {self.draws} draws; behind the line, the 95 % interval of their mean." if several else ", one draw."
        rows = [
            (
                *(() if self.alone else (method,)),
                *(n, percent(mean), f"± {100 * half:.1f}" if several else "—"),
                *(percent(end) for end in (min(found[n]), max(found[n]))),
            )
            for method, found in self.found.items()
            for n, mean, half in lines[method]
        ]
        columns: tuple[str, ...] = ("pictures of each class", "top-1", "95 % interval", "lowest draw", "highest draw")
        columns = columns if self.alone else ("method", *columns)
        level = None if self.level is None else ("zeroshot", self.level)
        panels: list[Panel] = [Rise(self.title, lines, level, note=note)]
        if self.level is not None:
            heads = ("method", "points below zero-shot at most", "pictures of each class from which it is not below")
            beside = [(method, f"{100 * self.dip(method):.1f}", self.overtakes(method)) for method in self.found]
            panels.append(Table(f"{self.title}: beside zero-shot", heads, beside))
        return [*panels, Table(f"{self.title}: numbers", columns, rows)]

    def points(self, method: Method) -> Points:
        found = self.found[method].items()
        return [(n, statistics.fmean(some), half_width(some) if self.draws > 1 else 0) for n, some in found]

    def overtakes(self, method: Method) -> str:
        """The least number of shots from which on it is nowhere below zero-shot, in words."""
        assert self.level is not None
        below = [n for n, some in self.found[method].items() if statistics.fmean(some) < self.level]
        first = next((n for n in self.shots if n > max(below, default=0)), None)
        return f"more than {self.shots[-1]}" if first is None else str(first)


def draw(label: Tensor, n: int, seed: int, number: int) -> Tensor:
    """label: [m] -> the places of n pictures of each class in draw `number`, the first of which do for a smaller n."""
    drawn = []
    for c in label.unique().tolist():
        places = (label == c).nonzero()[:, 0]
        order = random_generator(seed, number, c, "few_shot").permutation(len(places))
        drawn.append(places[torch.from_numpy(order[:n])])
    return torch.cat(drawn)


def top1(scores: Callable[[Tensor], Tensor], asked: Tensor, wanted: Tensor) -> float:
    """The share of asked: [m d] whose answer is that of wanted: [m]."""
    blocks = zip(asked.split(BLOCK), wanted.split(BLOCK), strict=True)
    right = sum(int((~outranked(scores(rows), of).any(1)).sum()) for rows, of in blocks)
    return right / len(asked)
