from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.config import load
from pictura.models.vilt import ViLT
from pictura.objectives.base import Objective, ObjectiveConfig, Task
from tests.models.small import BY_KIND, built
from tests.objectives.test_masked_words import batch as pictures_and_texts
from tests.objectives.test_masked_words import model_of


def batch() -> dict[str, Any]:
    """The pictures of a pair differ, in size too."""
    given = pictures_and_texts()
    label = torch.tensor([0, 1, 1, 0, 1, 0])
    return {"left": given["image"], "right": given["image"][::-1], "statement": given["text"], "label": label}


def comparing(dropout: float = 0.0) -> ViLT:
    return model_of(dropout, tasks=("pair",))


def objective() -> Objective:
    return load(ObjectiveConfig, {"kind": "statements"}).build()


def scores_one_by_one(model: ViLT, given: dict[str, Any]) -> Tensor:
    """Each picture beside the statement by itself, the left one under the second type, the right one under the third,
    and the head on what is read of both."""
    rows = []
    for left, right, text in zip(given["left"], given["right"], given["statement"], strict=True):
        read = [model.read([one], text[None], torch.tensor([kind]))[0] for one, kind in ((left, 1), (right, 2))]
        rows.append(model.heads["pair"](torch.cat(read)))
    return torch.stack(rows)


def test_the_loss_is_the_cross_entropy_of_each_pair_s_scores() -> None:
    model, given = comparing().eval(), batch()
    outcome = Task(model, {"s": objective()}, {"s": 1.0}).eval()(given)
    scores = scores_one_by_one(model, given)
    chances = scores.double().exp() / scores.double().exp().sum(1, keepdim=True)
    losses = [-row[label].log().item() for row, label in zip(chances, given["label"].tolist(), strict=True)]
    assert outcome.loss.item() == pytest.approx(sum(losses) / 6, rel=1e-5)
    hits = [float(row[1] > row[0]) == label for row, label in zip(scores, given["label"].tolist(), strict=True)]
    assert float(outcome.metrics["s/hits"]) == pytest.approx(sum(hits) / 6)
    torch.testing.assert_close(outcome.logits["s/scores"], scores)


def test_left_is_not_right() -> None:
    model, given = comparing().eval(), batch()
    task = Task(model, {"s": objective()}, {"s": 1.0}).eval()
    turned = given | {"left": given["right"], "right": given["left"]}
    expected = F.cross_entropy(scores_one_by_one(model, turned), given["label"])
    torch.testing.assert_close(task(turned).loss, expected)
    assert abs((task(given).loss - expected).item()) > 1e-3


@pytest.mark.parametrize("truth", [0, 1])
def test_hits_are_the_statements_told_right(truth: int) -> None:
    features = {"scores": torch.zeros(4, 2), "target": torch.tensor([1, 1, 0, 1])}
    features["scores"][:, truth] = 1.0
    outcome = objective().score(comparing(), features, slice(0, 4))
    assert float(outcome.metrics["hits"]) == (0.75 if truth else 0.25)


def test_r_drop_around_it_keeps_pairs_together() -> None:
    wrapped = load(ObjectiveConfig, {"kind": "rdrop", "alpha": 3.0, "of": {"kind": "statements"}}).build()
    task = Task(comparing(0.2), {"s": wrapped}, {"s": 1.0}).train()
    features, label = task.embed(batch()), batch()["label"]
    outcome = task.score(features)
    draws = [features[f"s/{half}/scores"] for half in ("one", "two")]
    p, q = (x.log_softmax(1) for x in draws)
    apart = sum(F.kl_div(x, y, log_target=True, reduction="batchmean") for x, y in ((p, q), (q, p)))
    expected = sum(F.cross_entropy(x, label) for x in draws) / 2 + 3.0 / 4 * apart
    torch.testing.assert_close(outcome.loss, expected)
    torch.testing.assert_close(outcome.metrics["s/kl"], apart.detach() / 2)
    assert apart.item() > 1e-4


def test_models_that_cannot() -> None:
    with pytest.raises(ValueError, match=r"needs a head for pair; set model\.tasks to \[words, matching, pair\]"):
        Task(model_of(), {"s": objective()}, {"s": 1.0})
    with pytest.raises(ValueError, match="needs a model of kind vilt, not classifier"):
        Task(built(BY_KIND["classifier"]), {"s": objective()}, {"s": 1.0})
