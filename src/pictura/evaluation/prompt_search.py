"""Which sentences suit a model and a folder of pictures: sets of prompts compared, joined, weighted and calibrated.

With labels, half of the pictures chooses (the set, the weights, the temperature) and the other half is what the figures
are told of. Without, templates are weighted by what makes the pictures decide, and no figure says how right that is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.config import to_yaml
from pictura.data.randomness import random_generator
from pictura.data.source import Source
from pictura.evaluation.base import outranked
from pictura.evaluation.calibrate import calibration_error, known_curve, separation, temperature_of
from pictura.evaluation.embed import Embedder
from pictura.evaluation.intervals import wilson
from pictura.evaluation.panels import Panel, Table, percent
from pictura.evaluation.prompt_weights import decided, labelled, unlabelled
from pictura.evaluation.prompts import Prompts
from pictura.evaluation.zeroshot import Classifier, sentences, with_examples

FEWEST = 20  # pictures, half of which can choose
THIRDS = 20  # steps of a search, each of which leaves two thirds
JOINED = "all together"
SHOWN = 20  # templates in the report


@dataclass(frozen=True)
class Trial:
    """Prompts and what they reached on the pictures that did not choose: `right` [m] bool, cross-entropy; None without
    labels."""

    name: str
    prompts: Prompts
    right: Tensor | None = None
    loss: float | None = None
    chosen_by: float = 0.0  # top-1 on the half that chooses, or the templates' mean score without labels

    def told(self) -> dict[str, float]:
        """Its figures, by name."""
        told = {"templates": len(self.prompts.templates), "chosen_by": self.chosen_by}
        if self.right is None or self.loss is None:
            return told
        low, high = wilson(int(self.right.sum()), len(self.right))
        top1 = float(self.right.double().mean())
        return told | {"top1": top1, "low": low, "high": high, "cross_entropy": self.loss}

    def row(self, best: bool) -> tuple[str, ...]:
        """The same for people."""
        told, name = self.told(), f"{self.name} *" if best else self.name
        if "top1" not in told:
            return name, str(told["templates"]), f"{self.chosen_by:.3f}"
        interval = f"{100 * told['low']:.1f} to {100 * told['high']:.1f} %"
        return name, str(told["templates"]), percent(told["top1"]), interval, f"{self.loss:.3f}"


@dataclass(frozen=True)
class Search:
    """All trials, and the best one, calibrated. `told`: how well its probabilities fit, by name."""

    trials: Sequence[Trial]
    best: Trial
    told: dict[str, float] = field(default_factory=dict)

    @property
    def heads(self) -> tuple[str, ...]:
        """Of the trials' rows."""
        if self.best.right is None:
            return "set", "templates", "how much pictures decide"
        return "set", "templates", "top-1", "95 % interval", "cross-entropy"

    def as_file(self, data: str) -> str:
        """The best prompts as a file that says what they reached."""
        about = f"{self.best.name}, the best of {len(self.trials)} on {data}"
        if self.best.right is not None:
            right = percent(float(self.best.right.double().mean()))
            about += f": {right} of {len(self.best.right):,} pictures that had no part in choosing it"
        return to_yaml(replace(self.best.prompts, about=about))


@dataclass(frozen=True)
class Half:
    """Features [n e] and labels [n]."""

    x: Tensor
    label: Tensor

    def right(self, asked: Classifier) -> Tensor:
        return ~outranked(asked.scores(self.x), self.label).any(1)

    def loss(self, asked: Classifier) -> float:
        return float(F.cross_entropy(asked.scale * asked.scores(self.x), self.label))


def search(embedder: Embedder, source: Source, names: Sequence[str], sets: dict[str, Prompts], seed: int = 0) -> Search:
    """Compare `sets` of prompts, and what they give together, on pictures with or without labels.

    ValueError for data without a picture, and for labelled data of too few to halve.
    """
    rows, labels = [], []
    for features, batch in embedder.walk(source):
        rows.append(features)
        labels.append(batch.get("label", torch.empty(0, dtype=torch.long)))
    if not rows:
        raise ValueError("the data has no usable picture")
    x, label = torch.cat(rows), torch.cat(labels)
    vectors = {name: sentences(embedder, names, prompts) for name, prompts in sets.items()}
    both = together(sets, vectors)
    natural = 1 / embedder.scale
    if not len(label):
        return without_labels(x, sets, vectors, both, natural)
    if len(x) < FEWEST:
        raise ValueError(f"{len(x)} labelled pictures are too few to choose by one half and to judge by the other")
    order = torch.from_numpy(random_generator(seed, 0, 0, "prompt_search").permutation(len(x)))
    choosing, judging = (Half(x[part], label[part]) for part in (order[: len(x) // 2], order[len(x) // 2 :]))
    trials, made = list[Trial](), dict[str, Classifier]()

    def trial(name: str, prompts: Prompts, vectors: Tensor) -> None:
        asked = Classifier.averaged(vectors, prompts, natural)
        asked = made[name] = replace(asked, vectors=with_examples(embedder, names, prompts, asked.vectors))
        chosen_by = float(choosing.right(asked).double().mean())
        loss = judging.loss(warmed(asked, choosing))
        trials.append(Trial(name, prompts, judging.right(asked), loss, chosen_by))

    for name, prompts in sets.items():
        trial(name, prompts, vectors[name])
    if both is not None and len(both[0].templates) > 1:
        joined, every = both
        trial(JOINED, joined, every)
        trial(f"{JOINED}, probabilities averaged", replace(joined, average="probabilities"), every)
        free = unlabelled(every, x, embedder.scale)
        trial(f"{JOINED}, weighted without labels", replace(joined, weights=tuple(free.tolist())), every)
        taught = labelled(every, choosing.x, choosing.label, embedder.scale)
        trial(f"{JOINED}, weighted with labels", replace(joined, weights=tuple(taught.tolist())), every)
    best = max(trials, key=lambda one: (one.chosen_by, -len(one.prompts.templates)))
    return calibrated(trials, best, made[best.name], choosing, judging)


def together(sets: dict[str, Prompts], vectors: dict[str, Tensor]) -> tuple[Prompts, Tensor] | None:
    """The templates of all sets as one set, each once, with their vectors. None where every set says or shows what its
    classes are."""
    plain = [name for name, prompts in sets.items() if not prompts.descriptions and not prompts.examples]
    every = {t: vectors[name][i] for name in reversed(plain) for i, t in enumerate(sets[name].templates)}
    templates = tuple(dict.fromkeys(t for name in plain for t in sets[name].templates))
    return (Prompts(templates=templates), torch.stack([every[t] for t in templates])) if templates else None


def warmed(asked: Classifier, half: Half) -> Classifier:
    """With the temperature that makes the cross-entropy least. Where probabilities are averaged it is sought in steps,
    as a minimum between 1/16 and 16 times the present one."""
    if len(asked.vectors) == 1:
        return replace(asked, temperature=temperature_of(asked.scores(half.x), half.label))
    low, high = math.log(asked.temperature / 16), math.log(asked.temperature * 16)
    for _ in range(THIRDS):
        third = (high - low) / 3
        cold, hot = (half.loss(replace(asked, temperature=math.exp(at))) for at in (low + third, high - third))
        low, high = (low, high - third) if cold < hot else (low + third, high)
    return replace(asked, temperature=math.exp((low + high) / 2))


def calibrated(trials: Sequence[Trial], best: Trial, asked: Classifier, choosing: Half, judging: Half) -> Search:
    """The best prompts with a temperature, and a curve that tells what is of no class: for that each picture is shown
    to the classes without its own, too."""
    known = known_curve(asked.highest(choosing.x), asked.highest(choosing.x, but=choosing.label))
    warm, told = warmed(asked, choosing), dict[str, float]()
    for name, one in (("calibration_error/before", asked), ("calibration_error/after", warm)):
        sure = (one.scale * one.scores(judging.x)).softmax(1).amax(1)
        told[name] = calibration_error(sure, judging.right(one))
    seen, unseen = asked.highest(judging.x), asked.highest(judging.x, but=judging.label)
    passed = [float((known[0] * s + known[1] > 0).double().mean()) for s in (seen, unseen)]
    told |= {"known/separation": separation(seen, unseen), "known/passed": passed[0], "known/refused": 1 - passed[1]}
    prompts = replace(best.prompts, temperature=warm.temperature, known=known)
    return Search(trials, replace(best, prompts=prompts), told)


def without_labels(
    x: Tensor,
    sets: dict[str, Prompts],
    vectors: dict[str, Tensor],
    both: tuple[Prompts, Tensor] | None,
    natural: float,
) -> Search:
    """Sets are ranked by how much they make the pictures decide, and all plain ones are joined, weighted by it."""
    trials = [
        Trial(name, prompts, chosen_by=float(decided(vectors[name], x, 1 / natural).mean()))
        for name, prompts in sets.items()
    ]
    if both is None:
        return Search(trials, max(trials, key=lambda one: one.chosen_by))
    joined, every = both
    weights = unlabelled(every, x, 1 / natural)
    best = Trial(f"{JOINED}, weighted without labels", replace(joined, weights=tuple(weights.tolist())))
    best = replace(best, chosen_by=float((weights * decided(every, x, 1 / natural)).sum()))
    return Search([*trials, best], best)


def panels(found: Search) -> list[Panel]:
    """For a report: the trials, and the templates that count most among the best one's."""
    note = "Chosen by one half of the pictures, told of the other." if found.best.right is not None else ""
    rows = [trial.row(trial.name == found.best.name) for trial in found.trials]
    shares = sorted(zip(found.best.prompts.shares, found.best.prompts.templates, strict=True), reverse=True)
    counted = [(template, percent(share)) for share, template in shares[:SHOWN]]
    return [Table("Sets of prompts", found.heads, rows, note=note), Table("The best", ("template", "weight"), counted)]
