from pathlib import Path

import pytest

from benchmarks.novel import ARMS, NOVEL, changes_of, interval, repeats, runs, table
from pictura.data.partly import PartlyLabelledConfig
from pictura.recipe import read_recipe


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_a_recipe(arm: str) -> None:
    name, _, more = ARMS[arm]
    recipe = read_recipe(name, changes_of(arm, 1, Path("models")))
    assert len(recipe.evaluation) == 1 + len(more) and recipe.seed == 1
    assert isinstance(recipe.data, PartlyLabelledConfig)
    told = {*recipe.data.classes, *recipe.data.few}
    assert (set(NOVEL) <= told) == (arm == "all boxes" or arm[0].isdigit())
    assert not set(NOVEL) & told or set(NOVEL) <= told


def test_the_few_are_about_a_tenth_of_all() -> None:
    for k in (1, 2, 5, 10):
        seen = 3 * k * repeats(k)
        assert 0.08 < seen / (4000 + seen) < 0.12


def test_intervals_are_students_and_never_flatter() -> None:
    assert interval([]) == "" and interval([0.4567]) == "45.6"
    assert interval([0.4, 0.5, 0.6]) == "50.0 ± 24.9"  # 4.30 * 0.1 / sqrt(3) is 0.2483


def test_the_table_has_what_was_run() -> None:
    metrics = {f"detection/{key}": 0.25 for key in ("AP", "AP/base", "AP/novel", "AP50/novel")}
    metrics |= {f"detection/its-words/{key}": 0.5 for key in ("AP", "AP/base", "AP/novel", "AP50/novel")}
    metrics |= {f"detection/proposals/R@100/{group}": 0.75 for group in ("base", "novel")}
    common = {"metrics": metrics, "date": "2026-01-01T00", "machine": "m"}
    text = table([{"arm": arm, "seed": 0} | common for arm in ("boxes of base alone", "ViLD-text", "ViLD-ensemble")])
    assert "| boxes of base alone | 25.0 |  |  |  | 1 |" in text
    assert "| ViLD-ensemble | 25.0 | 25.0 | 25.0 | 25.0 | 1 |" in text
    assert "| its words | 50.0 | 50.0 | 50.0 | 50.0 | 1 |" in text
    assert "hold 75.0 % of base and 75.0 % of novel" in text
    assert len(list(runs([0, 1], []))) == 2 * len(ARMS)
