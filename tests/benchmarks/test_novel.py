from pathlib import Path
from typing import Any

import pytest

from benchmarks.novel import ARMS, BASE, FEW, NOVEL, STAGES, TEACHER, changes_of, interval, repeats, runs, table
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
        assert 0.08 < seen / (3000 + seen) < 0.12


def test_intervals_are_students_and_never_flatter() -> None:
    assert interval([]) == "" and interval([0.4567]) == "45.6"
    assert interval([0.4, 0.5, 0.6]) == "50.0 ± 24.9"  # 4.31 * 0.1 / sqrt(3) is 0.2483


def test_what_the_others_need_is_made_first() -> None:
    assert [arm for stage in STAGES[2:] for arm in stage] == [arm for arm in ARMS if arm != BASE]
    assert list(runs([0, 1], STAGES[0]))[:2] == [{"arm": TEACHER, "seed": 0}, {"arm": TEACHER, "seed": 1}]


def made(arm: str, seed: int, reached: float, **more: float) -> dict[str, Any]:
    grouped = () if arm == BASE else ("AP/base", "AP50/base", "AP50/novel")
    metrics = {f"detection/{key}": 0.25 for key in ("AP", "AP50", *grouped)}
    metrics |= {"detection/AP/novel": reached} if grouped else {}
    metrics |= {key.replace("__", "/"): value for key, value in more.items()}
    return {"arm": arm, "seed": seed, "metrics": metrics, "date": "2026-01-01T00", "machine": "m", "seconds": 60}


def test_the_table_has_what_was_run_and_says_who_overtakes() -> None:
    held = {f"detection__proposals__R@100__{group}": 0.75 for group in ("base", "novel")}
    done = [made(TEACHER, seed, 0, base=0.9, novel=0.8) for seed in (0, 1)] + [made(BASE, 0, 0)]
    done += [made(f"{k} boxes of each", 0, k / 10) for k in FEW]
    done += [made("ViLD-text", seed, 0.2, **held) for seed in (0, 1)]
    done += [made("ViLD", seed, 0.3 + seed / 10) for seed in (1, 0)]
    text = table(done)
    assert "| boxes of base alone | 25.0 |  |  | 25.0 |  |" in text
    assert "| ViLD-text | 25.0 ± 0.0 | 20.0 ± 0.0 | 25.0 ± 0.0 | 25.0 ± 0.0 | 25.0 ± 0.0 |" in text
    assert "names 90.0 ± 0.0 % of base and 80.0 ± 0.0 % of novel" in text
    assert "hold 75.0 ± 0.0 % of base and 75.0 ± 0.0 % of novel" in text
    assert "- ViLD less ViLD-text, AP/novel: 15.0 ± 63.6" in text  # 12.71 * 0.0707 / sqrt(2): paired by seed
    assert "Supervision overtakes ViLD on novel things at 5 boxes a class." in text
    assert "2 seeds" in text
