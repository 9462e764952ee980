"""LARS against its formula written out for one parameter at a time, and rates that grow with the batch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pictura import facts, run
from pictura.config import load
from pictura.recipe import Recipe
from pictura.training import optimizers
from pictura.training.lars import LARS
from pictura.training.loop import Trainer
from pictura.training.optimizers import AdamWConfig, LARSConfig, MuonConfig, OptimizerConfig, SGDConfig
from tests.tiny import tiny
from tests.training.toys import batches, trainer, weights

SHAPES = {
    "model.image.conv1.weight": (4, 3, 2, 2),
    "model.image.bn1.weight": (4,),
    "model.image.silent.weight": (3, 5),  # weights of zero
    "model.image.unused.weight": (5, 2),  # gradients of zero
    "model.image.both.weight": (2, 2),  # zeros at first, and its first gradient is zero
    "model.image.cls_token": (1, 1, 6),
    "model.overhead.weight": (3, 2),
    "model.head.weight": (3, 4),
    "model.head.bias": (3,),
    "model.logit_scale": (),
}
ADAPT = {f"model.{name}.weight" for name in ("image.conv1", "image.silent", "image.unused", "image.both", "overhead")}


def parameters(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in SHAPES.items()}
    for name in ("silent", "both"):
        drawn[f"model.image.{name}.weight"].zero_()
    return {name: value.requires_grad_() for name, value in drawn.items()}


def gradients(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step + 1)
    drawn = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}
    drawn["model.image.unused.weight"].zero_()
    if step == 0:
        drawn["model.image.both.weight"].zero_()
    return drawn


def norm(numbers: list[float]) -> float:
    return sum(x * x for x in numbers) ** 0.5


def naive(rates: list[float], decay: float, momentum: float, eta: float) -> dict[str, list[float]]:
    """Every parameter by itself, as a list of numbers, after one step at each rate."""
    out = {}
    for name, start in parameters().items():
        w = start.detach().flatten().tolist()
        v = [0.0] * len(w)
        for step, rate in enumerate(rates):
            g, trust = gradients(step)[name].flatten().tolist(), 1.0
            if name in ADAPT:
                g = [gi + decay * wi for gi, wi in zip(g, w, strict=True)]
                if norm(w) > 0 and norm(g) > 0:
                    trust = eta * norm(w) / norm(g)
            v = [momentum * vi + rate * trust * gi for vi, gi in zip(v, g, strict=True)]
            w = [wi - vi for wi, vi in zip(w, v, strict=True)]
        out[name] = w
    return out


@pytest.mark.parametrize("piece", [1, 20, 2**20])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_three_steps_are_the_formula_s(
    piece: int, decay: float, momentum: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "PIECE", piece)
    ours = parameters()
    optimizer = LARSConfig(lr=0.5, weight_decay=decay, momentum=momentum, trust=0.02).build(ours.items())
    for step, factor in enumerate((0.2, 1.0, 0.6)):
        optimizer.schedule(factor)
        given = gradients(step)
        for name, parameter in ours.items():
            parameter.grad = given[name].clone()
        optimizer.step()
        for name, parameter in ours.items():
            assert parameter.grad is not None and torch.equal(parameter.grad, given[name]), "gradients are only read"
    for name, wanted in naive([0.1, 0.5, 0.3], decay, momentum, 0.02).items():
        expected = torch.tensor(wanted, dtype=torch.float64).view(SHAPES[name])
        torch.testing.assert_close(ours[name].detach(), expected, rtol=1e-12, atol=1e-14, msg=lambda m, n=name: n + m)


def test_a_step_is_a_share_of_the_weights_whatever_the_size_of_the_gradient() -> None:
    for size in (1e-12, 1.0, 1e12):
        weight = torch.full((8, 8), 2.0, requires_grad=True)
        weight.grad = torch.full((8, 8), size)
        LARS([weight], lr=0.5, weight_decay=0.0, trust=0.01).step()
        torch.testing.assert_close(weight.detach(), torch.full((8, 8), 2.0 * (1 - 0.5 * 0.01)))


def test_what_has_no_gradient_stays() -> None:
    a, b = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    a.grad = torch.ones(2, 2)
    optimizer = LARS([a, b], lr=0.1)
    optimizer.step()
    assert not torch.equal(a.detach(), torch.ones(2, 2)) and torch.equal(b.detach(), torch.ones(2, 2))
    assert [*optimizer.state] == [a] and [*optimizer.state[a]] == ["momentum_buffer"]


def test_a_closure_is_called_with_gradients() -> None:
    weight = torch.full((2, 2), 3.0, requires_grad=True)

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert LARS([weight], lr=0.1, weight_decay=0.0, trust=1.0).step(closure) == 36
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 2.7))


def test_no_value_is_read_on_the_host() -> None:
    """Tensors without values: whatever would wait for a GPU, `item()` or a branch, is an error with them."""
    named = {name: torch.empty(shape, device="meta", requires_grad=True) for name, shape in SHAPES.items()}
    optimizer = LARSConfig().build(named.items())
    for _ in range(2):
        for parameter in named.values():
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()
    assert all(optimizer.moments(parameter)["momentum_buffer"].shape == parameter.shape for parameter in named.values())


def test_layers_have_rates_of_their_own() -> None:
    named = {
        f"m.blocks.{i}.fc.{part}": torch.ones(2, 2) if part == "weight" else torch.ones(2)
        for i in (0, 1)
        for part in ("weight", "bias")
    }
    optimizer = LARSConfig(lr=0.4, layer_decay=0.5, weight_decay=0.1).build(named.items())
    optimizer.schedule(0.1)
    names = {id(parameter): name for name, parameter in named.items()}
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"], group["trust"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert found == {
        "m.blocks.0.fc.weight": (pytest.approx(0.01), 0.1, 1e-3),
        "m.blocks.0.fc.bias": (pytest.approx(0.01), 0.0, None),
        "m.blocks.1.fc.weight": (pytest.approx(0.02), 0.1, 1e-3),
        "m.blocks.1.fc.bias": (pytest.approx(0.02), 0.0, None),
    }


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path, precision: str) -> None:
    config = LARSConfig(lr=1.0, weight_decay=0.01, trust=0.1)

    def ours(folder: str, steps: int) -> Trainer:
        return trainer(tmp_path / folder, optimizer=config, steps=steps, precision=precision)

    whole, half = ours("whole", 10), ours("half", 5)
    whole.run(batches)
    half.run(batches)
    again = ours("half", 10)
    assert again.resume() == 5
    for (name, parameter), (_, stopped) in zip(again.masters.trainable(), half.masters.trainable(), strict=True):
        held, wanted = again.optimizer.moments(parameter), half.optimizer.moments(stopped)
        assert [*held] == ["momentum_buffer"] and held["momentum_buffer"].dtype == torch.float32
        assert torch.equal(held["momentum_buffer"], wanted["momentum_buffer"]), name
        assert held["momentum_buffer"].any(), name
    again.run(batches)
    after, wanted_after = weights(again), weights(whole)
    assert all(torch.equal(after[name], wanted_after[name]) for name in after)
    assert not torch.equal(after["image.weight"], weights(half)["image.weight"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"trust": 0}, r"^trust: 0\.0 must be above zero; try 0\.001$"),
        ({"trust": -1e-3}, r"^trust: -0\.001 must be above zero"),
        ({"trust": float("inf")}, "^trust: inf must be above zero"),
        ({"trust": float("nan")}, "^trust: nan must be above zero"),
        ({"momentum": 1.0}, r"^momentum: 1\.0 must be at least 0 and below 1$"),
        ({"momentum": -0.1}, r"^momentum: -0\.1 must be at least 0 and below 1$"),
        ({"lr": 0}, r"^lr: 0\.0 must be above zero$"),
        ({"scaling": "square"}, "^scaling: expected one of 'none', 'linear', 'sqrt', got 'square'"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(OptimizerConfig, {"kind": "lars"} | change)


# Rates that grow with the batch


def test_rates_of_the_paper() -> None:
    """SimCLR, appendix B.1: linear scaling of 0.3 and the root's of 0.075 meet at a batch of 4096, in 4.8."""
    linear, root = LARSConfig(scaling="linear"), LARSConfig(lr=0.075, scaling="sqrt")
    assert linear.scaled(4096).lr == pytest.approx(4.8) and root.scaled(4096).lr == pytest.approx(4.8)
    assert linear.scaled(256).lr == pytest.approx(0.3) and root.scaled(256).lr == pytest.approx(1.2)
    assert linear.scaled(32).lr == pytest.approx(0.0375)
    assert LARSConfig().scaled(4096) == LARSConfig()


@pytest.mark.parametrize("config", [AdamWConfig, SGDConfig, MuonConfig, LARSConfig])
def test_every_optimiser_scales_once_and_keeps_the_rest(config: type[OptimizerConfig]) -> None:
    given = config(lr=0.1, weight_decay=0.7, layer_decay=0.5, scaling="linear")
    assert given.scaled(512) == config(lr=0.2, weight_decay=0.7, layer_decay=0.5)
    assert given.scaled(512).scaled(512) == given.scaled(512)


def test_a_run_scales_its_rate_once_and_its_recipe_stays(tmp_path: Path, one_thread: None) -> None:
    wanted = ("optimizer={kind: lars, lr: 0.16, scaling: linear}", "schedule={kind: constant}")
    recipe = tiny(*wanted, "training.steps=2")
    run.train(recipe, tmp_path / "run")
    assert load(Recipe, tmp_path / "run" / "config.yaml").optimizer == recipe.optimizer
    run.resume(tmp_path / "run", ["training.steps=4"])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["learning_rate"] for line in lines if "learning_rate" in line}
    assert rates == dict.fromkeys((1, 2, 3, 4), pytest.approx(0.16 * 16 / 256))
    assert load(Recipe, tmp_path / "run" / "config.yaml").optimizer == recipe.optimizer


def test_a_plan_steps_at_the_rate_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    def seen(trainer: Trainer, *_: Any, **__: Any) -> float:
        rates.extend(group["initial_lr"] for group in trainer.optimizer.param_groups)
        return 1.0

    monkeypatch.setattr(facts, "seconds_per_step", seen)
    facts.plan(tiny("optimizer.scaling=sqrt", "optimizer.lr=0.01"))
    assert rates and rates == pytest.approx([0.04] * len(rates))


def test_a_classifier_s_head_is_known_by_its_whole_name() -> None:
    """By itself, in a task, and in a task in DDP."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.heads, self.ahead = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    for outer in ("", "model.", "module.model."):
        named = {f"{outer}{name}": p for name, p in Model().named_parameters()}
        groups = LARSConfig().build(named.items()).param_groups
        adapting = {id(p) for group in groups if group["trust"] is not None for p in group["params"]}
        assert {name for name, p in named.items() if id(p) in adapting} == {
            f"{outer}heads.weight",
            f"{outer}ahead.weight",
        }
