"""Keyed randomness: the same for the same key, and for no other."""

import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.data.randomness import Draws, random_generator

BIG = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(BIG, st.integers(0, 2**40), st.integers(0, 2**40), st.text(max_size=9))
def test_moving_one_generator_gives_the_same_numbers(seed: int, epoch: int, index: int, stream: str) -> None:
    draws = Draws(seed, stream)
    draws.at(epoch + 1, index).integers(10, dtype=np.uint32)  # leaves half a number behind
    for other in (index, index + 1, index):
        moved, fresh = draws.at(epoch, other), random_generator(seed, epoch, other, stream)
        assert moved.integers(2**32, dtype=np.uint32) == fresh.integers(2**32, dtype=np.uint32)
        assert (moved.random(5) == fresh.random(5)).all()
        assert moved.normal() == fresh.normal()


def test_every_part_of_the_key_counts() -> None:
    keys = [(0, 0, 0, "a"), (1, 0, 0, "a"), (0, 1, 0, "a"), (0, 0, 1, "a"), (0, 0, 0, "b"), (2**63, 0, 0, "a")]
    keys += [(2**63 + 1, 0, 0, "a"), (-1, 0, 0, "a")]
    assert len({random_generator(*key).integers(2**62) for key in keys}) == len(keys)


def test_streams_of_neighbours_do_not_overlap() -> None:
    drawn = np.concatenate([random_generator(0, 0, index, "x").integers(2**62, size=1000) for index in range(20)])
    assert len(np.unique(drawn)) == len(drawn)


def test_the_numbers_are_pinned() -> None:
    """A change here changes the course of every run that is resumed."""
    assert random_generator(7, 3, 11, "sample").integers(1000, size=4).tolist() == [490, 315, 815, 507]


def test_a_copy_in_another_process_draws_the_same() -> None:
    copy = pickle.loads(pickle.dumps(Draws(5, "sample")))
    assert copy.at(1, 2).random() == Draws(5, "sample").at(1, 2).random()
