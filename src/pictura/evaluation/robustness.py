"""How much noise, blur, weather and digital damage a model bears: its top-1 under each corruption of ImageNet-C.

Hendrycks and Dietterich 2019, section 4. Their score divides errors by AlexNet's, which nobody's own data have; here
are plain shares, means over severities, and beside them what is left of the clean share.
"""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from pictura.data.corrupted import Corrupted, CorruptedConfig
from pictura.data.corruptions import GROUPS, STANDARD, check_corruption
from pictura.data.decode import decode
from pictura.data.source import BadSample, Source
from pictura.evaluation.base import Evaluator, EvaluatorConfig, thumbnail
from pictura.evaluation.charts import Series, chart
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery, Line, Panel, Table, percent

SHOWN = 3  # severity of the pictures in the report


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig(EvaluatorConfig):
    """Top-1 of another evaluator, `of`, on its data as they are and under `corruptions`, each at each of `severities`.

    of: one that has `data` and yields top1, such as `zeroshot` or `accuracy`; it runs 76 times in all where nothing is
    left out. corruptions: the fifteen of ImageNet-C unless given. severities: some of 1 to 5. seed: of what the
    corruptions draw.
    """

    kind: ClassVar[str] = "robustness"

    of: EvaluatorConfig
    corruptions: tuple[str, ...] = STANDARD
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    seed: int = 0

    def __post_init__(self) -> None:
        if not any(field.name == "data" for field in dataclasses.fields(self.of)):
            kind = getattr(self.of, "kind", type(self.of).__name__)
            raise ValueError(f"of: {kind} has no `data` to corrupt; try zeroshot or accuracy")
        for name, given in (("corruptions", self.corruptions), ("severities", self.severities)):
            if not given or len({*given}) < len(given):
                said = "none given" if not given else f"{list(given)} names one twice"
                raise ValueError(f"{name}: {said}; leave it out for all of them")
        for corruption in self.corruptions:
            check_corruption(corruption)
        for severity in self.severities:
            check_corruption(STANDARD[0], severity)

    def build(self) -> "Robustness":
        """The evaluator, its data opened."""
        return Robustness(self)

    def corrupted(self, corruption: str, severity: int) -> CorruptedConfig:
        data: Any = self.of
        return CorruptedConfig(of=data.data, corruption=corruption, severity=severity, seed=self.seed)


class Robustness(Evaluator):
    """Yields the top1 of `config.of`: of `clean` data, each corruption's mean over severities, their `mean`."""

    def __init__(self, config: RobustnessConfig) -> None:
        self.title = f"robustness/{config.name}" if config.name else "robustness"
        self.config = config
        self.evaluator = config.of.build()
        self.source = config.corrupted(config.corruptions[0], SHOWN).build().source
        self.clean = 0.0
        self.found: dict[str, dict[int, float]] = {}  # corruption -> severity -> top1

    def check(self, model: Any) -> None:
        self.evaluator.check(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        config, remembering = self.config, Remembering(embedder)
        found: dict[str, dict[int, float]] = {}
        self.clean = top1(self.evaluator, remembering, self.title)
        yield f"{self.title}/clean/top1", self.clean
        for corruption in config.corruptions:
            found[corruption] = {}
            for severity in config.severities:
                of: Any = dataclasses.replace(config.of, data=config.corrupted(corruption, severity))  # type: ignore[call-arg]
                found[corruption][severity] = top1(of.build(), remembering, self.title)
            yield f"{self.title}/{corruption}/top1", statistics.fmean(found[corruption].values())
        self.found = found
        yield f"{self.title}/mean/top1", self.mean

    @property
    def mean(self) -> float:
        return statistics.fmean(statistics.fmean(some.values()) for some in self.found.values())

    def panels(self) -> list[Panel]:
        if not self.found:
            return []
        note = f"Top-1 by severity; 0 is the clean data, {percent(self.clean)}; over all, {percent(self.mean)}."
        charts = Severities(f"{self.title}: by severity", self.groups(), self.clean, note=note)
        severities = sorted(self.config.severities)
        rows = [
            (corruption, *(percent(some[s]) for s in severities), percent(mean), percent(mean / (self.clean or 1)))
            for corruption, some in self.found.items()
            for mean in [statistics.fmean(some.values())]
        ]
        columns = ("corruption", *map(str, severities), "mean", "of the clean")
        return [charts, Table(f"{self.title}: numbers", columns, rows), self.gallery()]

    def groups(self) -> dict[str, dict[str, dict[int, float]]]:
        """Group -> corruption -> severity -> top1."""
        return {
            group: some
            for group, names in GROUPS.items()
            if (some := {name: self.found[name] for name in names if name in self.found})
        }

    def gallery(self) -> Gallery:
        """The first picture that can be read, under everything."""
        index = next((i for i in range(len(self.source)) if readable(self.source, i)), 0)
        rows = [("clean", [thumbnail(self.source, index, (Line("clean", percent(self.clean)),))])]
        for group, some in self.groups().items():
            pictures = [
                thumbnail(
                    Corrupted(self.source, corruption, SHOWN, self.config.seed),
                    index,
                    (Line(corruption.replace("_", " "), percent(statistics.fmean(values.values()))),),
                )
                for corruption, values in some.items()
            ]
            rows.append((group, pictures))
        note = f"One picture at severity {SHOWN}, and top-1 of all pictures, the mean over severities."
        return Gallery(f"{self.title}: what it looks like", rows, note=note)


class Remembering(Embedder):
    """Somebody else's embedder, to be asked the same again and again: the texts that were asked for last are not read
    a second time."""

    def __init__(self, embedder: Embedder) -> None:
        vars(self).update(vars(embedder))
        self.last: tuple[tuple[str, ...], Tensor] | None = None

    def texts(self, texts: Sequence[str] | str) -> Tensor:
        asked = (texts,) if isinstance(texts, str) else tuple(texts)
        if self.last is None or self.last[0] != asked:
            self.last = asked, super().texts(asked)
        return self.last[1].clone()


def top1(evaluator: Evaluator, embedder: Embedder, title: str) -> float:
    """The first top1 that it yields. ValueError where there is none."""
    values = dict(evaluator.run(embedder))
    found = next((value for name, value in values.items() if name.endswith("/top1")), None)
    if found is None:
        raise ValueError(f"{title}: of: it yields {', '.join(values)}, but no top1; try zeroshot or accuracy")
    return found


def readable(source: Source, index: int) -> bool:
    """Whether example `index` has a picture that can be decoded; it is read for that."""
    try:
        example = source[index]
        return bool(decode(example["image"], key=example["key"]))
    except BadSample:
        return False


@dataclass(frozen=True)
class Severities(Panel):
    """{group: {corruption: {severity: share}}} as a chart for each group, from the clean share on."""

    groups: Mapping[str, Mapping[str, Mapping[int, float]]]
    clean: float

    def html(self) -> str:
        drawn = []
        for group, some in self.groups.items():
            lines: dict[str, tuple[Series, str]] = {}
            for name, values in some.items():
                points = [(0.0, 100 * self.clean), *((float(s), 100 * values[s]) for s in sorted(values))]
                lines[name] = points, percent(values[max(values)])
            drawn.append(chart(group, lines, along="severity"))
        return f'<div class="charts">{"".join(drawn)}</div>'
