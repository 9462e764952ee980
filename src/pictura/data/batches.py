"""From examples to batches. What a batch holds is a function of (seed, epoch, index): not of workers, ranks, time, or where a run resumed.

Pictures stay uint8 until the model normalises them on its device. They lie in memory as [b y x c] (`torch.channels_last`), which is
how decoders give them and how convolutions like them; their shape is [b c y x] all the same.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pictura.config import Config
from pictura.data.decode import decode
from pictura.data.faults import BadSamples
from pictura.data.prefetch import Batch, prefetch
from pictura.data.source import BadSample, Source
from pictura.data.text import Tokenizer
from pictura.data.views import View
from pictura.data.workers import Note, in_order

__all__ = ["BadSamples", "Batch", "Batches", "LoaderConfig", "ordered", "prefetch", "random_generator"]

Job = tuple[int, npt.NDArray[np.integer[Any]]]  # epoch, indices
Made = tuple[Batch, list[tuple[str, str]]]  # a batch of arrays, and the bad samples (key, reason) met on the way

FROM_SOURCE = {"text": "captions"}  # batch keys that go by another name in a source
ATTEMPTS = 32  # to replace one bad sample


@dataclass(frozen=True, kw_only=True)
class LoaderConfig(Config):
    """How batches are made. `batch_size` is that of the whole optimiser step, shared out among all processes.

    workers: processes that read and decode, per training process (0: its own). prefetch: batches ready ahead, per worker.
    max_bad: the share of samples that may be unusable before the run stops.
    """

    batch_size: int = 256
    workers: int = 0
    prefetch: int = 2
    max_bad: float = 0.01

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("workers", 0), ("prefetch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} is below {least}")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"max_bad: {self.max_bad} is not a share between 0 and 1")


def random_generator(seed: int, epoch: int, index: int, stream: str) -> np.random.Generator:
    """The random numbers that belong to one example of one epoch, for one purpose (`stream`).

    Philox is a cipher in counter mode, so distinct (seed, stream, epoch, index) give streams that never meet.
    """
    return np.random.Generator(np.random.Philox(key=_key(seed, stream), counter=[0, 0, index, epoch]))


@lru_cache(maxsize=256)
def _key(seed: int, stream: str) -> tuple[int, int]:
    return seed % 2**64, int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")


class _Stream:
    """`random_generator(seed, epoch, index, stream)` for many examples, by moving one generator: 1 µs instead of 9."""

    def __init__(self, seed: int, stream: str) -> None:
        self._bits = np.random.Philox(key=_key(seed, stream))
        self._state: Any = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, epoch: int, index: int) -> np.random.Generator:
        """Good until the next call."""
        self._state["state"]["counter"][2:] = index, epoch
        self._bits.state = self._state
        return self._generator


class _Reader:
    """Indices to a batch; what runs in a worker process. `seed` None: no randomness (the first caption), and bad samples are left out."""

    def __init__(
        self, source: Source, view: View | None, tokenizer: Tokenizer | None, keys: frozenset[str], seed: int | None
    ) -> None:
        self.source, self.view, self.tokenizer, self.keys, self.seed = source, view, tokenizer, sorted(keys), seed
        self.draws = _Stream(seed or 0, "sample")

    def __call__(self, job: Job, note: Note) -> Made:
        epoch, indices = job
        rows: list[Batch] = []
        bad: list[tuple[str, str]] = []
        for index in indices.tolist():
            try:
                rows.append(self._read(epoch, index, note))
            except BadSample as sample:
                bad.append((sample.key, sample.reason))
                if self.seed is not None:
                    rows.append(self._replace(epoch, index, note, bad))
        return self._collate(rows), bad

    def _read(self, epoch: int, index: int, note: Note) -> Batch:
        note(f"example {index}")
        try:
            example = cast(dict[str, Any], self.source[index])
            note(f"example {index}, {example['key']}")
            row = {"index": index, "key": example["key"]}
            random = self.draws.at(epoch, index)
            chance = random.random()
            for key in self.keys:
                value = example[FROM_SOURCE.get(key, key)]
                if key == "image":
                    value = self._look(value, random, example["key"])
                elif key == "text":
                    value = value[int(chance * len(value)) if self.seed is not None else 0]
                row[key] = value
            return row
        except BadSample:
            raise
        except Exception as error:
            error.add_note(f"while reading example {index}")
            raise

    def _look(self, image: bytes | npt.NDArray[np.uint8], random: np.random.Generator, key: str) -> Tensor:
        """One picture as [y x c] (its last axes, where a view gives several)."""
        assert self.view is not None
        if isinstance(image, np.ndarray) and self.view.takes_arrays:
            return self.view(image, random).movedim(-3, -1)
        return self.view(decode(image, at_least=self.view.at_least, key=key), random).movedim(-3, -1)

    def _replace(self, epoch: int, index: int, note: Note, bad: list[tuple[str, str]]) -> Batch:
        assert self.seed is not None
        random = random_generator(self.seed, epoch, index, "replacement")
        for _ in range(ATTEMPTS):
            try:
                return self._read(epoch, int(random.integers(len(self.source))), note)
            except BadSample as sample:
                bad.append((sample.key, sample.reason))
        named = "; ".join(f"{key}: {reason}" for key, reason in dict(bad).items())
        raise ValueError(f"{ATTEMPTS} samples drawn in place of a bad one are bad too; is the whole source unreadable? {named[:1000]}")

    def _collate(self, rows: list[Batch]) -> Batch:
        """Rows to arrays: arrays cross a process border without being copied into a pickle, tensors do not."""
        batch: Batch = {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}
        for key, values in batch.items():
            if key == "image":
                batch[key] = torch.stack(values).numpy()
            elif key == "text":
                assert self.tokenizer is not None
                batch[key] = self.tokenizer(values).numpy()
            elif key in ("index", "label"):
                batch[key] = np.array(values, dtype=np.int64)
        return batch


class Batches:
    """Training batches without end, in an order that is new in every epoch. An epoch is the whole batches that fit in one permutation.

    `needs`: batch keys ("image", "text", "label", or what else the source provides). A sample that cannot be read is replaced by
    another, drawn for it and for no other, so that batches keep their size; `bad` counts them by name. Each of `world` processes
    gets its slice of the same batch. Raises ValueError when the source cannot give what is needed.
    """

    def __init__(
        self,
        source: Source,
        view: View | None,
        tokenizer: Tokenizer | None,
        config: LoaderConfig,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        needs: frozenset[str] = frozenset({"image", "text"}),
    ) -> None:
        assert 0 <= rank < world, (rank, world)
        _check(source, view, tokenizer, needs)
        if config.batch_size > len(source):
            raise ValueError(
                f"loader.batch_size: {config.batch_size} is more than the {len(source):,} examples there are; try {len(source)} or less"
            )
        if config.batch_size % world:
            near = max(1, config.batch_size // world) * world
            raise ValueError(f"loader.batch_size: {config.batch_size} does not divide among {world} processes; try {near}")
        self.source, self.config, self.seed, self.rank, self.world = source, config, seed, rank, world
        self.steps_per_epoch = len(source) // config.batch_size
        self.bad = BadSamples(len(source) + len(source.bad), config.max_bad)
        for sample in source.bad:
            self.bad.add(sample.key, sample.reason)
        self._reader = _Reader(source, view, tokenizer, needs, seed)

    def iterate(self, start_step: int = 0) -> Iterator[Batch]:
        """The batches of steps `start_step`, `start_step` + 1, …; worker processes start now, and end with the iterator."""
        made = in_order(self._reader, self._jobs(start_step), self.config.workers, self.config.prefetch)
        return _counted(made, self.bad)

    def _jobs(self, start_step: int) -> Iterator[Job]:
        whole, part = self.config.batch_size, self.config.batch_size // self.world
        order, epoch_of_order = np.empty(0, np.uint32), -1
        for step in count(start_step):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != epoch_of_order:
                order, epoch_of_order = _order(self.seed, epoch, len(self.source)), epoch
            first = place * whole + self.rank * part
            yield epoch, order[first : first + part]


def ordered(
    source: Source,
    view: View | None,
    tokenizer: Tokenizer | None,
    batch_size: int,
    workers: int = 0,
    *,
    bad: BadSamples | None = None,
) -> Iterator[Batch]:
    """For evaluation: each example once, in order, with all that the source provides; "text" is the first of its "captions".

    Bad samples are left out and counted in `bad`, so a batch may be short. ValueError when not one example can be read.
    """
    bad = BadSamples() if bad is None else bad
    for sample in source.bad:
        bad.add(sample.key, sample.reason)
    provided = set(source.provides) - ({"image"} if view is None else set())
    keys = frozenset(provided | ({"text"} if tokenizer is not None and "captions" in provided else set()))
    jobs: Iterator[Job] = (
        (0, np.arange(first, min(first + batch_size, len(source)))) for first in range(0, len(source), batch_size)
    )
    workers = min(workers, -(-len(source) // batch_size))
    return _counted(in_order(_Reader(source, view, tokenizer, keys, None), jobs, workers), bad)


def _counted(made: Iterator[Made], bad: BadSamples) -> Iterator[Batch]:
    some = False
    for batch, failures in made:
        for key, reason in failures:
            bad.add(key, reason)
        if batch:
            some = True
            yield _tensors(batch)
    if not some and len(bad):
        key, reason = bad.rows()[0]
        raise ValueError(f"not one of the {len(bad):,} examples can be read; the first is {key}: {reason}")


def _tensors(batch: Batch) -> Batch:
    batch = {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in batch.items()}
    return batch | {"image": batch["image"].movedim(-1, -3)} if "image" in batch else batch


def _order(seed: int, epoch: int, size: int) -> npt.NDArray[np.integer[Any]]:
    """The permutation of one epoch."""
    order = np.arange(size, dtype=np.uint32 if size < 2**32 else np.int64)
    random_generator(seed, epoch, 0, "order").shuffle(order)
    return order


def _check(source: Source, view: View | None, tokenizer: Tokenizer | None, needs: frozenset[str]) -> None:
    for need in sorted(needs):
        provided = FROM_SOURCE.get(need, need)
        if provided not in source.provides:
            there = ", ".join(sorted(source.provides)) or "nothing"
            raise ValueError(f"the objectives need {provided!r} of each example, but this data provides {there}")
    assert view is not None or "image" not in needs
    assert tokenizer is not None or "text" not in needs
