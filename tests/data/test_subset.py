import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pictura.data.scenes import ScenesConfig
from pictura.data.source import BadSample, Example, Source
from pictura.data.subset import Subset, SubsetConfig, labels_of
from tests.data.test_coco_objects import federated


class Labelled(Source):
    """Thirty of class a, ten of b, three of c; the last one is bad."""

    provides = frozenset({"image", "label", "captions"})
    class_names = ("a", "b", "c")
    labels = [0] * 30 + [1] * 10 + [2] * 3

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        if index == len(self) - 1:
            raise BadSample("last", "damaged")
        return Example(key=str(index), label=self.labels[index], captions=[f"caption {index}"])


def classes(source: Source) -> Counter[int]:
    return Counter(labels_of(source).tolist())


def test_each_class_gives_the_same_share() -> None:
    assert classes(Subset(Labelled(), 0.2)) == {0: 6, 1: 2, 2: 1}
    assert classes(Subset(Labelled(), 0.01)) == {0: 1, 1: 1, 2: 1}
    assert classes(Subset(Labelled(), 1.0)) == {0: 30, 1: 10, 2: 2}, "all but the bad one"


def test_smaller_shares_lie_in_larger_ones_and_seeds_differ() -> None:
    few, many = (set(Subset(Labelled(), share).indices.tolist()) for share in (0.2, 0.5))
    assert few < many
    assert few != set(Subset(Labelled(), 0.2, seed=1).indices.tolist())


def test_examples_are_the_source_s() -> None:
    subset = Subset(Labelled(), 0.2)
    assert [subset[i]["key"] for i in range(len(subset))] == [str(i) for i in subset.indices.tolist()]
    assert list(subset.all_captions()) == [f"caption {i}" for i in subset.indices.tolist()]
    assert subset.class_names == ("a", "b", "c") and subset.provides == Labelled.provides


def test_of_pictures_without_labels_a_share_of_all() -> None:
    scenes = ScenesConfig(count=50, image_size=16, objects=(2, 3))
    subset = SubsetConfig(of=scenes, share=0.1).build()
    assert len(subset) == (5 if "label" not in subset.provides else len(subset))
    assert np.array_equal(subset[0]["image"], scenes.build()[int(subset.indices[0])]["image"])


@pytest.mark.parametrize("share", [0.0, 1.1, -0.5])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="share: "):
        SubsetConfig(of=ScenesConfig(), share=share)


def test_what_a_file_says_of_its_pictures_goes_with_them(tmp_path: Path) -> None:
    source = federated(tmp_path)
    subset = Subset(source, 0.7)
    chosen = subset.indices.tolist()
    assert len(chosen) == 2 and chosen != [0, 1], "or nothing would be shown"
    assert subset.image_ids == [source.image_ids[index] for index in chosen]
    assert (subset.category_ids, subset.frequencies) == (source.category_ids, source.frequencies)
    assert subset.federated and subset.negatives and subset.not_exhaustive and subset.objects
    for index, place in enumerate(chosen):
        assert subset.negatives(index).tolist() == source.negatives(place).tolist()
        assert subset.not_exhaustive(index).tolist() == source.not_exhaustive(place).tolist()
        own, whole = subset.objects(index), source.objects(place)
        assert own.keys() == whole.keys() and all(np.array_equal(own[key], whole[key]) for key in own)
    copied = pickle.loads(pickle.dumps(subset))
    assert copied.negatives(1).tolist() == subset.negatives(1).tolist()


def test_of_a_file_that_says_nothing_of_them_nothing_is_said() -> None:
    subset = Subset(Labelled(), 0.2)
    assert subset.image_ids is subset.category_ids is subset.frequencies is subset.federated is None
    assert subset.negatives is subset.not_exhaustive is subset.objects is None
