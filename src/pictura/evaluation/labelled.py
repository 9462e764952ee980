"""What evaluators of labelled pictures share: how often the answer is right, what is taken for what, and what it looks
like."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from pictura.data.batches import Batch
from pictura.data.source import Source
from pictura.evaluation.base import Evaluator, outranked, thumbnail
from pictura.evaluation.panels import Confusion, Gallery, Line, Panel, Picture

SHOWN = 12  # best and worst pictures in the report


class Labelled(Evaluator):
    """Yields top1, top5 (of more than five classes) and mean_per_class: recall, averaged over classes with pictures.

    `title` stands before the metrics; `names` are the classes', in the order of scores; `how` ends the report's note.
    """

    def __init__(self, source: Source, title: str, names: Sequence[str] = ()) -> None:
        check_labelled(source, title)
        self.title = title
        self.names = tuple(names)
        self.source = source
        self.how = ""
        self.outcome: list[Tensor] = []  # index, label, prediction, log-probabilities of both; each [n]
        self.rank = torch.empty(0)  # [n], how many classes come before the true one

    def tally(
        self, scored: Iterable[tuple[Tensor, Batch]], scale: float = 1.0, order: Tensor | None = None
    ) -> Iterator[tuple[str, float]]:
        """scored: (scores [b k], batch with `label` and `index`); `scale` is what a softmax of them needs.

        order: [labels in the data] -> place of its class among the scores; None where they are the same.
        """
        k, self.outcome = len(self.names), []
        kept: list[tuple[Tensor, ...]] = []
        for scores, batch in scored:
            label = placed(batch["label"], order, k, self.title)
            predicted = scores.argmax(1)
            probability = (scale * scores).log_softmax(1)
            sure, of_true = (probability.gather(1, of[:, None])[:, 0] for of in (predicted, label))
            kept.append((batch["index"], label, predicted, sure, of_true, outranked(scores, label).sum(1)))
        if not kept:
            raise ValueError(f"{self.title}: the data has no usable picture")
        *self.outcome, rank = (torch.cat(column) for column in zip(*kept, strict=True))
        label, self.rank = self.outcome[1], rank
        yield f"{self.title}/top1", float((rank < 1).double().mean())
        if k > 5:
            yield f"{self.title}/top5", float((rank < 5).double().mean())
        pictures, right = label.bincount(minlength=k), label[rank < 1].bincount(minlength=k)
        yield f"{self.title}/mean_per_class", float((right / pictures)[pictures > 0].double().mean())

    def each(self) -> dict[str, Tensor]:
        return {f"{self.title}/top{k}": self.rank < k for k in (1, 5)}

    @property
    def loss(self) -> float:
        """Cross-entropy of the latest run, averaged over pictures, in nats."""
        return -float(self.outcome[4].double().mean())

    def confusion(self) -> Tensor:
        """[k k] counts, true class by predicted class, of the latest run."""
        _, label, predicted, _, _ = self.outcome
        k = len(self.names)
        return (label * k + predicted).bincount(minlength=k * k).view(k, k)

    def panels(self) -> list[Panel]:
        if not self.outcome:
            return []
        _, label, predicted, sure, of_true = self.outcome
        right = label == predicted
        best = [i for i in of_true.argsort(descending=True, stable=True).tolist() if right[i]][:SHOWN]
        worst = [i for i in sure.argsort(descending=True, stable=True).tolist() if not right[i]][:SHOWN]
        rows = [
            (heading, [self.picture(i) for i in some])
            for heading, some in (("Surest and right", best), ("Surest and wrong", worst))
            if some
        ]
        how = f", {self.how}" if self.how else ""
        note = f"Rows are the truth, columns the answer. {len(label):,} pictures, {len(self.names)} classes{how}."
        confusion = Confusion(f"{self.title}: confusion", self.confusion().tolist(), self.names, note=note)
        note = "The answer with its confidence; where it was wrong, the truth after it."
        return [confusion, Gallery(f"{self.title}: best and worst", rows, note=note)]

    def picture(self, i: int) -> Picture:
        index, label, predicted = (int(column[i]) for column in self.outcome[:3])
        sure, of_true = (f"{100 * float(column[i].exp()):.0f} %" for column in self.outcome[3:])
        lines = [Line(self.names[predicted], sure, mark=label == predicted)]
        if label != predicted:
            lines.append(Line(self.names[label], of_true, mark=True))
        return thumbnail(self.source, index, tuple(lines), label == predicted)


def check_labelled(source: Source, title: str) -> None:
    """ValueError for data without pictures or labels."""
    missing = {"image", "label"} - source.provides
    if missing:
        raise ValueError(f"{title}: the data has no {' and no '.join(sorted(missing))}")


def placed(label: Tensor, order: Tensor | None, k: int, title: str) -> Tensor:
    """label: [b] in the data -> [b] places among k classes. ValueError for a label that has none."""
    known = k if order is None else len(order)
    least, most = int(label.min()), int(label.max())
    if least < 0 or most >= known:
        wrong = least if least < 0 else most
        raise ValueError(f"{title}: label {wrong} in the data, but there are {known} class names")
    return label if order is None else order[label]


def matched(names: Sequence[str], wanted: Sequence[str], title: str, whose: tuple[str, str]) -> Tensor | None:
    """The place in `wanted` of each of `names`, None where both are the same list or one of them says nothing.

    ValueError where they are not the same set; `whose` names both lists: ("the data", "the model").
    """
    if not names or not wanted or tuple(names) == tuple(wanted):
        return None
    place = {name: i for i, name in enumerate(wanted)}
    strange = [name for name in names if name not in place]
    absent = place.keys() - set(names)
    if strange or absent or len(names) != len(wanted):
        of, to = whose
        counts = f"{of} has {len(names)} classes and {to} {len(wanted)}"
        said = [f"{to} does not know {shortened(strange)}"] if strange else []
        said += [f"{of} has no {shortened(sorted(absent, key=place.__getitem__))}"] if absent else []
        said += [] if said else ["some names stand for several classes"]
        raise ValueError(f"{title}: {counts}, not the same ones: {'; '.join(said)}")
    if len(place) < len(wanted):
        twice = next(name for i, name in enumerate(wanted) if name in wanted[:i])
        raise ValueError(f"{title}: {twice!r} names two classes, so names in another order cannot be matched")
    return torch.tensor([place[name] for name in names])


def shortened(names: Sequence[str], most: int = 3) -> str:
    """The first few, quoted, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def words(class_names: Sequence[str], classes: int) -> tuple[str, ...]:
    """A name for each of `classes`: their own, with the number where two are the same, or the numbers alone."""
    names = class_names or tuple(map(str, range(classes)))
    count = Counter(names)
    return tuple(name if count[name] == 1 else f"{name} ({i})" for i, name in enumerate(names))
