"""One batch against a naive reading of its examples."""

import numpy as np
import pytest
import torch

from pictura.data.bpe import TrainTokenizerConfig
from pictura.data.fit import FitConfig
from pictura.data.randomness import random_generator
from pictura.data.reader import ATTEMPTS, Job, Reader, tensors
from pictura.data.source import BadSample, Example, Source
from pictura.data.text import Tokenizer
from pictura.data.views import NoViewConfig, RandomCropConfig
from tests.data.files import encoded

NEW = frozenset({"image", "left", "right", "text", "other", "words", "question", "statement"})
CAPTIONS = [f"picture number {number} of many" for number in range(40)]
ALL = frozenset({"image", "text", "label", "captions", "extra"})


def nothing(note: str) -> None:
    pass


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return TrainTokenizerConfig(vocab_size=600).build(lambda: CAPTIONS)


class Numbers(Source):
    """Example i is a picture of i with i + 1 captions; those in `broken` cannot be read."""

    provides = frozenset({"image", "captions", "label", "extra"})

    def __init__(self, count: int = 20, broken: frozenset[int] = frozenset()) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        if index in self.broken:
            raise BadSample(f"n{index}", "torn")
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        captions = [f"{caption} {index}" for caption in CAPTIONS[: index + 1]]
        example = {"key": f"n{index}", "image": pixels, "captions": captions, "label": index % 3, "extra": [index]}
        return example  # type: ignore[return-value]


def test_a_batch_holds_what_a_naive_reading_gives(tokenizer: Tokenizer) -> None:
    source, view = Numbers(), RandomCropConfig(image_size=6, scale=(0.3, 1.0), flip=True).build()
    indices = [7, 3, 19, 3]
    made, bad = Reader(source, view, tokenizer, ALL, seed=5)(Job(2, np.array(indices)), nothing)
    batch = tensors(made)
    images, texts = [], []
    for index in indices:
        example, random = source[index], random_generator(5, 2, index, "sample")
        texts.append(example["captions"][int(random.random() * len(example["captions"]))])
        images.append(view(_picture(example["image"]), random))
    assert torch.equal(batch["image"], torch.stack(images))
    assert torch.equal(batch["text"], tokenizer(texts))
    assert batch["label"].tolist() == [index % 3 for index in indices]
    assert batch["index"].tolist() == indices
    assert batch["key"] == [f"n{index}" for index in indices]
    assert batch["extra"] == [[index] for index in indices]
    assert batch["captions"][1] == source[3]["captions"]
    assert bad == []
    assert (batch["image"].dtype, batch["text"].dtype, batch["label"].dtype) == (torch.uint8, torch.int64, torch.int64)


def _picture(pixels: object) -> object:
    from PIL import Image

    return Image.fromarray(pixels)  # type: ignore[arg-type]


def test_pictures_lie_in_memory_as_decoders_give_them(tokenizer: Tokenizer) -> None:
    reader = Reader(Numbers(), NoViewConfig(image_size=8).build(), tokenizer, frozenset({"image"}), seed=0)
    image = tensors(reader(Job(0, np.arange(4)), nothing)[0])["image"]
    assert image.shape == (4, 3, 8, 8)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(image[2].permute(1, 2, 0), torch.from_numpy(Numbers()[2]["image"]))


def test_every_caption_has_its_turn(tokenizer: Tokenizer) -> None:
    reader = Reader(Numbers(), None, tokenizer, frozenset({"text"}), seed=0)
    rows = {tuple(reader(Job(epoch, np.array([3])), nothing)[0]["text"][0].tolist()) for epoch in range(60)}
    assert len(rows) == 4


def test_only_what_is_needed_is_in_the_batch() -> None:
    made, _ = Reader(Numbers(), None, None, frozenset({"label"}), seed=0)(Job(0, np.arange(3)), nothing)
    assert set(made) == {"index", "key", "label"}


def test_a_bad_sample_is_replaced_by_one_drawn_for_it() -> None:
    broken = frozenset({1, 4, 9})
    reader = Reader(Numbers(broken=broken), None, None, frozenset({"label"}), seed=3)
    made, bad = reader(Job(6, np.array([0, 1, 2, 4])), nothing)
    expected, reported = [], []
    for index in (0, 1, 2, 4):
        random, wanted = random_generator(3, 6, index, "replacement"), index
        while wanted in broken:
            reported.append((f"n{wanted}", "torn"))
            wanted = int(random.integers(20))
        expected.append(wanted)
    assert made["index"].tolist() == expected
    assert bad == reported
    alone, _ = reader(Job(6, np.array([4])), nothing)
    assert alone["index"].tolist() == expected[3:], "what replaces an example must not depend on its neighbours"


def test_for_evaluation_bad_samples_are_left_out_and_the_first_caption_taken(tokenizer: Tokenizer) -> None:
    reader = Reader(Numbers(broken=frozenset({1})), None, tokenizer, frozenset({"text"}), seed=None)
    made, bad = reader(Job(0, np.arange(4)), nothing)
    assert made["index"].tolist() == [0, 2, 3]
    assert bad == [("n1", "torn")]
    assert (made["text"] == tokenizer([f"{CAPTIONS[0]} {index}" for index in (0, 2, 3)]).numpy()).all()
    assert reader(Job(0, np.array([1])), nothing) == ({}, [("n1", "torn")])


def test_when_everything_is_bad_it_says_so() -> None:
    reader = Reader(Numbers(5, frozenset(range(5))), None, None, frozenset({"label"}), seed=0)
    with pytest.raises(ValueError, match=rf"{ATTEMPTS} samples drawn .* n2: torn"):
        reader(Job(0, np.array([2])), nothing)


def test_examples_in_hand_are_not_fetched_and_replace_each_other() -> None:
    source, elsewhere = Numbers(broken=frozenset(range(20))), Numbers(2000)
    examples = [elsewhere[1000], elsewhere[1001], Example(key="torn.jpg", image=b"", captions=["x"])]
    reader = Reader(source, NoViewConfig(image_size=8).build(), None, frozenset({"image"}), seed=0)
    made, bad = reader(Job(0, np.array([30, 31, 32]), examples), nothing)
    assert made["key"][:2] == ["n1000", "n1001"]
    assert made["key"][2] in ("n1000", "n1001")
    assert set(bad) == {("torn.jpg", "empty file")}


def test_what_is_being_read_is_noted_and_an_unexpected_error_names_it() -> None:
    class Faulty(Numbers):
        def __getitem__(self, index: int) -> Example:
            if index == 5:
                raise OSError("disk on fire")
            return super().__getitem__(index)

    notes: list[str] = []
    reader = Reader(Faulty(), None, None, frozenset({"label"}), seed=0)
    with pytest.raises(OSError, match="disk on fire") as caught:
        reader(Job(0, np.array([4, 5])), notes.append)
    assert notes == ["example 4", "example 4, n4", "example 5"]
    assert caught.value.__notes__ == ["while reading example 5"]


# pictures of several sizes, pairs, questions, other examples' captions


class Pairs(Numbers):
    """Example i: a picture 8 pixels high and 8 + i wide; a pair of them, encoded where i is odd; words about them."""

    provides = frozenset({"image", "images", "captions", "question", "statement", "label"})

    def __getitem__(self, index: int) -> Example:
        example = dict(super().__getitem__(index))
        example["image"], right = self.picture(index, 0), self.picture(index, 1)
        example["images"] = (
            [encoded(_picture(example["image"])), right]  # type: ignore[arg-type]
            if index % 2
            else np.stack([example["image"], right])
        )
        example |= {"question": f"how many of number {index}?", "statement": f"there are {index} of many"}
        return example  # type: ignore[return-value]

    def picture(self, index: int, which: int) -> np.ndarray:
        return np.random.default_rng([index, which]).integers(0, 256, (8, 8 + index, 3), dtype=np.uint8)

    def captions(self, index: int) -> list[str]:
        if index in self.broken:
            raise BadSample(f"n{index}", "torn")
        return [f"{caption} {index}" for caption in CAPTIONS[: index + 1]]


def test_a_batch_with_all_keys_holds_what_a_naive_reading_gives(tokenizer: Tokenizer) -> None:
    source, view = Pairs(), RandomCropConfig(image_size=6, scale=(0.3, 1.0), flip=True).build()
    indices = [7, 3, 12, 3]
    batch = tensors(Reader(source, view, tokenizer, NEW, seed=5)(Job(2, np.array(indices)), nothing)[0])
    rows: dict[str, list[torch.Tensor]] = {"image": [], "left": [], "right": []}
    texts, others = [], []
    for index in indices:
        random = random_generator(5, 2, index, "sample")
        captions = source.captions(index)
        texts.append(captions[int(random.random() * len(captions))])
        for key, which in (("image", 0), ("left", 0), ("right", 1)):
            rows[key].append(view(_picture(source.picture(index, which)), random))  # type: ignore[arg-type]
        random = random_generator(5, 2, index, "other")
        while True:
            whose, chance = int(random.integers(20)), random.random()
            if whose != index:
                break
        others.append(source.captions(whose)[int(chance * (whose + 1))])
    for key, expected in rows.items():
        assert torch.equal(batch[key], torch.stack(expected))
        assert batch[key].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch["text"], tokenizer(texts))
    assert torch.equal(batch["other"][:, 0], tokenizer(others))
    assert torch.equal(batch["question"], tokenizer([f"how many of number {index}?" for index in indices]))
    assert torch.equal(batch["statement"], tokenizer([f"there are {index} of many" for index in indices]))
    assert torch.equal(batch["words"], tokenizer.word_numbers(batch["text"]))
    assert batch["words"].max() > 3
    alone = tensors(Reader(source, view, tokenizer, ALL - {"extra"}, seed=5)(Job(2, np.array(indices)), nothing)[0])
    assert torch.equal(alone["image"], batch["image"]), "further keys must not change the others"
    assert torch.equal(alone["text"], batch["text"])


def test_pictures_of_several_sizes_come_as_a_list(tokenizer: Tokenizer) -> None:
    source, view = Pairs(), FitConfig(image_size=8, patch_size=4, longest=20).build()
    keys = frozenset({"image", "left"})
    made, _ = Reader(source, view, None, keys, seed=0)(Job(0, np.array([0, 4, 8])), nothing)
    batch = tensors(made)
    for key in keys:
        assert [tuple(one.shape) for one in batch[key]] == [(3, 8, 8), (3, 8, 12), (3, 8, 16)]
        for one, array, index in zip(batch[key], made[key], (0, 4, 8), strict=True):
            assert one.dtype == torch.uint8
            assert one.data_ptr() == array.ctypes.data
            assert one.permute(1, 2, 0).is_contiguous()
            assert np.array_equal(array, source.picture(index, 0))
    alike = tensors(Reader(source, view, None, keys, seed=0)(Job(0, np.array([4, 4])), nothing)[0])
    assert alike["image"].shape == (2, 3, 8, 12)


def test_without_a_tokenizer_texts_stay_as_they_are() -> None:
    made, _ = Reader(Pairs(), None, None, frozenset({"question", "statement"}), seed=None)(
        Job(0, np.arange(2)), nothing
    )
    assert made["question"] == ["how many of number 0?", "how many of number 1?"]
    assert made["statement"] == ["there are 0 of many", "there are 1 of many"]


def test_a_pair_with_one_picture_missing_is_a_bad_sample() -> None:
    class Torn(Pairs):
        def __getitem__(self, index: int) -> Example:
            example = dict(super().__getitem__(index))
            example["images"] = example["images"][: 1 if index == 2 else 2]  # type: ignore[index]
            if index == 4:
                example["images"] = [example["image"], b"<html>"]
            return example  # type: ignore[return-value]

    view = FitConfig(image_size=8, patch_size=4).build()
    made, bad = Reader(Torn(), view, None, frozenset({"right"}), seed=None)(Job(0, np.arange(6)), nothing)
    assert made["index"].tolist() == [0, 1, 3, 5]
    assert bad == [("n2", "1 of the 2 pictures of a pair"), ("n4", "a web page (HTML), not a picture")]


def test_another_s_caption_is_never_one_s_own_and_any_may_come(tokenizer: Tokenizer) -> None:
    class Same(Pairs):
        def captions(self, index: int) -> list[str]:
            return ["a cat", "a dog"][index % 2 :][:1] if index < 6 else ["a bird", "a cat"]

        def __getitem__(self, index: int) -> Example:
            assert index in wanted, "the other example's picture must not be read"
            return super().__getitem__(index) | {"captions": self.captions(index)}  # type: ignore[return-value]

    wanted = range(8)
    reader = Reader(Same(8), None, tokenizer, frozenset({"other"}), seed=1)
    for index, expected in ((0, {"a dog", "a bird"}), (1, {"a cat", "a bird"}), (7, {"a dog"})):
        wanted = range(index, index + 1)
        made = [reader(Job(epoch, np.array([index])), nothing)[0]["other"][0, 0] for epoch in range(50)]
        assert {tokenizer.decode(row) for row in map(torch.from_numpy, made)} == expected


def test_more_captions_of_others_begin_with_those_that_fewer_would_be(tokenizer: Tokenizer) -> None:
    job = Job(3, np.arange(5))
    one, many = (
        Reader(Pairs(40), None, tokenizer, frozenset({"other"}), seed=1, others=k)(job, nothing)[0]["other"]
        for k in (1, 7)
    )
    assert one.shape[:2] == (5, 1) and many.shape[:2] == (5, 7)
    width = one.shape[2]
    assert (many[:, 0, :width] == one[:, 0]).all() and not many[:, 0, width:].any()
    source = Pairs(40)
    told = Reader(source, None, None, frozenset({"other"}), seed=1, others=7)(job, nothing)[0]["other"]
    assert all(len(some) == 7 and len(set(some)) > 1 for some in told)
    assert not any(text in source.captions(index) for index, some in enumerate(told) for text in some)


def test_where_all_say_the_same_another_s_caption_is_not_to_be_had() -> None:
    class Alike(Pairs):
        def captions(self, index: int) -> list[str]:
            return [] if index == 1 else ["a photo"]

        def __getitem__(self, index: int) -> Example:
            return super().__getitem__(index) | {"captions": ["a photo"]}  # type: ignore[return-value]

    reader = Reader(Alike(4, frozenset({2})), None, None, frozenset({"other"}), seed=0)
    with pytest.raises(
        ValueError, match=rf"n0: {ATTEMPTS} captions drawn from the data for each wanted, and most are its own"
    ):
        reader(Job(0, np.array([0])), nothing)


def test_another_s_caption_is_never_a_torn_one(tokenizer: Tokenizer) -> None:
    reader = Reader(Pairs(3, frozenset({1})), None, tokenizer, frozenset({"other"}), seed=0)
    made = [reader(Job(epoch, np.array([0])), nothing)[0]["other"][0, 0] for epoch in range(20)]
    assert {tokenizer.decode(row) for row in map(torch.from_numpy, made)} == {f"{text} 2" for text in CAPTIONS[:3]}
