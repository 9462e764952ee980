"""From examples to batches. What a batch holds is a function of (seed, epoch, index): not of the number of workers, of
time, or of where a run was resumed.

Pictures stay uint8 until the model normalises them on its device. In memory they lie as [b y x c] (channels_last), as
decoders give them and as convolutions like them; their shape is [b c y x] all the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import numpy.typing as npt

from pictura.config import Config
from pictura.data.faults import BadSamples
from pictura.data.prefetch import Batch, prefetch
from pictura.data.randomness import random_generator
from pictura.data.reader import FROM_SOURCE, GIVEN, PICTURES, TEXTS, Job, Made, Reader, tensors
from pictura.data.source import BadSample, Example, Source
from pictura.data.stream import Stream
from pictura.data.text import Tokenizer
from pictura.data.views import View
from pictura.data.workers import in_order

__all__ = ["BadSamples", "Batch", "Batches", "LoaderConfig", "ordered", "prefetch", "random_generator"]


@dataclass(frozen=True, kw_only=True)
class LoaderConfig(Config):
    """How batches are made. `batch_size` is that of a whole optimiser step, shared out among all processes.

    workers: processes that read and decode, for each training process (0: itself). prefetch: batches ready ahead, of
    each worker. max_bad: share of the samples that may be unusable before the run stops. shuffle: encoded examples of a
    stream that are held to be drawn from; other sources are shuffled as a whole.
    """

    batch_size: int = 256
    workers: int = 0
    prefetch: int = 2
    max_bad: float = 0.01
    shuffle: int = 2048

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("workers", 0), ("prefetch", 1), ("shuffle", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} is below {least}")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"max_bad: {self.max_bad} is not a share between 0 and 1")


class Batches:
    """Training batches without end, in a new order in every epoch. An epoch is the whole batches in one permutation.

    `needs`: batch keys ("image", "text", "label", "seed", those that `Reader` makes, or another that the source
    provides); `others`: how many captions of other examples "other" holds for each. A sample that cannot be read is
    replaced by one drawn for it, so that batches keep their size, and counted in `bad`. Each of `world` processes gets
    its rows of the same batch; of a `Stream`, its own tars. ValueError when the source cannot give what is needed.
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
        others: int = 1,
    ) -> None:
        assert 0 <= rank < world, (rank, world)
        assert view is not None or not needs & PICTURES
        assert tokenizer is not None or not needs & TEXTS
        _check_provided(source, needs)
        _check_batch_size(source, config.batch_size, world)
        self.source, self.config, self.seed, self.rank, self.world = source, config, seed, rank, world
        total = None if isinstance(source, Stream) else len(source) + len(source.bad)
        self.bad = BadSamples(total, config.max_bad, world)
        for sample in source.bad:
            self.bad.add(sample.key, sample.reason, of_all=True)
        self._reader = Reader(source, view, tokenizer, needs, seed, others)

    @property
    def steps_per_epoch(self) -> int:
        """ValueError for a stream that was not told how many examples it has."""
        return len(self.source) // self.config.batch_size

    def iterate(self, start_step: int = 0) -> Iterator[Batch]:
        """The batches of steps `start_step`, `start_step` + 1, …; worker processes start now and end with the iterator.

        A stream is read from its beginning again, and what lies before `start_step` passed over.
        """
        jobs = self._jobs(start_step) if not isinstance(self.source, Stream) else self._stream(self.source, start_step)
        return _counted(in_order(self._reader, jobs, self.config.workers, self.config.prefetch), self.bad)

    def _jobs(self, start_step: int) -> Iterator[Job]:
        whole, part = self.config.batch_size, self.config.batch_size // self.world
        epoch_of_order = -1
        for step in count(start_step):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != epoch_of_order:
                order, epoch_of_order = _order(self.seed, epoch, len(self.source)), epoch
            first = place * whole + self.rank * part
            self.bad.saw(part)
            yield Job(epoch, order[first : first + part])

    def _stream(self, source: Stream, start_step: int) -> Iterator[Job]:
        part = self.config.batch_size // self.world
        examples = self._shuffled(source)
        for step in count():
            batch = list(islice(examples, part))
            if step >= start_step:
                yield Job(0, (np.arange(part) + step * part) * self.world + self.rank, batch)

    def _shuffled(self, source: Stream) -> Iterator[Example]:
        """This process's examples of epoch after epoch, each drawn from the `shuffle` ones that are held."""
        random = random_generator(self.seed, 0, self.rank, "shuffle")
        held: list[Example] = []
        for epoch in count():
            for example in source.epoch(epoch, self.seed, self.rank, self.world):
                self.bad.saw(1)
                if isinstance(example, BadSample):
                    self.bad.add(example.key, example.reason)
                    continue
                held.append(example)
                if len(held) > self.config.shuffle:
                    place = int(random.integers(len(held)))
                    held[place], held[-1] = held[-1], held[place]
                    yield held.pop()


def ordered(
    source: Source,
    view: View | None,
    tokenizer: Tokenizer | None,
    batch_size: int,
    workers: int = 0,
    *,
    bad: BadSamples | None = None,
    placed: bool = False,
) -> Iterator[Batch]:
    """For evaluation: each example once, in order, with all that the source provides; "text" is the first caption,
    "left" and "right" the two `images` of a pair; `placed`: with "placement", what the view did to each picture.

    Bad samples are left out and counted in `bad`, so a batch may be short. ValueError when no example can be read.
    """
    bad = BadSamples() if bad is None else bad
    for sample in source.bad:
        bad.add(sample.key, sample.reason)
    keys = source.provides - (frozenset({"image"}) if view is None else frozenset())
    if "images" in keys:
        keys = keys - {"images"} | (frozenset({"left", "right"}) if view is not None else frozenset())
    if tokenizer is not None and "captions" in keys:
        keys |= {"text"}
    if placed:
        keys |= {"placement"}
    firsts = range(0, len(source), batch_size)
    jobs = (Job(0, np.arange(first, min(first + batch_size, len(source)))) for first in firsts)
    return _counted(in_order(Reader(source, view, tokenizer, keys, None), jobs, min(workers, len(firsts))), bad)


def _counted(made: Iterator[Made], bad: BadSamples) -> Iterator[Batch]:
    some = False
    for batch, failures in made:
        for key, reason in failures:
            bad.add(key, reason)
        if batch:
            some = True
            yield tensors(batch)
    if not some and len(bad):
        key, reason = bad.rows()[0]
        raise ValueError(f"not one of {len(bad):,} examples can be read; the first is {key}: {reason}")


def _order(seed: int, epoch: int, size: int) -> npt.NDArray[np.uint32] | npt.NDArray[np.int64]:
    """The permutation of one epoch, in half the memory where the numbers are small enough."""
    order = np.arange(size, dtype=np.uint32) if size < 2**32 else np.arange(size, dtype=np.int64)
    random_generator(seed, epoch, 0, "order").shuffle(order)
    return order


def _check_provided(source: Source, needs: frozenset[str]) -> None:
    for need in sorted(needs - GIVEN):
        provided = FROM_SOURCE.get(need, need)
        if provided not in source.provides:
            there = ", ".join(sorted(source.provides)) or "nothing"
            raise ValueError(f"the objectives need {provided!r} of each example, but this data provides {there}")
    if "other" in needs and isinstance(source, Stream):
        raise ValueError(
            "the objectives need a caption of another example beside each one's own, and a stream is read in its own "
            "order; copy its tars here and use `kind: shards`, or a table or folders"
        )


def _check_batch_size(source: Source, batch_size: int, world: int) -> None:
    if not isinstance(source, Stream) and batch_size > len(source):
        raise ValueError(f"loader.batch_size: {batch_size} is more than the {len(source):,} examples that there are")
    if batch_size % world:
        near = max(1, batch_size // world) * world
        raise ValueError(f"loader.batch_size: {batch_size} does not divide among {world} processes; try {near}")
