"""Tasks in two processes against one on the whole batch, SimCLR's, R-Drop's, ViLT's and a detector's: losses and
gradients, to 1e-5."""

from typing import Any

import pytest
import torch

from pictura.objectives.classification import IGNORED
from tests.distributed import tasks


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    out = {}
    for name in tasks.TASKS:
        task = tasks.built(name).train()
        outcome = task(tasks.batch())
        outcome.loss.backward()
        gradients = {n: p.grad for n, p in task.named_parameters() if p.requires_grad}
        out[name] = {"metrics": {k: float(v) for k, v in outcome.metrics.items()}, "gradients": gradients}
    return out


@pytest.mark.parametrize(("name", "mode", "cached"), tasks.CASES)
def test_two_processes_are_one(
    results: list[dict[str, Any]], alone: dict[str, Any], name: str, mode: str, cached: bool
) -> None:
    expected = alone[name]
    for result in results:
        case = result["tasks"][name, mode, cached]
        assert case["metrics"].keys() == expected["metrics"].keys()
        assert case["metrics"] == pytest.approx(expected["metrics"], rel=1e-5, abs=5e-6)
        assert case["gradients"].keys() == expected["gradients"].keys()
        atol = 1e-4 if name == "detection" else 1e-5  # through norms over a few pixels each, float32 is no better
        for key, value in expected["gradients"].items():
            torch.testing.assert_close(
                case["gradients"][key], value, rtol=1e-4, atol=atol, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.mark.parametrize("name", ["words and matching", "slip"])
def test_a_process_by_itself_waits_for_nobody(results: list[dict[str, Any]], name: str) -> None:
    assert results[0]["alone"] == {"after": [0, 2]}
    found = results[1]["alone"]
    assert (found["here"], found["after"]) == ([0, 1, False], [1, 2])
    with torch.no_grad():
        assert found[name] == pytest.approx(float(tasks.built(name).eval()(tasks.batch()).loss), rel=1e-5)


def test_there_is_something_to_see(alone: dict[str, Any]) -> None:
    assert alone["rdrop"]["metrics"]["rdrop/kl"] > 0.01
    for name, case in alone.items():
        least = 1e-3 if name in tasks.JOINT else 0.0
        bias = "model.heads.rank.bias"  # which a softmax over texts does not see
        seen = [gradient is not None and bool(gradient.abs().max() > least) for gradient in case["gradients"].values()]
        unseen = [n for n, some in zip(case["gradients"], seen, strict=True) if not some and n != bias]
        if name == "detection":  # what is frozen, and the coarsest map, on which nothing was drawn
            unseen = [n for n in unseen if not n.startswith(("model.logit_scale", "model.pyramid.fpn"))]
        assert not unseen


def test_processes_have_different_numbers_of_hidden_words() -> None:
    """And pairs of both kinds; or a mean of means would do."""
    features = tasks.built("words and matching").embed(tasks.batch())
    hidden = [int((half != IGNORED).sum()) for half in features["words/label"].chunk(2)]
    assert min(hidden) > 0 and hidden[0] != hidden[1]
    assert all(set(half.tolist()) == {0, 1} for half in features["matching/target"].chunk(2))
