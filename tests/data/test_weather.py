import numpy as np
import pytest

from pictura.data.filters import Floats
from pictura.data.weather import between, cloud, ice, plasma


def rough(field: Floats) -> float:
    """How much neighbours differ, those across the edge too."""
    return float(np.abs(field - np.roll(field, 1, 1)).mean() / field.std())


def test_plasma_has_its_range_and_repeats_at_its_edges() -> None:
    field = plasma(np.random.default_rng(0), 2)
    assert field.shape == (256, 256) and field.min() == 0 and field.max() == 1
    across_edge = np.abs(field[:, 0] - field[:, -1]).mean()
    assert across_edge < 1.5 * np.abs(np.diff(field, axis=1)).mean()


def test_less_decay_is_rougher() -> None:
    values = [rough(plasma(np.random.default_rng(0), decay)) for decay in (3, 2, 1.5, 1.2)]
    assert values == sorted(values) and values[-1] > 5 * values[0]


def test_a_square_s_middle_lies_between_its_corners_but_for_chance() -> None:
    """With hardly any chance left after the first two steps, the field is graded."""
    field = plasma(np.random.default_rng(1), 40)
    middle = (field[:-2:2, :-2:2] + field[2::2, :-2:2] + field[:-2:2, 2::2] + field[2::2, 2::2]) / 4
    np.testing.assert_allclose(field[1:-1:2, 1:-1:2], middle, atol=1e-4)


@pytest.mark.parametrize("size", [(224, 300), (1, 700), (300, 1)])
def test_layers_have_any_size(size: tuple[int, int]) -> None:
    assert cloud(np.random.default_rng(0), 2, size).shape == size
    pane = ice(np.random.default_rng(0), size)
    assert pane.shape == (*size, 3) and np.isfinite(pane).all() and 0 <= pane.min() <= pane.max() <= 1


def test_ice_is_bright_dark_and_bluish() -> None:
    panes = np.stack([ice(np.random.default_rng(seed), (224, 224)) for seed in range(4)])
    assert 0.4 < panes.mean() < 0.7 and panes.std() > 0.15
    red, green, blue = panes.mean((0, 1, 2))
    assert red < green < blue
    assert np.abs(panes[0] - panes[1]).mean() > 0.1, "chance makes another"


def test_between_heights_it_is_graded_and_goes_round() -> None:
    heights = np.array([[0, 1, 4], [9, 9, 9]], np.float32)
    rows = np.array([[0, 0, 0, 0, 1]])
    np.testing.assert_allclose(between(heights, rows, np.array([[0, 0.5, 2.5, -0.5, 7.3]])), [[0, 0.5, 2, 2, 9]])
