from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pictura.objectives.base import Features, Outcome, Task
from pictura.prepare import prepare
from pictura.training.gradient_cache import cached_backward, check_cacheable
from pictura.training.precision import Masters
from tests.tiny import tiny
from tests.training.toys import Match, Toy, batch, task


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


def test_in_bf16_parts_are_added_in_float32() -> None:
    def of(size: int, dtype: torch.dtype) -> dict[str, Tensor]:
        toy = task()
        with torch.no_grad():
            for p in toy.parameters():
                p.copy_(p.bfloat16())  # all begin with the same weights
        masters = Masters(toy, dtype)
        given = {**batch(0, 512), "image": batch(0, 512)["image"] + 1}  # a bias that all parts pull the same way
        cached_backward(toy, given, size, masters)
        return {name: m.grad.clone() for name, m in masters.trainable() if m.grad is not None}

    exact, plain, parts = of(512, torch.float32), of(512, torch.bfloat16), of(1, torch.bfloat16)
    assert parts.keys() == exact.keys()
    for name, wanted in exact.items():
        assert parts[name].dtype == torch.float32
        far = [float((found[name] - wanted).norm() / wanted.norm()) for found in (plain, parts)]
        assert far[1] < 2 * far[0] + 2e-3, name


def test_a_feature_that_no_loss_uses() -> None:
    class Deaf(Match):
        def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
            return Outcome((features["image"] * torch.arange(4.0)).sum())

    toy = Task(Toy(), {"deaf": Deaf()}, {"deaf": 1.0})
    cached_backward(toy, batch(0), 3)
    assert {name.split(".")[1] for name in gradients(toy)} == {"image", "blocks"}


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), nn.SyncBatchNorm(4)])
def test_batch_norm_is_refused_by_name(norm: nn.Module) -> None:
    toy = task()
    check_cacheable(toy)
    toy.model.get_submodule("blocks").append(norm)  # type: ignore[operator]
    with pytest.raises(
        ValueError, match=r"training\.micro_batch: model\.blocks\.1 is batch norm.*leave micro_batch out"
    ):
        check_cacheable(toy)


def test_a_locked_norm_is_none_that_looks_across_examples() -> None:
    toy = task()
    norm = nn.BatchNorm1d(4).requires_grad_(False).eval()
    norm.running_mean.normal_()  # type: ignore[union-attr]
    toy.model.get_submodule("blocks").append(norm)  # type: ignore[operator]
    check_cacheable(toy)
    toy(batch(0)).loss.backward()
    wanted = gradients(toy)
    toy.zero_grad()
    cached_backward(toy, batch(0), 3)
    torch.testing.assert_close(gradients(toy), wanted, rtol=1e-5, atol=1e-6)
    toy.model.get_submodule("blocks").append(nn.BatchNorm1d(4, affine=False))  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"model\.blocks\.2 is batch norm"):
        check_cacheable(toy)
