import pytest

from pictura.data.mixture import MixtureConfig
from pictura.data.scenes import ScenesConfig

A = ScenesConfig(count=3)
B = ScenesConfig(count=2, split="fresh")


def test_parts_follow_each_other_as_often_as_asked():
    mixture = MixtureConfig(parts={"a": A, "b": B}, repeat={"b": 2}).build()
    assert len(mixture) == 3 + 2 * 2
    assert [mixture[i]["key"] for i in range(7)] == [
        "a/train-0", "a/train-1", "a/train-2", "b/fresh-0", "b/fresh-1", "b/fresh-0", "b/fresh-1",
    ]  # fmt: skip
    assert [mixture.captions(i) for i in range(7)] == [mixture[i]["captions"] for i in range(7)]
    assert list(mixture.all_captions()) == list(A.build().all_captions()) + list(B.build().all_captions())
    with pytest.raises(IndexError):
        mixture[7]


def test_it_provides_what_all_parts_do_and_no_labels():
    labelled = ScenesConfig(count=3, objects=(1, 1), gives=("image", "captions", "label"))
    assert MixtureConfig(parts={"a": labelled, "b": B}).build().provides == {"image", "captions"}


@pytest.mark.parametrize(("repeat", "message"), [({"c": 2}, "none of the parts"), ({"a": 0}, "0 times")])
def test_a_wrong_repeat_is_refused(repeat, message):
    with pytest.raises(ValueError, match=message):
        MixtureConfig(parts={"a": A}, repeat=repeat)


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        MixtureConfig(parts={})


def test_boxes_are_kept_only_where_all_parts_have_the_same_classes():
    def boxed(label_of: str, count: int) -> ScenesConfig:
        return ScenesConfig(count=count, gives=("image", "boxes", "masks"), label_of=label_of)

    same = MixtureConfig(parts={"a": boxed("shape", 3), "b": boxed("shape", 2)}).build()
    assert same.provides == same.parts[0].provides >= {"boxes", "labels", "crowd", "masks"}
    assert same.class_names == same.parts[0].class_names != ()
    assert (same[4]["labels"] == same.parts[1][1]["labels"]).all()
    other = MixtureConfig(parts={"a": boxed("shape", 3), "b": boxed("colour", 2)}).build()
    assert other.provides == {"image"} and other.class_names == ()
    assert set(other[0]) == set(other[4]) == {"key", "image"}
