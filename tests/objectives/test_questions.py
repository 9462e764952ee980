import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pictura.config import load
from pictura.models.vilt import ViLT
from pictura.objectives.base import Objective, ObjectiveConfig, Task
from pictura.objectives.questions import QuestionsConfig, soft_targets
from tests.models.small import BY_KIND, built
from tests.objectives.test_masked_words import batch as pictures_and_texts
from tests.objectives.test_masked_words import model_of

ANSWERS = ("yes", "no", "two", "red")
SAID: list[dict[str, float]] = [
    {"yes": 1.0, "no": 0.3},
    {"a few": 1.0, "two": 0.6},
    {"several": 1.0, "many": 0.9},  # none that the model knows
    {},
    {"red": 0.9},
    {"no": 1.0},
]


def batch() -> dict[str, Any]:
    given = pictures_and_texts()
    return {"image": given["image"], "question": given["text"], "answers": SAID}


def answering(dropout: float = 0.0) -> ViLT:
    return model_of(dropout, tasks=("answers",), answers=ANSWERS)


def objective(**options: Any) -> Objective:
    return load(ObjectiveConfig, {"kind": "questions"} | options).build()


def scores_one_by_one(model: ViLT, given: dict[str, Any]) -> list[list[float]]:
    with torch.no_grad():
        rows = [model.answer([given["image"][i]], given["question"][i : i + 1])[0] for i in range(len(given["image"]))]
    return [row.tolist() for row in rows]


def surprise(score: float, target: float) -> float:
    """The cross-entropy of one sigmoid, as it is written."""
    p = 1 / (1 + math.exp(-score))
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def test_the_loss_is_summed_over_answers_and_averaged_over_questions() -> None:
    model, given = answering().eval(), batch()
    outcome = Task(model, {"q": objective()}, {"q": 1.0}).eval()(given)
    losses, hits = [], []
    for scores, said in zip(scores_one_by_one(model, given), SAID, strict=True):
        losses.append(sum(surprise(x, said.get(answer, 0.0)) for x, answer in zip(scores, ANSWERS, strict=True)))
        hits.append(said.get(ANSWERS[scores.index(max(scores))], 0.0))
    assert outcome.loss.item() == pytest.approx(sum(losses) / 6, rel=1e-5)
    assert float(outcome.metrics["q/hits"]) == pytest.approx(sum(hits) / 6, rel=1e-5)
    torch.testing.assert_close(outcome.logits["q/scores"], torch.tensor(scores_one_by_one(model, given)))


def test_each_answer_begins_as_likely_as_among_equals() -> None:
    model = answering().config.build().eval()
    k = len(model.config.answers)
    before = model.answer(batch()["image"], batch()["question"]).sigmoid()
    assert before.mean().item() == pytest.approx(1 / k, rel=0.05) and k > 2


@pytest.mark.parametrize("best", ANSWERS)
def test_hits_are_what_people_gave_the_best_answer(best: str) -> None:
    features = {"scores": torch.zeros(6, 4), "target": soft_targets(SAID, {a: k for k, a in enumerate(ANSWERS)})}
    features["scores"][:, ANSWERS.index(best)] = 1.0
    outcome = objective().score(answering(), features, slice(0, 6))
    assert float(outcome.metrics["hits"]) == pytest.approx(sum(said.get(best, 0.0) for said in SAID) / 6)


def test_where_no_answer_is_known_every_one_is_wrong() -> None:
    """It is counted all the same, as an answer of nobody's is when the model is measured."""
    task = Task(answering().eval(), {"q": objective()}, {"q": 1.0}).eval()
    given = {key: value[2:3] for key, value in batch().items()}
    assert not set(SAID[2]) & set(ANSWERS)
    (scores,) = scores_one_by_one(answering().eval(), given)
    outcome = task(given)
    assert outcome.loss.item() == pytest.approx(sum(surprise(x, 0.0) for x in scores), rel=1e-5)
    assert outcome.metrics["q/hits"] == 0
    both = task({key: value[1:3] for key, value in batch().items()})
    one = task({key: value[1:2] for key, value in batch().items()})
    torch.testing.assert_close(both.loss, (one.loss + outcome.loss) / 2)
    torch.testing.assert_close(both.metrics["q/hits"], one.metrics["q/hits"] / 2)


def test_soft_targets() -> None:
    found = soft_targets(SAID, {"no": 1, "yes": 0, "red": 2})
    expected = [[1, 0.3, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0.9], [0, 1, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_r_drop_compares_each_answer_s_yes_and_no() -> None:
    wrapped = load(ObjectiveConfig, {"kind": "rdrop", "alpha": 2.0, "of": {"kind": "questions"}}).build()
    task = Task(answering(0.2), {"q": wrapped}, {"q": 1.0}).train()
    features = task.embed(batch())
    outcome = task.score(features)
    one, two = (features[f"q/{half}/scores"].tolist() for half in ("one", "two"))
    losses, apart = [], []
    for i, said in enumerate(SAID):
        targets = [said.get(answer, 0.0) for answer in ANSWERS]
        losses.append(sum(surprise(x, t) for draw in (one, two) for x, t in zip(draw[i], targets, strict=True)) / 2)
        apart.append(sum(divergence(x, y) + divergence(y, x) for x, y in zip(one[i], two[i], strict=True)))
    assert outcome.loss.item() == pytest.approx(sum(losses) / 6 + 2.0 / 4 * sum(apart) / 6, rel=1e-5)
    assert float(outcome.metrics["q/kl"]) == pytest.approx(sum(apart) / 12, rel=1e-4)
    assert sum(apart) > 1e-3


def divergence(x: float, y: float) -> float:
    """KL of two coins, by the scores of heads."""
    p, q = (Tensor([s, 0]).double().softmax(0).tolist() for s in (x, y))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_models_that_cannot() -> None:
    with pytest.raises(ValueError, match=r"needs a head for answers; set model\.tasks to \[matching, answers\]"):
        Task(model_of(tasks=("matching",)), {"q": objective()}, {"q": 1.0})
    with pytest.raises(ValueError, match="needs a model of kind vilt, not classifier"):
        Task(built(BY_KIND["classifier"]), {"q": objective()}, {"q": 1.0})
    with pytest.warns(UserWarning, match="zero-element"):
        silent = model_of(tasks=("answers",))
    with pytest.raises(ValueError, match=r"the model has no answers, .*; set model\.answers"):
        Task(silent, {"q": objective()}, {"q": 1.0})


def test_an_answer_that_is_nobody_s() -> None:
    with pytest.raises(ValueError, match="least: 0 is below 1; the paper has 9"):
        QuestionsConfig(least=0)
