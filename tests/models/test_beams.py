import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pictura.models.beams import Caption, beam_search, check_search

END, WORDS = 2, 4


class Table:
    """Scores of the next token by (picture, token before), as a search asks for them; it counts its steps."""

    def __init__(self, pictures: int, beams: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.first = torch.randn(pictures, WORDS, generator=generator)
        self.after = torch.randn(pictures, WORDS, WORDS, generator=generator)
        self.beams, self.steps = beams, 0

    def further(self, rows: Tensor, tokens: Tensor) -> Tensor:
        self.steps += 1
        assert (rows // self.beams == torch.arange(len(rows)) // self.beams).all(), "beams stay with their picture"
        return self.after[rows // self.beams, tokens]

    def of(self, picture: int, ids: list[int]) -> float:
        """log p of a caption and its end."""
        total, scores = 0.0, self.first[picture]
        for token in (*ids, END):
            total += float(scores.log_softmax(0)[token])
            scores = self.after[picture, token]
        return total


def exhaustive(table: Table, picture: int, longest: int, penalty: float) -> Caption:
    """The best of all captions of at most `longest` tokens. One that is cut there pays for its end too."""
    others = [token for token in range(WORDS) if token != END]
    every = (list(ids) for n in range(longest) for ids in itertools.product(others, repeat=n))
    return max(
        (Caption(ids, table.of(picture, ids) / (len(ids) + 1) ** penalty) for ids in every), key=lambda one: one.score
    )


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 3.0])
@pytest.mark.parametrize("longest", [1, 2, 4])
def test_with_enough_beams_it_finds_the_best_of_all(longest: int, penalty: float) -> None:
    table = Table(5, beams := 3 ** (longest - 1) * WORDS)
    found = beam_search(table.first, table.further, beams=beams, longest=longest, end=END, length_penalty=penalty)
    for picture, one in enumerate(found):
        best = exhaustive(table, picture, longest, penalty)
        assert one.ids == best.ids and one.score == pytest.approx(best.score, rel=1e-5)


def test_one_beam_takes_the_best_token_each_time() -> None:
    table = Table(20, 1, seed=1)
    found = beam_search(table.first, table.further, beams=1, longest=6, end=END)
    lengths = set()
    for picture, one in enumerate(found):
        ids, scores = list[int](), table.first[picture]
        while len(ids) < 5 and (token := int(scores.argmax())) != END:
            ids.append(token)
            scores = table.after[picture, token]
        assert one.ids == ids and one.score == pytest.approx(table.of(picture, ids), rel=1e-5)
        lengths.add(len(ids))
    assert {0, 5} <= lengths, "some end at once, some are cut"


def test_a_picture_s_caption_does_not_hang_on_the_others_of_its_batch() -> None:
    table = Table(8, 3, seed=2)
    together = beam_search(table.first, table.further, beams=3, longest=5, end=END, length_penalty=1.0)
    for picture in range(8):
        own = Table(8, 3, seed=2)
        own.first, own.after = own.first[picture, None], own.after[picture, None]
        (alone,) = beam_search(own.first, own.further, beams=3, longest=5, end=END, length_penalty=1.0)
        assert alone.ids == together[picture].ids and alone.score == pytest.approx(together[picture].score)


def test_more_beams_are_never_worse_where_it_is_exhaustive_in_the_end() -> None:
    scores = []
    for beams in (1, 200):
        table = Table(30, beams, seed=3)
        found = beam_search(table.first, table.further, beams=beams, longest=4, end=END)
        scores.append([one.score for one in found])
    assert all(few <= many + 1e-6 for few, many in zip(*scores, strict=True)) and scores[0] != scores[1]


def test_it_stops_where_nothing_better_can_come() -> None:
    table = Table(3, 2)
    table.first[:, END] = 20.0
    found = beam_search(table.first, table.further, beams=2, longest=50, end=END, length_penalty=1.0)
    assert [one.ids for one in found] == [[], [], []] and table.steps < 50
    table = Table(3, 1)
    table.first[:, END] = 20.0
    beam_search(table.first, table.further, beams=1, longest=50, end=END)
    assert table.steps == 0


def nothing(rows: Tensor, tokens: Tensor) -> Tensor:
    return torch.full((len(rows), WORDS), math.nan)


@pytest.mark.parametrize("first", [math.nan, math.inf])
def test_what_is_no_number_is_an_empty_caption_and_comes_to_an_end(first: float) -> None:
    found = beam_search(torch.full((2, WORDS), first), nothing, beams=3, longest=4, end=END)
    assert found == [Caption([], -math.inf)] * 2


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (lambda: check_search(0, 5, 9, 1.0), "beams: 0 is below 1"),
        (lambda: check_search(1, 0, 9, 1.0), "longest: 0 tokens; this model says from 1 to 9"),
        (lambda: check_search(1, 10, 9, 1.0), "longest: 10 tokens; this model says from 1 to 9"),
        (lambda: check_search(1, 5, 9, -1.0), r"length_penalty: -1\.0 must be at least 0"),
        (lambda: check_search(1, 5, 9, math.nan), "length_penalty: nan must be at least 0"),
    ],
)
def test_searches_that_cannot_be(check: Callable[[], None], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check()
