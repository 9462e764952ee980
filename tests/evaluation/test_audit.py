import pytest

from pictura.evaluation.audit import findings, graded, panel

METRICS = {
    "zeroshot/top1": 0.9,
    "zeroshot/fine/top1": 0.85,
    "zeroshot/new_shapes/top1": 0.2,
    "choices/accuracy": 0.6,
    "choices/chance": 0.4,
    "choices/binding/accuracy": 0.51,
    "choices/binding/chance": 0.5,
    "choices/colour/accuracy": 0.97,
    "choices/colour/chance": 0.25,
    "choices/count/accuracy": 0.5,
    "choices/count/chance": 0.25,
    "typographic/clean/top1": 0.9,
    "typographic/inscribed/top1": 0.3,
    "typographic/fooled": 0.6,
    "robustness/clean/top1": 0.9,
    "robustness/fog/top1": 0.5,
    "robustness/contrast/top1": 0.8,
    "robustness/mean/top1": 0.65,
    "few_shot/ridge/dip": 0.25,
    "few_shot/prompt_logistic/dip": 0.0,
    "calibration/error": 0.02,
    "calibration/separation": 0.95,
}


def test_each_limit_has_its_verdict() -> None:
    found = {one.what: one.verdict for one in findings(METRICS)}
    assert found == {
        "fine": "fine", "new shapes": "no", "binding": "no", "colour": "fine", "count": "weak", "written words": "no",
        "corrupted pictures": "weak", "few examples": "no", "probabilities": "fine", "none of these": "fine",
    }  # fmt: skip


def test_the_worst_come_first_and_say_what_helps() -> None:
    found = findings(METRICS)
    page = panel(found).html()
    assert page.index("new shapes") < page.index("count") < page.index("colour")
    assert "a linear probe falls 25.0 points below zero-shot; begun at the names, 0.0" in page
    assert "worst: fog 50.0%, contrast 80.0%" in page


def test_what_was_not_looked_at_is_not_told() -> None:
    assert findings({}) == []
    assert [one.what for one in findings({"zeroshot/fine/top1": 0.5})] == ["fine"]


@pytest.mark.parametrize(
    ("value", "said"), [(0.9, "fine"), (0.899, "weak"), (0.6, "weak"), (0.59, "no"), (float("nan"), "no")]
)
def test_grades(value: float, said: str) -> None:
    assert graded(value, 0.9, 0.6) == said
