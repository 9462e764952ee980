from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from pictura.config import kinds
from pictura.objectives import base
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome, Task, weight_of


class Square(Objective):
    """The loss of each example is its feature squared."""

    needs = frozenset({"x"})

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[slice] = []
        self.settled = 0

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        return {"f": model(batch["x"])}

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        assert features.keys() == {"f"}
        self.seen.append(rows)
        loss = features["f"][rows].square().mean()
        return Outcome(loss, {"share": loss * 2}, {"f": features["f"]})

    def settle(self, model: nn.Module) -> None:
        self.settled += 1
        assert not torch.is_grad_enabled()


class Spread(Square):
    """The same, but it asks for the whole batch."""

    needs = frozenset({"x", "label"})
    across = True


@dataclass(frozen=True, kw_only=True)
class Scheduled(ObjectiveConfig):
    """For its weight."""

    def build(self) -> Objective:
        return Square()


def task(**objectives: Objective) -> Task:
    torch.manual_seed(0)
    weights = {name: 1.0 + i for i, name in enumerate(objectives)}
    return Task(nn.Linear(3, 2), objectives, weights)


BATCH = {"x": torch.arange(12.0).view(4, 3), "label": torch.arange(4)}


def test_the_loss_is_the_weighted_sum() -> None:
    both = task(a=Square(), b=Spread())
    outcome = both(BATCH)
    one = both.model(BATCH["x"]).square().mean()
    torch.testing.assert_close(outcome.loss, 3 * one)
    outcome.loss.backward()
    found = both.model.weight.grad.clone()
    both.zero_grad()
    (3 * both.model(BATCH["x"]).square().mean()).backward()
    torch.testing.assert_close(found, both.model.weight.grad)


def test_metrics_have_slash_names_and_no_gradient() -> None:
    outcome = task(a=Square(), b=Spread())(BATCH)
    assert list(outcome.metrics) == ["loss", "a/loss", "a/share", "b/loss", "b/share"]
    assert set(outcome.logits) == {"a/f", "b/f"}
    assert not any(metric.requires_grad for metric in outcome.metrics.values())
    torch.testing.assert_close(outcome.metrics["loss"], outcome.metrics["a/loss"] + 2 * outcome.metrics["b/loss"])


def test_embed_then_score_is_forward() -> None:
    both = task(a=Square(), b=Spread())
    features = both.embed(BATCH)
    assert list(features) == ["a/f", "b/f"]
    assert torch.equal(both.score(features).loss, both(BATCH).loss)


def test_names_that_begin_alike_are_kept_apart() -> None:
    both = task(a=Square(), ab=Spread())
    assert both(BATCH).metrics.keys() == {"loss", "a/loss", "a/share", "ab/loss", "ab/share"}


def test_needs_are_joined() -> None:
    assert task(a=Square()).needs == {"x"}
    assert task(a=Square(), b=Spread()).needs == {"x", "label"}


def test_settle_reaches_all() -> None:
    both = task(a=Square(), b=Spread())
    both.settle()
    assert [objective.settled for objective in both.named.values()] == [1, 1]


@pytest.mark.parametrize(("rank", "rows"), [(0, slice(0, 4)), (1, slice(4, 8)), (2, slice(8, 12))])
def test_only_those_that_ask_see_the_whole_batch(monkeypatch: pytest.MonkeyPatch, rank: int, rows: slice) -> None:
    """As the second of three processes: own rows of the gathered batch, or the own batch and nothing else."""
    asked: list[set[str]] = []

    def gather(features: dict[str, Tensor]) -> dict[str, Tensor]:
        asked.append(set(features))
        return {name: torch.cat([value] * 3) for name, value in features.items()}

    monkeypatch.setattr(base, "gather", gather)
    monkeypatch.setattr(base, "rank", lambda: rank)
    monkeypatch.setattr(base, "world", lambda: 3)
    both = task(a=Square(), b=Spread())
    outcome = both(BATCH)
    assert asked == [{"b/f"}], "features are gathered once, and only those that are needed"
    assert both.named["a"].seen == [slice(0, 4)]
    assert both.named["b"].seen == [rows]
    assert outcome.logits["a/f"].shape == (4, 2)
    assert outcome.logits["b/f"].shape == (12, 2)


def test_a_task_needs_an_objective() -> None:
    with pytest.raises(ValueError, match=r"objectives: at least one is needed, for example `clip"):
        Task(nn.Linear(1, 1), {}, {})


def test_heads_are_trained_with_the_model() -> None:
    class Headed(Square):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 2)

    names = {name for name, _ in task(a=Headed()).named_parameters()}
    assert names == {"model.weight", "model.bias", "objectives.a.head.weight", "objectives.a.head.bias"}


def test_kinds() -> None:
    found = kinds(ObjectiveConfig)
    assert {"clip", "siglip"} <= found.keys()
    assert all(cls().weight == 1.0 for name, cls in found.items() if name in ("clip", "siglip"))


def test_a_config_needs_a_build() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Half(ObjectiveConfig):
        sizes: ClassVar[dict[str, object]] = {}

    with pytest.raises(TypeError, match="build"):
        Half()


def test_a_weight_follows_its_schedule() -> None:
    found = {
        done: Scheduled(weight=2.0, schedule=((0.1, 0.0), (0.3, 1.0))).weight_at(done) for done in (0, 0.1, 0.2, 0.9)
    }
    assert found == pytest.approx({0: 0.0, 0.1: 0.0, 0.2: 1.0, 0.9: 2.0})
    assert weight_of(Scheduled(weight=2.0)) == 2.0
    ours = task(a=Square())
    ours.weights["a"] = weight_of(Scheduled(schedule=((0.0, 1.0), (1.0, 0.0))))
    ours.done = 0.25
    outcome = ours(BATCH)
    torch.testing.assert_close(outcome.loss, 0.75 * outcome.metrics["a/loss"])
    assert float(outcome.metrics["a/weight"]) == 0.75


@pytest.mark.parametrize("points", [((0.5, 1.0), (0.2, 0.0)), ((0.0, 1.0), (0.0, 0.5)), ((0.0, 1.0), (1.5, 0.0))])
def test_points_that_are_no_way_through_the_run_are_refused(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match=r"schedule: .* must be points \[share of the run, factor\]"):
        Scheduled(schedule=points)
