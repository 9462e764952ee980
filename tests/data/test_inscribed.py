import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pictura.config import load
from pictura.data.inscribed import Inscribed, InscribedConfig, inscribe, plate, written
from pictura.data.scenes import ScenesConfig
from pictura.data.source import BadSample, Example, Source, SourceConfig

NAMES = ("cat", "golden_retriever", "cat", "bee eater, a bird")


class Flat(Source):
    """Grey pictures of each class in turn; the last has a class that is none."""

    provides = frozenset({"image", "label"})

    def __init__(self, names: tuple[str, ...] = NAMES, size: tuple[int, int] = (64, 64)) -> None:
        self.class_names, self.size = names, size

    def __len__(self) -> int:
        return 401

    def __getitem__(self, index: int) -> Example:
        label = 99 if index == 400 else index % len(self.class_names)
        return Example(key=str(index), image=np.full((*self.size, 3), 90, np.uint8), label=label)


def test_another_class_is_written_each_as_often() -> None:
    source = Inscribed(Flat())
    pairs = Counter((example["label"], example["written"]) for example in (source[i] for i in range(400)))  # type: ignore[typeddict-item]
    assert {label for label, _ in pairs} == {0, 1, 2, 3}
    assert {*pairs} == {(0, 1), (0, 3), (2, 1), (2, 3), (1, 0), (1, 2), (1, 3), (3, 0), (3, 1), (3, 2)}, "no other cat"
    assert min(pairs.values()) > 18
    assert source.provides == {"image", "label", "written"} and source.class_names == NAMES
    with pytest.raises(BadSample, match="400: label 99, but there are 4 class names"):
        source[400]


def test_it_is_a_function_of_seed_and_index() -> None:
    source, again, other = Inscribed(Flat()), pickle.loads(pickle.dumps(Inscribed(Flat()))), Inscribed(Flat(), seed=1)
    for i in (7, 3):
        assert np.array_equal(source[i]["image"], again[i]["image"])
    assert any(not np.array_equal(source[i]["image"], other[i]["image"]) for i in range(4))


@pytest.mark.parametrize("size", [(64, 64), (48, 200), (300, 100), (1, 1), (3, 500)])
def test_the_label_lies_in_the_middle_square(size: tuple[int, int]) -> None:
    grey = Image.fromarray(np.full((*size, 3), 90, np.uint8))
    side = min(size)
    for seed in range(5):
        out = np.asarray(inscribe(grey, "golden retriever", np.random.default_rng(seed)))
        assert out.shape == (*size, 3)
        rows, columns = np.nonzero((out != 90).any(2))
        for places, whole in ((rows, size[0]), (columns, size[1])):
            assert (whole - side) // 2 <= places.min() and places.max() < (whole - side) // 2 + side
        assert len(rows) <= max(1, 0.94 * side * 0.4 * side)
    assert (np.asarray(grey) == 90).all(), "a copy"


def test_a_blank_label_covers_the_same_and_says_nothing() -> None:
    words, blank = Inscribed(Flat(), seed=3), Inscribed(Flat(), seed=3, blank=True)
    for i in range(8):
        with_words, without = (np.asarray(source[i]["image"]) for source in (words, blank))
        covered, changed = (without != 90).any(2), (with_words != 90).any(2)
        assert covered.mean() > 0.1 and not (changed & ~covered).any()
        assert changed.sum() > 0.9 * covered.sum(), "all but edges of letters that are as grey as the picture"
        assert (without[covered] == 255).all() and with_words[covered].min() < 60


def test_words_fill_the_label_and_can_be_read_at_64_pixels() -> None:
    """Of all names, the one whose letters fit best is the one that is written."""
    names = [written(name) for name in ("cat", "dog", "goldfish", "golden retriever", "tree frog", "ladybug")]
    grey = Image.fromarray(np.full((64, 64, 3), 90, np.uint8))
    for name in names:
        out = np.asarray(inscribe(grey, name, np.random.default_rng(0)))[..., 0]
        rows, columns = np.nonzero(out != 90)
        label = out[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        y, x = label.shape
        assert x > 0.85 * 64 or y > 0.35 * 64, "as large as fits"
        assert label.min() < 60 and label.max() == 255
        sharp = {
            other: max(
                np.corrcoef(label.ravel(), np.asarray(plate(other, lines).resize((x, y))).ravel())[0, 1]
                for lines in (1, 2, 3)
            )
            for other in names
        }
        assert max(sharp, key=sharp.__getitem__) == name and sharp[name] > 0.9


def test_long_names_are_broken_and_cut() -> None:
    assert written("  big_red\n dog\x07 ") == "big red dog\N{REPLACEMENT CHARACTER}"
    assert len(written("ab " * 100)) == 60
    one, three = (plate("African hunting dog, hyena dog", lines) for lines in (1, 3))
    assert one.width > 2 * three.width and three.height > 2 * one.height


def test_other_names_may_be_written() -> None:
    source = Inscribed(Flat(names=("n01", "n02")), names=("cat", "dog"))
    assert source.class_names == ("n01", "n02") and source.words == ["cat", "dog"]


def test_a_recipe_names_it_by_kind_and_mistakes_are_named() -> None:
    scenes = {"kind": "scenes", "gives": ["image", "label"], "objects": [1, 1], "count": 6, "label_of": "shape"}
    config = load(SourceConfig, {"kind": "inscribed", "of": scenes, "seed": 4})
    assert isinstance(config, InscribedConfig)
    source = config.build()
    assert isinstance(source, Inscribed) and source.seed == 4
    with pytest.raises(ValueError, match="inscribed: the data has no label"):
        InscribedConfig(of=ScenesConfig(count=2)).build()
    for names in ((), ("cat",), ("cat", "cat"), ("cat", "")):
        with pytest.raises(ValueError, match="at least two different ones"):
            Inscribed(Flat(names=names))
    assert {Inscribed(Flat(names=("a", "", "b")))[i]["written"] for i in range(30)} == {0, 2}  # type: ignore[typeddict-item]
