from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pictura.config import load
from pictura.objectives.base import Objective, ObjectiveConfig, Task
from tests.models.small import BY_KIND, built
from tests.objectives.test_masked_words import batch as pictures_and_texts
from tests.objectives.test_masked_words import model_of, texts


def batch(b: int = 4, k: int = 3) -> dict[str, Any]:
    """The other texts are shorter than the longest own one."""
    return pictures_and_texts(b) | {"other": texts(b * k, 8)[0].flip(0).view(b, k, -1)}


def objective(**options: Any) -> Objective:
    return load(ObjectiveConfig, {"kind": "ranking", "negatives": 3} | options).build()


def test_against_each_pair_alone() -> None:
    model, given = model_of(tasks=("rank",)).eval(), batch()
    task = Task(model, {"r": objective()}, {"r": 1.0}).eval()
    assert task.others == 3
    outcome = task(given)
    losses, hits = [], []
    for i in range(4):
        image = [given["image"][i]]
        scores = torch.cat(
            [
                model.match(image, given["text"][i : i + 1]),
                *(model.match(image, text[None]) for text in given["other"][i]),
            ]
        )
        losses.append(F.cross_entropy(scores, torch.tensor(0)))
        hits.append(float(scores[0] > scores[1:].max()))
    torch.testing.assert_close(outcome.loss, torch.stack(losses).mean())
    assert float(outcome.metrics["r/hits"]) == pytest.approx(sum(hits) / 4)


def test_of_more_captions_than_it_asks_for_it_reads_the_first() -> None:
    model, given = model_of(tasks=("rank",)).eval(), batch()
    fewer = Task(model, {"r": objective(negatives=2)}, {"r": 1.0}).eval()
    torch.testing.assert_close(fewer(given).loss, fewer(given | {"other": given["other"][:, :2]}).loss)


def test_a_tie_is_no_hit() -> None:
    found = objective().score(model_of(tasks=("rank",)), {"scores": torch.zeros(2, 4)}, slice(0, 2))
    assert float(found.metrics["hits"]) == 0.0


def test_r_drop_around_it_splits_the_draws() -> None:
    model = model_of(0.2, tasks=("rank",)).train()
    wrapped = load(ObjectiveConfig, {"kind": "rdrop", "alpha": 2.0, "of": {"kind": "ranking", "negatives": 3}}).build()
    task = Task(model, {"r": wrapped}, {"r": 1.0}).train()
    assert task.others == 3
    features = task.embed(batch())
    one, two = (features[f"r/{half}/scores"] for half in ("one", "two"))
    p, q = one.log_softmax(1), two.log_softmax(1)
    both = ((p.exp() - q.exp()) * (p - q)).sum(1).mean()
    losses = [F.cross_entropy(x, torch.zeros(4, dtype=torch.long)) for x in (one, two)]
    torch.testing.assert_close(task.score(features).loss, sum(losses) / 2 + 2.0 / 4 * both)


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="needs a head for rank"):
        Task(model_of(tasks=("matching",)), {"r": objective()}, {"r": 1.0})
    with pytest.raises(ValueError, match="needs a model of kind vilt"):
        Task(built(BY_KIND["classifier"]), {"r": objective()}, {"r": 1.0})
    with pytest.raises(ValueError, match="negatives: 0 is below 1; the paper has 15"):
        objective(negatives=0)
