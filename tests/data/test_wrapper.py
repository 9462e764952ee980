"""What is said of a source by those that are made of it."""

from collections.abc import Iterator
from typing import Any

from pictura.data.source import BadSample, Example, Source
from pictura.data.subset import Subset
from pictura.data.wrapper import Changed


class Told(Source):
    """Says of itself what it does not say in its examples."""

    provides, class_names, least_classes = frozenset({"image", "captions"}), ("a", "b"), 2
    bad = (BadSample("gone", "no such file"),)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Example:
        raise BadSample(str(index), "is not to be read")

    def captions(self, index: int) -> list[str]:
        return [f"caption {index}"]

    def all_captions(self) -> Iterator[str]:
        return iter(["each", "once"])

    def answers(self, least: int) -> tuple[str, ...]:
        return ("yes",) * least


class Numbered(Changed):
    """`number` for each example."""

    def __getitem__(self, index: int) -> Any:
        return {"key": str(index), "number": index}


def test_a_changed_source_says_what_its_source_says() -> None:
    told = Told()
    own = Numbered(told, "number")
    assert own.provides == {"image", "captions", "number"} and Numbered(told).provides == told.provides
    assert (len(own), own.class_names, own.least_classes, own.bad) == (2, ("a", "b"), 2, told.bad)
    assert own.captions(1) == ["caption 1"] and list(own.all_captions()) == ["each", "once"]
    assert own.answers(2) == ("yes", "yes")
    assert (own.image_ids, own.objects, own.federated) == (None, None, None) and own.place(1) == 1


def test_a_part_of_a_source_has_its_own_captions_and_the_answers_of_all() -> None:
    part = Subset(Told(), share=0.5)
    assert len(part) == 1
    assert part.captions(0) == [f"caption {part.place(0)}"]
    assert part.answers(2) == ("yes", "yes")
