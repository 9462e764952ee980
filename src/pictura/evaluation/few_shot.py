"""How many labelled pictures a model needs: a linear classifier from 1, 2, 4, … pictures of each class.

The measure of the vision transformers (Dosovitskiy et al. 2021, section 4.1 and figures 3 and 4): ridge regression in
closed form on frozen features. Its penalty is fixed, since one picture of a class leaves none to choose it by. Which
pictures are drawn matters much, so several draws are made, and the mean comes with its 95 % confidence interval.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from pictura.data.randomness import random_generator
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import Evaluator, EvaluatorConfig, outranked
from pictura.evaluation.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, ticks, widened
from pictura.evaluation.embed import Embedder
from pictura.evaluation.labelled import check_labelled, matched, placed
from pictura.evaluation.linear_fit import fit
from pictura.evaluation.panels import Panel, Table, escape
from pictura.evaluation.taught import labelled, solving_device, taught

BLOCK = 8192  # pictures whose scores are held at once


@dataclass(frozen=True, kw_only=True)
class FewShotConfig(EvaluatorConfig):
    """`train` and `test` need pictures and labels of the same classes.

    shots: pictures of each class to learn from; those of a smaller number are among those of a larger one. draws: of
    these pictures, each a function of (seed, draw, class). l2: strength of the penalty, in the unit of `linear_fit`,
    the mean variance of a feature: 1 is good from 1 to 16 pictures, and weaker ones fit the noise of so few. layer: a
    stage of the picture tower, -1 the last; None takes what the model itself ends with.
    """

    kind: ClassVar[str] = "few_shot"

    train: SourceConfig
    test: SourceConfig
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    draws: int = 5
    l2: float = 1.0
    layer: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise((0, *self.shots)))
        if not self.shots or not rising:
            raise ValueError(f"shots: {list(self.shots)} must be rising numbers of pictures, such as [1, 2, 4, 8, 16]")
        if self.draws < 1:
            raise ValueError(f"draws: {self.draws} is below 1; try 5")
        if not 0 < self.l2 < math.inf:
            raise ValueError(f"l2: {self.l2} must be above zero; try 1")

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
        )


class FewShot(Evaluator):
    """Yields <shots>/top1, the mean over the draws, and with several draws <shots>/half_width of its 95 % interval.

    The interval is about the pictures drawn for learning; the pictures asked about are the same in every draw.
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
    ) -> None:
        self.title = f"few_shot/{name}" if name else "few_shot"
        check_labelled(train, f"{self.title}: train")
        check_labelled(test, self.title)
        self.train, self.test = train, test
        self.shots, self.draws, self.l2, self.layer, self.seed = tuple(shots), draws, l2, layer, seed
        self.order = matched(test.class_names, train.class_names, self.title, ("test", "train"))
        self.how = ""
        self.found: dict[int, list[float]] = {}  # shots -> top-1 of each draw

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        x, label, names = taught(embedder, self.train, self.test, self.layer, self.title)
        asked, wanted = labelled(embedder, self.test, self.layer, self.title)
        wanted = placed(wanted, self.order, len(names), self.title)
        classes = torch.cat([label, wanted]).unique()  # those without a picture take no part
        label, wanted = torch.searchsorted(classes, label), torch.searchsorted(classes, wanted)
        self.check_shots(label, [names[i] for i in classes.tolist()])
        device = solving_device(embedder)
        x, asked, wanted, self.found = x.to(device), asked.to(device), wanted.to(device), {}
        self.how = f"{len(asked):,} pictures, {len(classes)} classes, ridge regression with l2 {self.l2:g}"
        for n in self.shots:
            drawn = [draw(label, n, self.seed, i) for i in range(self.draws)]
            self.found[n] = [
                top1(x[some.to(device)], label[some].to(device), asked, wanted, len(classes), self.l2) for some in drawn
            ]
            yield f"{self.title}/{n}/top1", statistics.fmean(self.found[n])
            if self.draws > 1:
                yield f"{self.title}/{n}/half_width", half_width(self.found[n])

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

    def panels(self) -> list[Panel]:
        if not self.found:
            return []
        several = self.draws > 1
        points = [(n, statistics.fmean(some), half_width(some) if several else 0) for n, some in self.found.items()]
        note = f"Top-1 by pictures of each class that were learnt from. {self.how}"
        note += f", {self.draws} draws; behind the line, the 95 % interval of their mean." if several else ", one draw."
        rows = [
            (n, f"{100 * mean:.1f} %", f"± {100 * half:.1f}" if several else "—", *(f"{100 * v:.1f} %" for v in ends))
            for (n, mean, half), ends in zip(points, ((min(v), max(v)) for v in self.found.values()), strict=True)
        ]
        columns = ("pictures of each class", "top-1", "95 % interval", "lowest draw", "highest draw")
        return [Rise(self.title, points, note=note), Table(f"{self.title}: numbers", columns, rows)]


def draw(label: Tensor, n: int, seed: int, number: int) -> Tensor:
    """label: [m] -> the places of n pictures of each class in draw `number`, the first of which do for a smaller n."""
    drawn = []
    for c in label.unique().tolist():
        places = (label == c).nonzero()[:, 0]
        order = random_generator(seed, number, c, "few_shot").permutation(len(places))
        drawn.append(places[torch.from_numpy(order[:n])])
    return torch.cat(drawn)


def top1(x: Tensor, label: Tensor, asked: Tensor, wanted: Tensor, classes: int, l2: float) -> float:
    """Learnt from x: [n d] with labels [n], the share of asked: [m d] whose answer is that of wanted: [m]."""
    linear, _ = fit("ridge", x, label, classes, l2)
    blocks = zip(asked.split(BLOCK), wanted.split(BLOCK), strict=True)
    right = sum(int((~outranked(linear(rows), of).any(1)).sum()) for rows, of in blocks)
    return right / len(asked)


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean of two or more values, by Student's t."""
    return student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def student(freedom: int, share: float = 0.95) -> float:
    """Between minus and plus this number lies a `share` of Student's t with so many degrees of freedom."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < share else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def within(angle: float, freedom: int) -> float:
    """P(|t| < sqrt(freedom) tan(angle)), closed for whole degrees (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    odd, cosine = freedom % 2, math.cos(angle)
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for power in range(2 + odd, freedom - 1, 2):
        term *= (power - 1) / power * cosine**2
        total += term
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total


@dataclass(frozen=True)
class Rise(Panel):
    """Shares with half widths over pictures of each class, each doubling of which is as wide as the next."""

    points: Sequence[tuple[int, float, float]]

    def html(self) -> str:
        shots = [math.log2(n) for n, _, _ in self.points]
        percent = [
            [100 * min(max(v, 0.0), 1.0) for v in (mean, mean - half, mean + half)] for _, mean, half in self.points
        ]
        left, right = widened(shots[0], shots[-1])
        levels = ticks(*widened(min(map(min, percent)), max(map(max, percent))))
        bottom, top = levels[0][0], levels[-1][0]
        xs = [round(LEFT + 8 + (s - left) / (right - left) * (WIDTH - LEFT - RIGHT - 16), 1) for s in shots]

        def y(value: float) -> float:
            return round(HEIGHT - BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM), 1)

        def path(which: int) -> list[str]:
            return [f"{x},{y(values[which])}" for x, values in zip(xs, percent, strict=True)]

        grid = "".join(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v)}" y2="{y(v)}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y(v) + 3.5:.1f}" text-anchor="end">{text} %</text>'
            for v, text in levels
        )
        dots = "".join(
            f'<text class="tick" x="{x}" y="{HEIGHT - 6}" text-anchor="middle">{n}</text>'
            f'<circle class="dot alone" cx="{x}" cy="{y(100 * mean)}" r="3.5">'
            f"<title>{n} of each class: {100 * mean:.1f} % ± {100 * half:.1f}</title></circle>"
            for x, (n, mean, half) in zip(xs, self.points, strict=True)
        )
        band = f'<polygon class="band" points="{" ".join(path(2) + path(1)[::-1])}"/>'
        line = f'<polyline class="line" points="{" ".join(path(0))}"/>'
        title = escape(f"{self.title}: top-1 by pictures of each class")
        head = f"<figcaption><h3>top-1 by pictures of each class</h3><span>{100 * self.points[-1][1]:.1f} %</span>"
        drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{grid}<g class="c0">'
        drawing += f"{band}{line}{dots}</g></svg>"
        return f'<div class="charts"><figure class="chart c0">{head}</figcaption>{drawing}</figure></div>'
