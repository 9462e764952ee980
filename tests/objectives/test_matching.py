from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.config import load
from pictura.losses.transport import alignment_distance
from pictura.objectives.base import Objective, ObjectiveConfig, Task
from pictura.objectives.matching import MatchingConfig, mismatched
from tests.models.small import BY_KIND, built
from tests.objectives.test_masked_words import batch as pictures_and_texts
from tests.objectives.test_masked_words import model_of, texts


def batch(b: int = 6) -> dict[str, Any]:
    """The other texts are shorter, so that both have to be brought to one length."""
    seeds = {"seed": [5**i for i in range(1, b + 1)]}
    return pictures_and_texts(b) | {"other": texts(b, 8)[0].flip(0)[:, None]} | seeds


def objective(**options: Any) -> Objective:
    return load(ObjectiveConfig, {"kind": "matching"} | options).build()


def test_half_of_the_texts_are_another_example_s() -> None:
    ids = torch.arange(4000)[:, None].repeat(1, 3)
    given = {"text": ids, "other": -ids[:, None], "seed": list(range(4000))}
    text, target = mismatched(given)
    assert float(target.float().mean()) == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)
    assert torch.equal(text, ids * (2 * target - 1)[:, None])
    again = mismatched({k: v[1000:1007] for k, v in given.items()})
    assert torch.equal(again[1], target[1000:1007]), "by its own seed, whatever stands beside it"


@pytest.mark.parametrize("alignment", [0.0, 0.1])
def test_against_each_pair_alone(alignment: float) -> None:
    model, given = model_of().eval(), batch()
    outcome = Task(model, {"m": objective(alignment=alignment)}, {"m": 1.0}).eval()(given)
    text, target = mismatched(given)
    assert set(target.tolist()) == {0, 1}
    losses, hits, signed = list[Tensor](), list[float](), list[Tensor]()
    for i in range(6):
        joint = model([given["image"][i]], text[i : i + 1])
        scores = model.heads["matching"](model.pooler(joint.words[0]).tanh())
        losses.append(F.cross_entropy(scores, target[i]))
        hits.append(float(scores.argmax() == target[i]))
        words, patches = joint.words[1:-1], joint.tokens[len(joint.words) + 1 :]
        assert len(patches) == joint.grids[0][0] * joint.grids[0][1]
        everything = [torch.ones(1, len(x), dtype=torch.bool) for x in (words, patches)]
        apart = alignment_distance(words[None], patches[None], *everything)[0]
        signed.append(apart if target[i] else -apart)
    right = torch.stack(losses).mean() + alignment * torch.stack(signed).mean()
    torch.testing.assert_close(outcome.loss, right)
    assert float(outcome.metrics["m/hits"]) == pytest.approx(sum(hits) / 6)
    if alignment:
        apart = [[s.detach().abs() for s, t in zip(signed, target, strict=True) if t == k] for k in (0, 1)]
        far, near = (float(sum(some, torch.zeros(()))) / max(1, len(some)) for some in apart)
        assert float(outcome.metrics["m/apart"]) == pytest.approx(far - near, rel=1e-4)


def test_r_drop_around_it_splits_the_draws() -> None:
    model = model_of(0.2).train()
    wrapped = load(
        ObjectiveConfig, {"kind": "rdrop", "alpha": 3.0, "of": {"kind": "matching", "alignment": 0.1}}
    ).build()
    task = Task(model, {"m": wrapped}, {"m": 1.0}).train()
    features = task.embed(batch())
    outcome = task.score(features)
    draws, target = [features[f"m/{half}/scores"] for half in ("one", "two")], features["m/target"]
    distances = [features[f"m/{half}/distance"] for half in ("one", "two")]
    p, q = (x.log_softmax(1) for x in draws)
    both = F.kl_div(p, q, log_target=True, reduction="batchmean") + F.kl_div(
        q, p, log_target=True, reduction="batchmean"
    )
    losses = [
        F.cross_entropy(x, target) + 0.1 * (d * (2 * target - 1)).mean() for x, d in zip(draws, distances, strict=True)
    ]
    torch.testing.assert_close(outcome.loss, sum(losses) / 2 + 3.0 / 4 * both)


def test_models_that_cannot() -> None:
    with pytest.raises(ValueError, match=r"needs a head for matching; set model\.tasks to \[words, matching\]"):
        Task(model_of(tasks=("words",)), {"m": objective()}, {"m": 1.0})
    with pytest.raises(ValueError, match="needs a model of kind vilt, not classifier"):
        Task(built(BY_KIND["classifier"]), {"m": objective()}, {"m": 1.0})


def test_a_weight_below_zero() -> None:
    with pytest.raises(ValueError, match=r"alignment: -0\.1 is below 0; the paper has 0\.1"):
        MatchingConfig(alignment=-0.1)
