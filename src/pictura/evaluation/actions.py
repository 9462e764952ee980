"""What happens in a clip, by its frames: each is embedded as a picture, and their unit vectors are averaged.

CLIP itself was asked about the middle frame alone (Radford et al. 2021, appendix A.1); the mean of frames is that of
Portillo-Quintero et al. (A Straightforward Framework for Video Retrieval Using CLIP, 2021). It does not know what came
first: moving left and moving right are one to it. `pool: order` keeps the change between the halves beside it, which a
probe can read, and words cannot.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pictura.data.batches import Batch
from pictura.data.frames import Frames, Sheets
from pictura.data.source import Source, SourceConfig
from pictura.evaluation.base import EvaluatorConfig, check_reads_texts
from pictura.evaluation.embed import Embedder
from pictura.evaluation.labelled import Labelled, matched, placed, words
from pictura.evaluation.linear_fit import fit
from pictura.evaluation.panels import Gallery, Panel, Picture
from pictura.evaluation.prompts import Prompts, prompts_of
from pictura.evaluation.taught import solving_device
from pictura.evaluation.zeroshot import Classifier, named

Pool = Literal["mean", "order"]
WIDTH = 480  # pixels of a clip's frames side by side in the report


@dataclass(frozen=True, kw_only=True)
class ActionsConfig(EvaluatorConfig):
    """Clips told apart by the words for what happens in them, and by a probe where there is `train`.

    data: with `clip` and `label`: kind `videos`, or `scenes` that gives clips. templates: as for kind `zeroshot`.
    class_names: in place of the data's own. train: clips of the same classes, for a ridge regression on their pooled
    features. pool: what that reads: `mean`, the average of the frames, or `order`, beside it the later half less the
    earlier one.
    """

    kind: ClassVar[str] = "actions"

    data: SourceConfig
    templates: str | tuple[str, ...] = "actions"
    class_names: tuple[str, ...] = ()
    train: SourceConfig | None = None
    pool: Pool = "mean"

    def __post_init__(self) -> None:
        prompts_of(self.templates)
        if self.pool == "order" and self.train is None:
            raise ValueError("pool: order is for a probe, which words cannot read; give `train`, or leave it at mean")

    def build(self) -> "Actions":
        """The evaluator, its data opened."""
        train = None if self.train is None else self.train.build()
        return Actions(self.data.build(), self.templates, self.class_names, train, self.pool, self.name)


class Filmed(Labelled):
    """Clips in place of pictures: scores and labels are of whole clips, and the report shows their frames."""

    def __init__(self, frames: Frames, title: str, names: Sequence[str] = ()) -> None:
        super().__init__(Sheets(frames), title, names)
        self.frames = frames

    def panels(self) -> list[Panel]:
        return [replace(one, large=True) if isinstance(one, Gallery) else one for one in super().panels()]

    def picture(self, i: int) -> Picture:
        """The frames in reading order, large enough to see something."""
        shown = super().picture(i)
        if shown.image is None:
            return shown
        image = Image.fromarray(np.asarray(self.source[int(self.outcome[0][i])]["image"]))  # still at hand
        image.thumbnail((WIDTH, WIDTH))
        return replace(shown, image=image)


class Probe(Filmed):
    """A ridge regression on pooled features of `train`, asked about `frames`; yields `l2` too, as kind `probe` does."""

    def __init__(self, train: Frames, frames: Frames, pool: Pool, title: str) -> None:
        super().__init__(frames, title, train.class_names or frames.class_names)
        if "label" not in train.provides:
            raise ValueError(f"{title}: train: the data has no label")
        if train.count != frames.count and pool == "order":
            raise ValueError(f"{title}: train has clips of {train.count} frames, and the data of {frames.count}")
        self.train, self.pool = train, pool
        self.order = matched(frames.class_names, train.class_names, title, ("the data", "train"))

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        yield from self.ask(embedder, *together(pooled(embedder, self.frames, self.pool), self.title))

    def ask(self, embedder: Embedder, test: Tensor, batch: Batch) -> Iterator[tuple[str, float]]:
        """test: [n d], pooled features of the clips in `batch`."""
        x, known = together(pooled(embedder, self.train, self.pool), f"{self.title}: train")
        known_as = self.train.class_names or self.frames.class_names
        self.names = words(known_as, len(known_as) or int(known["label"].max()) + 1)
        label = placed(known["label"], None, len(self.names), f"{self.title}: train")
        device = solving_device(embedder)
        try:
            linear, l2 = fit("ridge", x.to(device), label.to(device), len(self.names))
        except ValueError as error:
            raise ValueError(f"{self.title}: train: {error}") from error
        read = {"mean": "the mean of the frames", "order": "the mean of the frames and of the later less the earlier"}
        self.how = f"ridge regression on {read[self.pool]} of {len(x):,} other clips, l2 {l2:.2g}"
        scores = linear(test.to(device)).cpu()
        yield from self.tally([(scores, batch)], linear.scale, self.order)
        yield f"{self.title}/l2", l2


class Actions(Filmed):
    """Yields what `Labelled` does of the words for the classes; with `train` the same under `probe/`."""

    def __init__(
        self,
        source: Source,
        templates: str | Path | Sequence[str] | Prompts = "actions",
        class_names: Sequence[str] = (),
        train: Source | None = None,
        pool: Pool = "mean",
        name: str = "",
    ) -> None:
        title = f"actions/{name}" if name else "actions"
        frames = frames_of(source, title)
        super().__init__(frames, title, named(Sheets(frames), class_names, title))
        self.probe: Probe | None = None
        if train is not None:
            self.probe = Probe(frames_of(train, f"{title}: train"), self.frames, pool, f"{title}/probe")
        self.prompts = prompts_of(templates)
        sentences = self.prompts.templates
        asked = f"{len(sentences)} sentences for each" if len(sentences) > 1 else f"asked as “{sentences[0]}”"
        self.how = f"by the mean of {self.frames.count} frames, {asked}"

    def check(self, model: Any) -> None:
        check_reads_texts(model)

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        asked = Classifier.of(embedder, self.names, self.prompts)
        pool: Pool = "mean" if self.probe is None else self.probe.pool
        x, batch = together(pooled(embedder, self.frames, pool), self.title)
        mean = F.normalize(x[:, : asked.vectors.shape[1]], dim=1)
        yield from self.tally([(asked.scores(mean), batch)], asked.scale)
        if self.probe is not None:
            yield from self.probe.ask(embedder, x, batch)

    def panels(self) -> list[Panel]:
        return super().panels() + ([] if self.probe is None else self.probe.panels())


def frames_of(source: Source, title: str) -> Frames:
    """The frames of a source's clips; ValueError, with the title before it, where it has none."""
    try:
        return Frames(source)
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from error


def pooled(embedder: Embedder, frames: Frames, pool: Pool) -> Iterator[tuple[Tensor, Batch]]:
    """Clips, a batch of frames at a time -> (features [b e], or [b 2e] with their order; `index` and `label` of clips).

    The features of frames are unit vectors; of clips they are their means, and with `pool` order beside them the mean
    of the later half less that of the earlier half (of an odd number the one in the middle is in neither).
    """
    t = frames.count
    held: tuple[Tensor, ...] = ()  # frames of a clip whose others are in the next batch
    for rows, batch in embedder.walk(frames):
        new = (rows, batch["index"], batch["label"])
        rows, index, label = (torch.cat(both) for both in zip(held, new, strict=True)) if held else new
        clip, place, count = torch.unique_consecutive(index // t, return_inverse=True, return_counts=True)
        whole = (count == t)[place]  # of some that cannot be read no frame is here
        last = (place == len(clip) - 1) & ~whole
        held = (rows[last], index[last], label[last])
        if whole.any():
            of = rows[whole].view(-1, t, rows.shape[1])
            first = index[whole][::t]
            yield pool_frames(of, pool), {"index": first // t, "label": label[whole][::t]}


def pool_frames(rows: Tensor, pool: Pool) -> Tensor:
    """rows: [b t e] -> [b e], or with their order [b 2e]."""
    mean, half = rows.mean(1), rows.shape[1] // 2
    if pool == "mean":
        return mean
    change = rows[:, -half:].mean(1) - rows[:, :half].mean(1) if half else torch.zeros_like(mean)
    return torch.cat([mean, change], 1)


def together(parts: Iterator[tuple[Tensor, Batch]], title: str) -> tuple[Tensor, Batch]:
    """All of them in one: a clip's features are few beside its frames. ValueError where there is none."""
    features, batches = [], []
    for rows, batch in parts:
        features.append(rows)
        batches.append(batch)
    if not features:
        raise ValueError(f"{title}: the data has no usable clip")
    return torch.cat(features), {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
