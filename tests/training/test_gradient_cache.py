from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pictura.objectives.base import Features, Task
from pictura.recipe import prepare
from pictura.training.gradient_cache import cached_backward, check_cacheable
from tests.tiny import tiny
from tests.training.toys import batch, task


def gradients(of: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in of.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("objective", ["clip", "siglip"])
@pytest.mark.parametrize("size", [16, 8, 5, 1])
def test_the_gradient_of_the_whole_batch(objective: str, size: int) -> None:
    bias = ["model.logit_bias=-10"] if objective == "siglip" else []
    prepared = prepare(tiny(f"objectives.clip.kind={objective}", *bias))
    given = next(iter(prepared.batches.iterate()))
    plain = prepared.task(given)
    plain.loss.backward()
    wanted = gradients(prepared.task)
    prepared.task.zero_grad()
    cached = cached_backward(prepared.task, given, size)
    torch.testing.assert_close(cached.loss, plain.loss, rtol=1e-5, atol=1e-6)
    assert cached.metrics.keys() == plain.metrics.keys()
    torch.testing.assert_close(gradients(prepared.task), wanted, rtol=1e-5, atol=1e-5)
    assert float(wanted["model.logit_scale"].abs()) > 0


class Watched(Task):
    """Remembers what it embedded, and how much at once."""

    seen: list[Features]

    def embed(self, batch: Any) -> Features:
        features = super().embed(batch)
        self.seen.append(features)
        return features


def watched(dropout: float) -> Watched:
    toy = task(dropout)
    out = Watched(toy.model, toy.named, toy.weights)
    out.seen = []
    return out


def test_both_times_the_same_dropout_and_at_most_so_many_at_once() -> None:
    toy = watched(dropout=0.5)
    cached_backward(toy, batch(0), 3)
    assert [len(features["match/image"]) for features in toy.seen] == [3, 3, 2] * 2
    for first, again in zip(toy.seen[:3], toy.seen[3:], strict=True):
        assert not first["match/image"].requires_grad
        assert again["match/image"].requires_grad
        torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(
        toy.seen[0]["match/image"], watched(0.0).embed({k: v[:3] for k, v in batch(0).items()})["match/image"]
    )


def test_with_dropout_it_is_the_gradient_of_what_was_drawn() -> None:
    toy = watched(dropout=0.5)
    torch.manual_seed(3)
    outcome = cached_backward(toy, batch(0), 4)
    ours = gradients(toy)
    torch.manual_seed(3)
    seeds = [int(seed) for seed in torch.randint(2**62, (2,))]
    toy.zero_grad()
    parts = []
    for i, seed in enumerate(seeds):
        torch.manual_seed(seed)
        parts.append(toy.embed({k: v[4 * i : 4 * i + 4] for k, v in batch(0).items()}))
    whole = toy.score({k: torch.cat([part[k] for part in parts]) for k in parts[0]})
    whole.loss.backward()
    torch.testing.assert_close(outcome.loss, whole.loss)
    torch.testing.assert_close(ours, gradients(toy))


def test_it_draws_the_same_however_the_parts_are_embedded() -> None:
    """What is drawn after it does not depend on how much dropout drew inside."""
    after = []
    for dropout in (0.0, 0.5):
        torch.manual_seed(0)
        cached_backward(task(dropout), batch(0), 4)
        after.append(torch.rand(3))
    assert torch.equal(*after)


def test_a_locked_tower_has_no_gradient() -> None:
    toy = task()
    toy.model.get_submodule("image").requires_grad_(False)
    toy.model.get_submodule("blocks").requires_grad_(False)
    cached_backward(toy, batch(0), 3)
    assert gradients(toy).keys() == {"model.text.weight", "model.text.bias", "model.logit_scale"}


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), nn.SyncBatchNorm(4)])
def test_batch_norm_is_refused_by_name(norm: nn.Module) -> None:
    toy = task()
    check_cacheable(toy)
    toy.model.get_submodule("blocks").append(norm)  # type: ignore[operator]
    with pytest.raises(
        ValueError, match=r"training\.micro_batch: model\.blocks\.1 is batch norm.*leave micro_batch out"
    ):
        check_cacheable(toy)
