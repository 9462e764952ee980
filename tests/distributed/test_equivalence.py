"""Two processes against one on the whole batch: losses, gradients and one clipped step, to 1e-5."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.distributed import worker

Results = list[dict[str, Any]]


def written_out(loss: str, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Both losses as their papers write them, over the whole matrix of similarities."""
    image = F.normalize(model.encode_image(batch["image"]), dim=1)
    text = F.normalize(model.encode_text(batch["text"]), dim=1)
    logits = model.logit_scale.exp() * image @ text.T
    if loss == "clip":
        target = torch.arange(len(logits))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    sign = 2 * torch.eye(len(logits)) - 1
    return -F.logsigmoid(sign * (logits + model.logit_bias)).sum() / len(logits)


@pytest.fixture(scope="module")
def one_process() -> dict[str, dict[str, Any]]:
    out = {}
    for loss in worker.OBJECTIVES:
        task = worker.tiny_task(loss)
        value = written_out(loss, task.model, worker.whole_batch())
        value.backward()
        gradients = {name: p.grad.clone() for name, p in task.named_parameters()}
        norm = torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients.values()]))
        assert norm > 2 * worker.MAX_NORM  # or clipping would not be tested
        with torch.no_grad():
            after = {n: p - worker.LR * p.grad * worker.MAX_NORM / norm for n, p in task.named_parameters()}
        out[loss] = {"loss": value.item(), "gradients": gradients, "norm": norm, "after": after}
    return out


@pytest.mark.parametrize(("loss", "mode", "cached"), worker.CASES)
def test_two_processes_are_one(
    results: Results, one_process: dict[str, dict[str, Any]], loss: str, mode: str, cached: bool
) -> None:
    expected = one_process[loss]
    for result in results:
        case = result["equivalence"][f"{loss} {mode} {'cached' if cached else 'plain'}"]
        assert case["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        torch.testing.assert_close(case["norm"], expected["norm"], rtol=1e-5, atol=0)
        for what in ("gradients", "after"):
            assert case[what].keys() == expected[what].keys()
            for name, value in expected[what].items():
                torch.testing.assert_close(
                    case[what][name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name, w=what: f"{w} of {n}: {m}"
                )


def test_the_temperature_has_a_gradient(one_process: dict[str, dict[str, Any]]) -> None:
    """What peers scale wrongly must be large enough here to be seen."""
    for case in one_process.values():
        assert abs(case["gradients"]["model.logit_scale"]) > 1e-2


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_lars_adapts_by_the_norms_of_whole_weights(results: Results, mode: str) -> None:
    """Norms of a shard alone would give other rates, and steps are long enough for that to be seen."""
    expected = worker.lars_steps(worker.tiny_task("clip"), worker.whole_batch())
    for name, value in expected["after"].items():
        assert (value - expected["before"][name]).abs().max() > 1e-3, name
    for result in results:
        case = result["lars"][mode]
        for what in ("after", "moments"):
            assert case[what].keys() == expected[what].keys()
            for name, value in expected[what].items():
                torch.testing.assert_close(
                    case[what][name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name, w=what: f"{w} of {n}: {m}"
                )
