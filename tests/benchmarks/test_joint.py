import numpy as np
import pytest

from benchmarks.joint import ARMS, DROPOUT, KINDS, NEW_WORDS, PRETRAINED, TUNED, WithoutConfig, prior, runs, table
from pictura.data.scene_questions import ANSWERS
from pictura.recipe import read_recipe


@pytest.mark.parametrize("part", ["image", "question"])
def test_a_baseline_does_not_see_a_part(part: str) -> None:
    source = WithoutConfig(part=part, count=3, gives=("image", "question"), image_size=16).build()  # type: ignore[arg-type]
    examples = [dict(source[i]) for i in range(3)]
    if part == "image":
        assert all((one["image"] == 128).all() for one in examples) and examples[0]["question"]
    else:
        assert all(one["question"] == "" for one in examples)
        assert not np.array_equal(examples[0]["image"], examples[1]["image"])
    assert all(set(one["answers"]) <= set(ANSWERS) for one in examples)


def test_every_arm_is_a_recipe() -> None:
    for changes in PRETRAINED.values():
        if changes is not None:
            assert read_recipe("vilt", changes).objectives
    for changes in (*TUNED.values(), NEW_WORDS):
        assert read_recipe("questions", changes).objectives
    asked = read_recipe("questions", TUNED["text alone"])
    whole = read_recipe("questions")
    for ours, theirs in zip(
        (asked.data, asked.evaluation["questions"].data),  # type: ignore[attr-defined]
        (whole.data, whole.evaluation["questions"].data),  # type: ignore[attr-defined]
        strict=True,
    ):
        facts = ("objects", "split", "seed", "gives", "image_size")
        assert all(getattr(ours, fact) == getattr(theirs, fact) for fact in facts)
    assert len(list(runs([0, 1], []))) == 2 * len(ARMS) and len(list(runs([0], ["statements"]))) == 1


def test_the_prior_by_words_knows_no_less_than_that_by_kind() -> None:
    found = prior(3000)
    assert found["words"]["accuracy"] >= found["kind"]["accuracy"] - 0.02
    assert set(KINDS) < set(found["kind"]) and 0.4 < found["kind"]["exist"] < 0.6


def test_the_table_has_what_was_run() -> None:
    of = {f"questions/{kind}": 0.5 for kind in ("accuracy", *KINDS)}
    metrics = of | {"held_out/masked_words/hits": 0.25, "held_out/matching/hits": 0.75}
    common = {"seed": 0, "metrics": metrics, "minutes": [1.0, 2.0], "date": "2026-01-01T00", "machine": "m"}
    whole = {"arm": "recipes", "accuracy": 0.6666, "minutes": [1.01, 2.0, 3.0]}
    text = table([*({"arm": arm} | common for arm in ("pre-training: words", "questions: R-Drop")), common | whole])
    assert "| words | 25.0 | 75.0 | 50.0 | 1 |" in text
    assert "1.1 + 2.0 + 3.0 = 6.1 minutes, and 66.6 % of the questions" in text
    assert "| with R-Drop | 50.0 |" in text and "Statements" not in text and DROPOUT not in text
