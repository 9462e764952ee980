"""Which of several sentences is true of a picture: attribute binding, word order, counting, negation. In any data that
gives `choices`: drawn scenes, SugarCrepe (Hsieh et al. 2023), Winoground (Thrush et al. 2022), a table of one's own.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import TIE, Evaluator, EvaluatorConfig, check_reads_texts, outranked, thumbnail
from pictura.evaluation.embed import Embedder
from pictura.evaluation.intervals import wilson
from pictura.evaluation.panels import Gallery, Line, Panel, Picture, Table, percent
from pictura.evaluation.recall import ByVectors
from pictura.evaluation.rerank import ByPairs, check_matches, pair_scores

SHOWN = 24  # pictures in the report
LINES = 6  # choices listed beside one
BLOCK = 4096  # choices scored at once
CHANCE = {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}  # Thrush et al., section 4


class Tally(NamedTuple):
    """How many of how many are right, and the share that guessing has."""

    right: int
    n: int
    chance: float


@dataclass(frozen=True, kw_only=True)
class ChoicesConfig(EvaluatorConfig):
    """`data` needs pictures with `choices` and the `answer` among them; the best match is the one taken.

    A CLIP goes by its cosines, a ViLT with a head for `rank` or `matching` by what it says of each pair.
    """

    kind: ClassVar[str] = "choices"

    data: SourceConfig

    def build(self) -> "Choices":
        """The evaluator, its data opened."""
        return Choices(self.data.build(), self.name)


class Choices(Evaluator):
    """Yields `accuracy` and `chance`, in all and as <kind>/… of each `choice_kind`. A tie is wrong, and so is a NaN.

    Where the data says which two pictures are a `pair`, with the same two choices, also `text`, the share of pairs both
    of whose pictures take their own caption; `image`, both of whose captions take their own picture; `group`, all four
    (Winoground, section 4, its strict inequalities). A pair of which one picture is unreadable has no part in these.
    """

    def __init__(self, source: Source, name: str = "") -> None:
        if missing := {"image", "choices", "answer"} - source.provides:
            raise ValueError(f"choices: the data has no {' and no '.join(sorted(missing))}")
        self.title = f"choices/{name}" if name else "choices"
        self.source = source
        self.found: dict[str, dict[str, Tally]] = {}  # kind ("" for all) -> metric -> how often
        self.indices, self.kinds = list[int](), list[str]()  # of each picture that could be read
        self.choices, self.answers = list[list[str]](), list[int]()
        self.scores = torch.empty(0, 0)  # [n k], -inf where a picture has fewer choices

    def check(self, model: Any) -> None:
        (check_matches if hasattr(model, "match") else check_reads_texts)(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        self.check(embedder.model)
        by = ByPairs(None, 1) if hasattr(embedder.model, "match") else ByVectors()
        self.indices, self.kinds, self.choices, self.answers = [], [], [], []
        pairs: list[int] = []
        for batch in by.walk(embedder, self.source):
            self.indices += batch["index"].tolist()
            self.choices += batch["choices"]
            self.answers += batch["answer"]
            self.kinds += batch.get("choice_kind", [""] * len(batch["index"]))
            pairs += batch.get("pair", ())
        if not self.choices:
            raise ValueError(f"{self.title}: the data has no usable picture")
        for index, choices, answer in zip(self.indices, self.choices, self.answers, strict=True):
            if not 0 <= answer < len(choices):
                raise ValueError(
                    f"{self.title}: example {index} has {len(choices)} choices, and its answer is {answer}"
                )
        self.scores = self._scores(embedder, by)
        self._tally(pairs)
        for kind, tallies in self.found.items():
            title = f"{self.title}/{kind}" if kind else self.title
            for metric, tally in tallies.items():
                yield f"{title}/{metric}", tally.right / tally.n
                if metric == "accuracy":
                    yield f"{title}/chance", tally.chance

    def _scores(self, embedder: Embedder, by: ByVectors | ByPairs) -> Tensor:
        """[n k], how well each picture matches each of its choices. A text is embedded once however often it is one."""
        number: dict[str, int] = {}
        which = torch.tensor([number.setdefault(text, len(number)) for choices in self.choices for text in choices])
        counts = [len(choices) for choices in self.choices]
        owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        if isinstance(by, ByPairs):
            places = {index: place for place, index in enumerate(self.indices)}
            flat = pair_scores(embedder, self.source, places, list(number), which.split(counts))
        else:
            images, words = torch.cat(by.parts), embedder.texts(list(number))
            blocks = zip(owner.split(BLOCK), which.split(BLOCK), strict=True)
            flat = [(images[own] * words[text]).sum(1) for own, text in blocks]
        scores = torch.full((len(counts), max(counts)), -torch.inf)
        scores[owner, torch.cat([torch.arange(count) for count in counts])] = torch.cat(flat)
        return scores

    def _tally(self, pairs: Sequence[int]) -> None:
        right = (outranked(self.scores, torch.tensor(self.answers)).sum(1) == 0).tolist()
        of = [("", kind) if kind else ("",) for kind in self.kinds]
        members: dict[str, list[int]] = {kind: [] for kind in ("", *sorted(set(self.kinds)))}
        for place, kinds in enumerate(of):
            for kind in kinds:
                members[kind].append(place)
        self.found = {}
        for kind, places in members.items():
            chance = sum(1 / len(self.choices[place]) for place in places) / len(places)
            self.found[kind] = {"accuracy": Tally(sum(right[place] for place in places), len(places), chance)}
        told: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        for place, scores in self._pairs(pairs):
            for metric, holds in pair_metrics(scores).items():
                for kind in of[place]:
                    told[kind][metric].append(holds)
        for kind, metrics in told.items():
            self.found[kind] |= {name: Tally(sum(some), len(some), CHANCE[name]) for name, some in metrics.items()}

    def _pairs(self, pairs: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """The first picture's place, and [2 2] scores, (picture, caption), of each pair that is whole."""
        both: dict[tuple[int, str, str], dict[int, int]] = defaultdict(dict)
        for place, pair in enumerate(pairs):
            if len(choices := self.choices[place]) == 2:
                both[pair, choices[0], choices[1]][self.answers[place]] = place
        for found in both.values():
            if len(found) == 2:
                yield found[0], self.scores[[found[0], found[1]], :2]

    def panels(self) -> list[Panel]:
        if not self.found:
            return []
        shares = [
            (kind or "all", metric, tally.n, percent(tally.right / tally.n), percent(tally.chance), interval(tally))
            for kind, tallies in self.found.items()
            for metric, tally in tallies.items()
        ]
        columns = ("kind", "metric", "of", "right", "by chance", "95 % interval")
        note = "Intervals are Wilson's. Where chance lies within one, nothing has been shown."
        panels: list[Panel] = [Table(f"{self.title}: the true sentence is chosen", columns, shares, note=note)]
        if rows := self._wrong():
            note = "The best match first, the true sentence marked; the surest mistakes of each kind."
            panels.append(Gallery(f"{self.title}: wrong", rows, wide=True, note=note))
        return panels

    def _wrong(self) -> list[tuple[str, list[Picture]]]:
        own = torch.tensor(self.answers)
        beats = outranked(self.scores, own)
        lead = (
            self.scores.masked_fill(~beats, -torch.inf).amax(1) - self.scores.gather(1, own[:, None])[:, 0]
        ).tolist()
        wrong: dict[str, list[int]] = defaultdict(list)
        for place in beats.any(1).nonzero()[:, 0].tolist():
            wrong[self.kinds[place]].append(place)
        each = max(1, SHOWN // max(1, len(wrong)))
        rows = []
        for kind in sorted(wrong)[:SHOWN]:
            surest = sorted(wrong[kind], key=lambda place: -lead[place] if math.isfinite(lead[place]) else 0.0)
            rows.append((kind, [self._picture(place) for place in surest[:each]]))
        return rows

    def _picture(self, place: int) -> Picture:
        choices, answer, scores = self.choices[place], self.answers[place], self.scores[place].tolist()
        best = sorted(range(len(choices)), key=lambda at: -scores[at] if math.isfinite(scores[at]) else math.inf)
        listed = best[:LINES] if answer in best[:LINES] else [*best[: LINES - 1], answer]
        lines = tuple(Line(choices[at], f"{scores[at]:.3f}", at == answer) for at in listed)
        return thumbnail(self.source, self.indices[place], lines, good=False)


def pair_metrics(scores: Tensor) -> Mapping[str, bool]:
    """scores: [2 2], (picture, caption), own ones on the diagonal -> Winoground's text, image and group."""
    (a, b), (c, d) = scores.tolist()
    text = b < a - TIE and c < d - TIE  # each picture prefers its own caption
    image = c < a - TIE and b < d - TIE  # each caption its own picture
    return {"text": text, "image": image, "group": text and image}


def interval(tally: Tally) -> str:
    """A tally's interval as a person reads it."""
    low, high = wilson(tally.right, tally.n)
    return f"{100 * low:.1f} … {100 * high:.1f} %"
