"""The moving average against a plain loop. Sharded parameters are tested with the checkpoints, in two processes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pictura.training.checkpoints import Checkpoints
from pictura.training.ema import Ema
from pictura.training.loop import Trainer
from tests.training.toys import batch, task, trainer


def module(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)).to(dtype)


def move(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator).to(p.dtype))


@pytest.mark.parametrize(("decay", "warmup"), [(0.9, 10), (0.5, 0), (0.999, 1), (0.0, 10)])
def test_against_a_loop(decay: float, warmup: int) -> None:
    model = module()
    ema = Ema(model.named_parameters(), decay=decay, warmup=warmup)
    expected = {name: p.detach().double() for name, p in model.named_parameters()}
    for step in range(12):
        move(model, step)
        ema.update()
        weight = decay if warmup == 0 else min(decay, (1 + step) / (warmup + step))
        expected = {n: weight * expected[n] + (1 - weight) * p.detach().double() for n, p in model.named_parameters()}
    assert ema.updates == 12
    for name, value in expected.items():
        torch.testing.assert_close(ema.averages[name].double(), value, rtol=1e-5, atol=1e-6)


def test_closed_form_of_a_constant() -> None:
    p = nn.Parameter(torch.zeros(3))
    ema = Ema([("p", p)], decay=0.9, warmup=0)
    with torch.no_grad():
        p.fill_(1.0)
    for _ in range(20):
        ema.update()
    torch.testing.assert_close(ema.averages["p"], torch.full((3,), 1 - 0.9**20))


def test_bfloat16_is_averaged_in_float32() -> None:
    """Steps far below what bfloat16 can hold must add up."""
    p = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    ema = Ema([("p", p)], decay=0.999, warmup=0)
    with torch.no_grad():
        p.fill_(1.0)
    for _ in range(500):
        ema.update()
    assert ema.averages["p"].dtype == torch.float32
    torch.testing.assert_close(ema.averages["p"], torch.full((2,), 1 - 0.999**500), rtol=1e-4, atol=0)


def test_the_average_is_a_copy() -> None:
    model = module()
    ema = Ema(model.named_parameters())
    before = {name: value.clone() for name, value in ema.averages.items()}
    move(model, 1)
    assert all(torch.equal(ema.averages[name], before[name]) for name in before)
    assert not any(value.requires_grad for value in ema.averages.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swapped_and_back_to_the_bit(dtype: torch.dtype) -> None:
    model = module(dtype)
    ema = Ema(model.named_parameters(), decay=0.9)
    move(model, 1)
    ema.update()
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    objects = [id(p) for p in model.parameters()]
    with ema.swapped():
        for name, p in model.named_parameters():
            assert torch.equal(p.detach(), ema.averages[name].to(dtype))
            assert not torch.equal(p.detach(), own[name])
    assert all(torch.equal(p.detach(), own[name]) for name, p in model.named_parameters())
    assert [id(p) for p in model.parameters()] == objects  # the optimiser still holds them
    assert all(p.requires_grad for p in model.parameters())


def test_swapped_back_after_an_error() -> None:
    model = module()
    ema = Ema(model.named_parameters())
    move(model, 1)
    own: list[Tensor] = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match="evaluation"), ema.swapped():
        raise RuntimeError("evaluation")
    assert all(torch.equal(p.detach(), q) for p, q in zip(model.parameters(), own, strict=True))


def test_state_goes_on_where_it_was() -> None:
    first, second = module(), module()
    one, two = Ema(first.named_parameters(), decay=0.99), Ema(second.named_parameters(), decay=0.99)
    for step in range(5):
        move(first, step)
        one.update()
    state = {"updates": one.state_dict()["updates"], "averages": {n: v.clone() for n, v in one.averages.items()}}
    two.load_state_dict(state)
    second.load_state_dict(first.state_dict())
    for step in range(5, 8):
        move(first, step)
        move(second, step)
        one.update()
        two.update()
    assert all(torch.equal(one.averages[name], two.averages[name]) for name in one.averages)


def test_state_of_another_model() -> None:
    ema = Ema(module().named_parameters())
    with pytest.raises(ValueError, match=r"ema: 0\.bias is not on both sides"):
        ema.load_state_dict({"updates": 0, "averages": {n: v for n, v in ema.averages.items() if n != "0.bias"}})


@pytest.mark.parametrize(("arguments", "match"), [({"decay": 1.0}, "decay: 1.0"), ({"warmup": -1}, "warmup: -1")])
def test_arguments(arguments: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Ema([], **arguments)  # type: ignore[arg-type]


def normed() -> Trainer:
    torch.manual_seed(0)
    toy = task()
    toy.model.get_submodule("blocks").append(nn.BatchNorm1d(4))  # type: ignore[operator]
    return trainer(Path("unused"), toy=toy, ema=0.9, precision="bf16")


def test_statistics_of_batch_norm_are_averaged_with_the_weights() -> None:
    """The statistics of the averaged model are nearer to what it sees than those of the newest one."""
    of = normed()
    norm = of.task.get_submodule("model.blocks.1")
    assert of.ema is not None
    expected = torch.zeros(4, dtype=torch.float64)
    for step in range(12):
        of._advance(batch(step))
        weight = min(0.9, (1 + step) / (10 + step))
        expected = weight * expected + (1 - weight) * norm.running_mean.double()  # type: ignore[operator]
    name = "model.blocks.1.running_mean"
    average, newest = of.ema.averages[name], norm.running_mean.clone()  # type: ignore[operator]
    torch.testing.assert_close(average.double(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(average, newest)
    assert torch.equal(of.weights()["blocks.1.running_mean"], average), "it is what a model folder holds"
    seen = of.evaluate(lambda _: {"mean": norm.running_mean.sum().item()})  # type: ignore[operator]
    assert seen["mean"] == pytest.approx(average.sum().item())
    assert torch.equal(norm.running_mean, newest), "and the run goes on with its own"
    assert norm.running_mean.dtype == torch.float32


def test_statistics_are_resumed(tmp_path: Path) -> None:
    first = normed()
    first.checkpoints = Checkpoints(tmp_path, 1)
    for step in range(3):
        first._advance(batch(step))
    first.save()
    second = normed()
    second.checkpoints = Checkpoints(tmp_path, 1)
    assert second.resume() == 3
    for step in (3, 4):
        first._advance(batch(step))
        second._advance(batch(step))
    found, expected = second.task.state_dict(), first.task.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert all(torch.equal(second.weights()[name], tensor) for name, tensor in first.weights().items())
    assert expected["model.blocks.1.num_batches_tracked"] == 5
