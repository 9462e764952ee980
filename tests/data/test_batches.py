"""Batches: their order, whole epochs, resuming, workers, ranks, bad samples and streams."""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.config import load
from pictura.data.batches import BadSamples, Batch, Batches, LoaderConfig, ordered
from pictura.data.bpe import TrainTokenizerConfig
from pictura.data.fit import FitConfig
from pictura.data.scenes import ScenesConfig
from pictura.data.source import BadSample, Example, Source
from pictura.data.stream import Stream, StreamConfig
from pictura.data.views import NoViewConfig, RandomCropConfig

LABEL = frozenset({"label"})
IMAGE = frozenset({"image"})


class Pixels(Source):
    """Example i has label i and a picture of i; those in `broken` cannot be read."""

    provides = frozenset({"image", "label"})

    def __init__(self, count: int, broken: frozenset[int] = frozenset()) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        if index in self.broken:
            raise BadSample(f"{index}.jpg", "torn")
        pixels = np.full((6, 6, 3), index % 256, np.uint8)
        return Example(key=f"{index}.jpg", image=pixels, label=index)


def made(
    source: Source, steps: int, *, start: int = 0, needs: frozenset[str] = LABEL, seed: int = 0, **options: Any
) -> list[Batch]:
    ranks = {name: options.pop(name) for name in ("rank", "world") if name in options}
    view = RandomCropConfig(image_size=4, scale=(0.3, 1.0)).build() if "image" in needs else None
    batches = Batches(source, view, None, LoaderConfig(**options), seed=seed, needs=needs, **ranks)
    return list(itertools.islice(batches.iterate(start), steps))


def labels(batches: list[Batch]) -> list[list[int]]:
    return [batch["label"].tolist() for batch in batches]


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) if k != "key" else a[k] == b[k] for k in a)
        for a, b in zip(one, other, strict=True)
    )


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**64))
def test_an_epoch_holds_each_example_at_most_once(count: int, batch_size: int, seed: int) -> None:
    batch_size = min(batch_size, count)
    steps = count // batch_size
    rows = labels(made(Pixels(count), 2 * steps, batch_size=batch_size, seed=seed))
    assert all(len(row) == batch_size for row in rows)
    for epoch in (rows[:steps], rows[steps:]):
        seen = list(itertools.chain(*epoch))
        assert len(set(seen)) == steps * batch_size
        assert set(seen) <= set(range(count))


def test_the_order_depends_on_seed_and_epoch() -> None:
    rows = labels(made(Pixels(50), 3, batch_size=50))
    other = labels(made(Pixels(50), 1, batch_size=50, seed=1))
    orders = {tuple(row) for row in [*rows, *other, list(range(50))]}
    assert len(orders) == 5


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("start", [0, 1, 3, 7])
def test_any_start_and_any_number_of_workers_give_the_same_batches(workers: int, start: int) -> None:
    source = Pixels(31, broken=frozenset({3, 17}))
    options = {"batch_size": 8, "needs": IMAGE | LABEL, "max_bad": 1.0}
    reference = made(source, 10, **options)
    assert same(reference[start:], made(source, 10 - start, start=start, workers=workers, **options))


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_batch_of_one_process(world: int) -> None:
    source = Pixels(40, broken=frozenset({5, 6}))
    options = {"batch_size": 8, "needs": IMAGE | LABEL, "max_bad": 1.0}
    whole = made(source, 6, **options)
    parts = [made(source, 6, rank=rank, world=world, **options) for rank in range(world)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[step]["image"] for part in parts]), batch["image"])
        assert torch.cat([part[step]["label"] for part in parts]).tolist() == batch["label"].tolist()


def test_bad_samples_are_replaced_and_counted_once() -> None:
    batches = Batches(
        Pixels(100, frozenset({7, 8})), None, None, LoaderConfig(batch_size=10, max_bad=0.02), seed=0, needs=LABEL
    )
    for batch in itertools.islice(batches.iterate(), 30):  # three epochs
        assert len(batch["label"]) == 10
        assert not {7, 8} & set(batch["label"].tolist())
    assert sorted(batches.bad.rows()) == [("7.jpg", "torn"), ("8.jpg", "torn")]


@pytest.mark.parametrize("workers", [0, 2])
def test_above_the_limit_the_run_stops_and_names_them(workers: int) -> None:
    with pytest.raises(ValueError, match=r"3 of 100 samples cannot be used .*: \d+\.jpg: torn; \d+\.jpg: torn; "):
        made(Pixels(100, frozenset({7, 8, 9})), 20, batch_size=10, max_bad=0.02, workers=workers)


def test_samples_found_bad_while_indexing_count_too() -> None:
    source = Pixels(98)
    source.bad = [BadSample("a.txt", "not UTF-8"), BadSample("b.txt", "not UTF-8")]
    batches = Batches(source, None, None, LoaderConfig(batch_size=10, max_bad=0.02), seed=0, needs=LABEL)
    assert batches.bad.share == 0.02
    with pytest.raises(ValueError, match="2 of 100 samples"):
        Batches(source, None, None, LoaderConfig(batch_size=10), seed=0, needs=LABEL)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_that_is_bad_altogether_is_named(workers: int) -> None:
    with pytest.raises(ValueError, match=r"samples drawn in place of a bad one are bad too.*jpg: torn"):
        made(Pixels(100, frozenset(range(100))), 1, batch_size=10, max_bad=1.0, workers=workers)


def test_the_user_is_told_what_does_not_fit() -> None:
    source = Pixels(10)
    with pytest.raises(ValueError, match=r"loader\.batch_size: 11 is more than the 10 examples"):
        made(source, 1, batch_size=11)
    with pytest.raises(ValueError, match=r"loader\.batch_size: 10 does not divide among 4 processes; try 8"):
        made(source, 1, batch_size=10, world=4, rank=0)
    with pytest.raises(ValueError, match=r"objectives need 'captions' .* this data provides image, label"):
        Batches(source, None, object(), LoaderConfig(batch_size=2), seed=0, needs=frozenset({"text"}))  # type: ignore[arg-type]
    for name, value in (("batch_size", 0), ("workers", -1), ("prefetch", 0), ("shuffle", 0), ("max_bad", 1.5)):
        with pytest.raises(ValueError, match=f"^{name}: "):
            load(LoaderConfig, {name: value})


def test_a_killed_worker_is_an_error_that_names_the_example_and_the_remedy() -> None:
    class Bomb(Pixels):
        def __getitem__(self, index: int) -> Example:
            if index == 13:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(index)

    with pytest.raises(RuntimeError, match=r"killed at example 13, .*memory: lower loader\.workers"):
        made(Bomb(20), 2, batch_size=10, workers=2)


def test_the_source_is_read_once_for_each_example() -> None:
    read: list[int] = []

    class Noted(Pixels):
        def __getitem__(self, index: int) -> Example:
            read.append(index)
            return super().__getitem__(index)

    rows = labels(made(Noted(12), 4, batch_size=3))
    assert read == list(itertools.chain(*rows))


def test_scenes_pass_through_untouched() -> None:
    source = ScenesConfig(count=30, image_size=32, gives=("image",)).build()
    batches = Batches(
        source, NoViewConfig(image_size=32).build(), None, LoaderConfig(batch_size=5), seed=0, needs=IMAGE
    )
    batch = next(batches.iterate())
    for row, index in enumerate(batch["index"].tolist()):
        assert (batch["image"][row].permute(1, 2, 0).numpy() == source[index]["image"]).all()


class Told(Pixels):
    """Pairs of pictures of several sizes, and words about them."""

    provides = frozenset({"image", "images", "label", "captions", "question", "statement"})

    def __getitem__(self, index: int) -> Example:
        example = dict(super().__getitem__(index))
        pixels = np.random.default_rng(index).integers(0, 256, (6, 6 + index % 5, 3), dtype=np.uint8)
        example |= {"image": pixels, "images": [pixels, pixels[::-1]], "captions": self.captions(index)}
        return example | {"question": f"is it {index}?", "statement": f"it is {index}"}  # type: ignore[return-value]

    def captions(self, index: int) -> list[str]:
        if index in self.broken:
            raise BadSample(f"{index}.jpg", "torn")
        return [f"number {index}", f"the number {index}"]


TOLD = frozenset({"image", "left", "right", "text", "other", "words", "question", "statement", "label"})


def told(steps: int, *, start: int = 0, workers: int = 0, rank: int = 0, world: int = 1) -> list[Batch]:
    source = Told(31, broken=frozenset({3, 17}))
    tokenizer = TrainTokenizerConfig(vocab_size=560).build(lambda: ["number the is it"])
    view = FitConfig(image_size=8, patch_size=4, longest=16, rand_augment=(2, 9)).build()
    config = LoaderConfig(batch_size=8, workers=workers, max_bad=1.0)
    batches = Batches(source, view, tokenizer, config, seed=0, rank=rank, world=world, needs=TOLD)
    return list(itertools.islice(batches.iterate(start), steps))


def rows_of(batches: list[Batch]) -> list[dict[str, Any]]:
    """What each example has: pictures, and texts without their padding."""
    examples = []
    for batch in batches:
        for place in range(len(batch["index"])):
            row = {key: batch[key][place] for key in batch}
            row["other"] = row["other"][0]
            for key in ("text", "other", "words", "question", "statement"):
                row[key] = row[key][: row[key].nonzero().max() + 1]
            examples.append(row)
    return examples


def assert_alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys() == TOLD | {"index", "key"}
        assert a["key"] == b["key"]
        assert all(torch.equal(a[key], b[key]) for key in a.keys() - {"key"})


def test_pairs_questions_and_others_captions_are_the_same_at_any_start_with_any_workers_and_ranks() -> None:
    reference = told(6)
    assert isinstance(reference[0]["left"], list)
    assert len({one.shape for batch in reference for one in batch["left"]}) > 1
    for start, workers in ((2, 0), (0, 1), (3, 3)):
        again = told(6 - start, start=start, workers=workers)
        assert_alike(rows_of(reference[start:]), rows_of(again))
        assert [batch["text"].shape for batch in again] == [batch["text"].shape for batch in reference[start:]]
    parts = [told(6, rank=rank, world=2) for rank in range(2)]
    shared = [row for pair in zip(*parts, strict=True) for row in rows_of([*pair])]
    assert_alike(rows_of(reference), shared)


# evaluation


def test_ordered_gives_both_pictures_of_a_pair() -> None:
    source, view = Told(3), FitConfig(image_size=4, patch_size=2).build()
    (batch,) = ordered(source, view, None, 4)
    assert set(batch) == {"index", "key", "label", "image", "left", "right", "captions", "question", "statement"}
    assert batch["question"] == ["is it 0?", "is it 1?", "is it 2?"]
    random = np.random.default_rng()
    for row in range(3):
        for key, picture in zip(("left", "right"), source[row]["images"], strict=True):  # type: ignore[typeddict-item]
            assert torch.equal(batch[key][row], view(picture, random))
    (batch,) = ordered(source, None, None, 4)
    assert not {"image", "images", "left", "right"} & set(batch)


@pytest.mark.parametrize("workers", [0, 2])
def test_ordered_gives_each_example_once(workers: int) -> None:
    bad = BadSamples()
    source = Pixels(11, broken=frozenset({0, 4, 5, 6, 7}))
    rows = list(ordered(source, NoViewConfig(image_size=6).build(), None, 4, workers, bad=bad))
    assert labels(rows) == [[1, 2, 3], [8, 9, 10]]
    assert [batch["key"] for batch in rows] == [["1.jpg", "2.jpg", "3.jpg"], ["8.jpg", "9.jpg", "10.jpg"]]
    assert [key for key, _ in bad] == ["0.jpg", "4.jpg", "5.jpg", "6.jpg", "7.jpg"]
    assert rows[1]["image"][:, 0, 0, 0].tolist() == [8, 9, 10]


def test_ordered_without_a_view_reads_no_pictures() -> None:
    (batch,) = ordered(Pixels(3), None, None, 4)
    assert set(batch) == {"index", "key", "label"}


def test_ordered_with_nothing_readable_says_so() -> None:
    with pytest.raises(ValueError, match=r"not one of 3 examples can be read; the first is 0\.jpg: torn"):
        list(ordered(Pixels(3, frozenset(range(3))), None, None, 2))
    assert list(ordered(Pixels(0), None, None, 2)) == []


# streams


class Tape(Stream):
    """A stream without a network: each of four tars holds 25 examples."""

    provides = frozenset({"image", "label"})

    def __init__(self, broken: frozenset[int] = frozenset()) -> None:
        super().__init__(StreamConfig(path="https://host/{0..3}.tar"))
        self.broken = broken
        self.provides = Pixels.provides

    def epoch(self, epoch: int, seed: int, rank: int, world: int) -> Iterator[Example | BadSample]:
        order = np.random.default_rng([seed, epoch]).permutation(4)
        source = Pixels(100, self.broken)
        for tar in order[rank::world].tolist():
            for index in range(tar * 25, tar * 25 + 25):
                try:
                    yield source[index]
                except BadSample as bad:
                    yield bad


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_each_example_once_an_epoch_and_resumes(workers: int) -> None:
    options = {"batch_size": 10, "needs": IMAGE | LABEL, "shuffle": 30, "max_bad": 1.0}
    reference = made(Tape(), 20, **options)
    counts = np.bincount(list(itertools.chain(*labels(reference))), minlength=100)
    assert counts.max() <= 3
    assert counts.min() >= 1
    assert labels(reference)[0] != sorted(labels(reference)[0]), "it is not shuffled"
    assert same(reference[6:], made(Tape(), 14, start=6, workers=workers, **options))


def test_the_ranks_of_a_stream_read_different_tars() -> None:
    options = {"batch_size": 10, "needs": IMAGE | LABEL, "shuffle": 5}
    one, two = (made(Tape(), 8, rank=rank, world=2, **options) for rank in range(2))
    assert not set(itertools.chain(*labels(one))) & set(itertools.chain(*labels(two)))
    assert all(len(row) == 5 for row in labels(one))
    indices = torch.cat([batch["index"] for batch in one + two])
    assert len(indices.unique()) == len(indices), "augmentation would repeat"


def test_bad_samples_of_a_stream_are_counted() -> None:
    source = Tape(frozenset(range(10, 15)))
    batches = Batches(source, None, None, LoaderConfig(batch_size=10, shuffle=5), seed=0, needs=LABEL)
    assert all(len(batch["label"]) == 10 for batch in itertools.islice(batches.iterate(), 30))
    assert len(batches.bad) == 5
    with pytest.raises(ValueError, match="examples"):
        _ = batches.steps_per_epoch


def test_a_stream_has_no_other_examples_to_ask() -> None:
    source = Tape()
    source.provides = source.provides | {"captions"}
    with pytest.raises(ValueError, match=r"caption of another example .* use `kind: shards`, or a table or folders"):
        Batches(source, None, object(), LoaderConfig(batch_size=2), seed=0, needs=frozenset({"other"}))  # type: ignore[arg-type]


def test_folders_from_end_to_end(tmp_path: Path) -> None:
    """Real files, decoding, a crop, and one file that is no picture."""
    from pictura.data.folders import FolderConfig
    from tests.data.files import encoded, photo, write

    for number in range(12):
        write(tmp_path / f"{'ab'[number % 2]}/{number}.png", encoded(photo(seed=number)))
    write(tmp_path / "a/torn.png", b"not a picture")
    source = FolderConfig(path=tmp_path).build()
    config = LoaderConfig(batch_size=6, max_bad=0.1, workers=1)
    batches = Batches(source, RandomCropConfig(image_size=16).build(), None, config, seed=0, needs=IMAGE | LABEL)
    for batch in itertools.islice(batches.iterate(), 4):
        assert batch["image"].shape == (6, 3, 16, 16)
    ((key, reason),) = batches.bad
    assert "torn.png" in key
    assert reason
