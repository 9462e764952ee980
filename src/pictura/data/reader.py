"""Which examples a batch holds -> the batch, as arrays. This is what a loader's worker process runs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pictura.data.decode import decode
from pictura.data.placement import Placement
from pictura.data.prefetch import Batch
from pictura.data.randomness import Draws, random_generator
from pictura.data.source import BadSample, Example, Source
from pictura.data.text import Tokenizer
from pictura.data.views import View
from pictura.data.workers import Note

Made = tuple[Batch, list[tuple[str, str]]]  # a batch of arrays, pictures [b y x c]; and the bad samples: key, reason
Fetch = Source | Mapping[int, Example]

FROM_SOURCE = {  # batch keys that go by another name in a source
    "text": "captions",
    "other": "captions",
    "words": "captions",
    "left": "images",
    "right": "images",
}
GIVEN = frozenset({"index", "key", "seed"})  # batch keys that any source's examples have
ALONG = {"boxes": ("labels", "crowd", "masks"), "regions": ("region_vectors",)}  # rows beside each box, of one length
PICTURES = frozenset({"image", "left", "right"})
TEXTS = frozenset({"text", "other", "question", "statement"})  # tokenised
ATTEMPTS = 32  # to replace one bad sample, or to find another example's caption


class Job(NamedTuple):
    """One batch to be made. `examples`: those of the indices, where they were read already (a stream)."""

    epoch: int
    indices: npt.NDArray[np.integer[Any]]
    examples: Sequence[Example] | None = None


class Reader:
    """`reader(job, note)`. `seed` None, for evaluation: the first caption, and bad samples are left out; otherwise each
    is replaced by another one, drawn for (seed, epoch, index).

    keys: those of the batch. `left` and `right` are the two `images` of a pair; `other` are captions of other examples,
    as many as `others` says, none of them one of this one's; `words` numbers the words of `text`. Without a tokenizer,
    texts stay strings. In training, boxes go where the view puts their pixels, and those out of sight are gone; for
    evaluation they stay, and `placement` says what the view did.
    """

    def __init__(
        self, source: Source, view: View | None, tokenizer: Tokenizer | None, keys: frozenset[str], seed: int | None,
        others: int = 1,
    ) -> None:  # fmt: skip
        self.source, self.view, self.tokenizer, self.seed, self.others = source, view, tokenizer, seed, others
        self.keys, self.gives_seeds = sorted(keys - GIVEN - {"words", "placement"}), "seed" in keys
        self.gives_words = "words" in keys
        self.boxes = [key for key in ALONG if key in keys and seed is not None]
        self.gives_placement = "placement" in keys
        assert "text" in keys or not self.gives_words
        assert seed is not None or "other" not in keys
        self.draws, self.seeds = Draws(seed or 0, "sample"), Draws(seed or 0, "example")
        self.strangers = Draws(seed or 0, "other")

    def __call__(self, job: Job, note: Note) -> Made:
        indices: list[int] = job.indices.tolist()
        fetch = self.source if job.examples is None else dict(zip(indices, job.examples, strict=True))
        rows: list[Batch] = []
        bad: list[tuple[str, str]] = []
        for index in indices:
            try:
                rows.append(self._read(fetch, job.epoch, index, note))
            except BadSample as sample:
                bad.append((sample.key, sample.reason))
                if self.seed is not None:
                    rows.append(self._replace(fetch, job, index, note, bad))
        return self._collate(rows), bad

    def _read(self, fetch: Fetch, epoch: int, index: int, note: Note) -> Batch:
        note(f"example {index}")
        try:
            example = cast(dict[str, Any], fetch[index])
            note(f"example {index}, {example['key']}")
            row = {"index": index, "key": example["key"]}
            if self.gives_seeds:  # for what is drawn on the device
                row["seed"] = int(self.seeds.at(epoch, index).integers(2**63))
            random = self.draws.at(epoch, index)
            chance = random.random()
            placement: Placement | None = None
            for key in self.keys:
                value = example[FROM_SOURCE.get(key, key)]
                if key in PICTURES:
                    value, placement = self._look(_one_of(value, key, example["key"]), random, example["key"])
                elif key == "text":
                    value = value[int(chance * len(value)) if self.seed is not None else 0]
                elif key == "other":
                    value = self._others(epoch, index, value, example["key"])
                row[key] = value
            if self.gives_placement:
                row["placement"] = placement
            if self.boxes:
                self._move(row, placement)
            return row
        except BadSample:
            raise
        except Exception as error:
            error.add_note(f"while reading example {index}")
            raise

    def _look(
        self, image: bytes | npt.NDArray[np.uint8], random: np.random.Generator, key: str
    ) -> tuple[Tensor, Placement | None]:
        """One picture as [y x c], or several of them where the view gives more; and what the view did."""
        assert self.view is not None
        if isinstance(image, np.ndarray) and self.view.takes_arrays:
            pixels, placement = self.view.look(image, random)
        else:  # where boxes are, in pixels of the whole picture, it must not be scaled while it is decoded
            whole = bool(self.boxes) or self.gives_placement
            picture = decode(image, at_least=None if whole else self.view.at_least, key=key)
            pixels, placement = self.view.look(picture, random)
        return pixels.movedim(-3, -1), placement

    def _move(self, row: Batch, placement: Placement | None) -> None:
        """The boxes of a row, and what is beside them, to where the view has put them."""
        if placement is None:
            raise ValueError("this view does not say where it puts boxes; try kind: jitter or none")
        for name in self.boxes:
            row[name], there = placement.boxes(row[name])
            row[name] = row[name][there]
            for key in ALONG[name]:
                if key in row:
                    rows = row[key][there]
                    row[key] = placement.masks(rows) if key == "masks" else rows

    def _others(self, epoch: int, index: int, own: Sequence[str], key: str) -> list[str]:
        """Captions drawn from the whole source for (seed, epoch, index), none of the example's `own`; of many, the
        first ones are those that fewer would be."""
        random, found = self.strangers.at(epoch, index), list[str]()
        for _ in range(ATTEMPTS * self.others):
            place, chance = int(random.integers(len(self.source))), random.random()
            try:
                captions = self.source.captions(place)
            except BadSample:  # counted when its turn comes
                continue
            if captions and (caption := captions[int(chance * len(captions))]) not in own:
                found.append(caption)
                if len(found) == self.others:
                    return found
        raise BadSample(key, f"{ATTEMPTS} captions drawn from the data for each wanted, and most are its own")

    def _replace(self, fetch: Fetch, job: Job, index: int, note: Note, bad: list[tuple[str, str]]) -> Batch:
        assert self.seed is not None
        choice = range(len(self.source)) if job.examples is None else job.indices.tolist()
        random = random_generator(self.seed, job.epoch, index, "replacement")
        for _ in range(ATTEMPTS):
            try:
                return self._read(fetch, job.epoch, choice[int(random.integers(len(choice)))], note)
            except BadSample as sample:
                bad.append((sample.key, sample.reason))
        named = "; ".join(f"{key}: {reason}" for key, reason in dict(bad).items())
        raise ValueError(f"{ATTEMPTS} samples drawn in place of a bad one are bad too; are all? {named[:1000]}")

    def _collate(self, rows: list[Batch]) -> Batch:
        """Arrays cross a process border without being copied into a pickle, tensors do not."""
        batch: Batch = {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}
        for key, values in batch.items():
            if key in PICTURES:
                alike = len({value.shape for value in values}) == 1
                batch[key] = torch.stack(values).numpy() if alike else [value.numpy() for value in values]
            elif key == "other" and self.tokenizer is not None:
                ids = self.tokenizer([text for texts in values for text in texts])
                batch[key] = ids.view(len(values), self.others, -1).numpy()
            elif key in TEXTS and self.tokenizer is not None:
                batch[key] = self.tokenizer(values).numpy()
            elif key in ("index", "label"):
                batch[key] = np.array(values, dtype=np.int64)
        if batch and self.gives_words:
            assert self.tokenizer is not None
            batch["words"] = self.tokenizer.word_numbers(torch.from_numpy(batch["text"])).numpy()
        return batch


def _one_of(value: Any, key: str, name: str) -> Any:
    """The picture that batch key `key` means, of what the source gives for it."""
    if key == "image":
        return value
    if len(value) != 2:
        raise BadSample(name, f"{len(value)} of the 2 pictures of a pair")
    return value[0 if key == "left" else 1]


def tensors(batch: Batch) -> Batch:
    """What a reader made -> the batch of tensors, pictures [b c y x], or b of [c y x] (their memory stays as it is)."""
    batch = {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in batch.items()}
    for key in PICTURES & batch.keys():
        pictures = batch[key]
        if isinstance(pictures, Tensor):
            batch[key] = pictures.movedim(-1, -3)
        else:
            batch[key] = [torch.from_numpy(one).movedim(-1, -3) for one in pictures]
    return batch
