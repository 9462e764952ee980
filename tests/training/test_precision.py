import pytest
import torch
from torch import Tensor, nn

from pictura.training import precision
from pictura.training.precision import Masters


def model() -> nn.Module:
    torch.manual_seed(0)
    toy = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    toy.scale = nn.Parameter(torch.tensor(0.3))
    return toy


def step(toy: nn.Module, masters: Masters, optimizer: torch.optim.Optimizer, x: Tensor) -> float:
    out = toy(x.to(toy[0].weight.dtype)).float() * toy.scale  # type: ignore[index]
    loss = (out**2).mean()
    loss.backward()
    masters.collect()
    optimizer.step()
    optimizer.zero_grad()
    masters.publish()
    return float(loss.detach())


def test_in_float32_the_parameters_are_their_own_masters() -> None:
    toy = model()
    masters = Masters(toy)
    assert {name: id(p) for name, p in toy.named_parameters()} == {name: id(p) for name, p in masters.masters.items()}
    masters.collect()
    masters.publish()


def test_in_bf16_weights_are_halved_and_numbers_without_a_shape_are_not() -> None:
    toy = model()
    before = {name: p.detach().clone() for name, p in toy.named_parameters()}
    masters = Masters(toy, torch.bfloat16)
    assert {p.dtype for p in toy.parameters() if p.dim()} == {torch.bfloat16}
    assert toy.scale.dtype == torch.float32
    assert all(torch.equal(masters.masters[name], p) for name, p in before.items()), "masters keep every bit"
    assert masters.masters["scale"] is toy.scale


def test_steps_too_small_for_bf16_add_up() -> None:
    toy = model()
    with torch.no_grad():
        toy[0].weight.fill_(1.0)
    masters = Masters(toy, torch.bfloat16)
    optimizer = torch.optim.SGD([p for _, p in masters.trainable()], lr=1.0)
    for _ in range(64):
        for p in toy.parameters():
            p.grad = torch.full_like(p, 2**-10)
        masters.collect()
        optimizer.step()
        optimizer.zero_grad()
        masters.publish()
    torch.testing.assert_close(
        masters.masters["0.weight"].detach(), torch.full((8, 8), 1 - 64 * 2**-10), rtol=0, atol=0
    )
    torch.testing.assert_close(toy[0].weight.detach(), torch.full((8, 8), 0.9375, dtype=torch.bfloat16), rtol=0, atol=0)
    assert torch.ones((), dtype=torch.bfloat16) - 2**-10 == 1.0, "in bf16 none of those steps is seen"


def test_close_to_float32() -> None:
    losses = {}
    for dtype in (torch.float32, torch.bfloat16):
        toy = model()
        masters = Masters(toy, dtype)
        optimizer = torch.optim.Adam([p for _, p in masters.trainable()], lr=1e-2)
        x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
        losses[dtype] = [step(toy, masters, optimizer, x) for _ in range(20)]
    torch.testing.assert_close(losses[torch.bfloat16], losses[torch.float32], rtol=0.05, atol=1e-4)
    assert losses[torch.bfloat16][-1] < losses[torch.bfloat16][0] / 2


def test_gradients_go_to_the_masters_and_leave_the_module() -> None:
    toy = model()
    masters = Masters(toy, torch.bfloat16)
    toy[0](torch.ones(2, 8, dtype=torch.bfloat16)).sum().backward()
    masters.collect()
    assert all(p.grad is None for p in toy.parameters())
    grads = {name: m.grad for name, m in masters.trainable()}
    assert {name for name, grad in grads.items() if grad is not None} == {"0.weight", "0.bias"}
    assert grads["0.weight"] is not None and grads["0.weight"].dtype == torch.float32


def test_many_small_gradients_add_up_in_float32() -> None:
    toy = model()
    masters = Masters(toy, torch.bfloat16)
    for value in [1.0] + 64 * [2**-10]:
        for p in toy.parameters():
            p.grad = torch.full_like(p, value)
        masters.collect()
    grad = masters.masters["0.weight"].grad
    assert grad is not None
    torch.testing.assert_close(grad, torch.full((8, 8), 1 + 64 * 2**-10), rtol=0, atol=0)
    assert masters.masters["scale"].grad is toy.scale.grad


def test_piece_by_piece_and_scaled() -> None:
    toy = model()
    masters = Masters(toy, torch.bfloat16)
    for p in toy.parameters():
        p.grad = torch.ones_like(p)
    first = [masters.masters[name] for name in ("0.weight", "scale")]
    masters.collect(first, torch.tensor(0.3))
    assert all(m.grad is not None and bool((m.grad == torch.tensor(0.3)).all()) for m in first), "not rounded to bf16"
    gradients = dict(masters.gradients())
    assert all(gradients[name] is p.grad for name, p in toy.named_parameters() if name.startswith("1."))
    assert gradients["0.weight"] is first[0].grad
    before = toy[1].weight.detach().clone()  # type: ignore[union-attr]
    with torch.no_grad():
        for m in masters.masters.values():
            m += 1
    masters.publish(first)
    assert torch.equal(toy[0].weight.float(), first[0].bfloat16().float())  # type: ignore[operator]
    assert torch.equal(toy[1].weight, before)  # type: ignore[arg-type]


def test_what_is_locked_is_not_to_be_trained() -> None:
    toy = model()
    toy[0].requires_grad_(False)
    masters = Masters(toy, torch.bfloat16)
    assert [name for name, _ in masters.trainable()] == ["scale", "1.weight", "1.bias"]
    assert "0.weight" in masters.masters, "but it is saved"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_finite(dtype: torch.dtype, bad: float) -> None:
    masters = Masters(model(), dtype)
    assert masters.finite()
    for name in ("scale", "1.weight"):
        tensor = masters.masters[name].detach().view(-1)
        kept = float(tensor[-1])
        tensor[-1] = bad
        assert not masters.finite()
        tensor[-1] = kept
    masters.masters["0.weight"].detach().fill_(3e38)
    assert masters.finite(), "large is not lost, though its square is"


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_stays_float32(training: bool) -> None:
    """torch's kernels take a bf16 input beside gains and statistics in float32, and beside none in bf16."""
    torch.manual_seed(0)
    toy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)).train(training)
    exact, state = nn.BatchNorm2d(4).train(training), toy[1].state_dict()
    exact.load_state_dict(state)
    masters = Masters(toy, torch.bfloat16)
    norm = toy[1]
    assert {name: t.dtype for name, t in toy.state_dict().items() if t.is_floating_point()} == {
        **dict.fromkeys(("0.weight", "0.bias", "2.weight", "2.bias"), torch.bfloat16),
        **dict.fromkeys(("1.weight", "1.bias", "1.running_mean", "1.running_var"), torch.float32),
    }
    assert masters.masters["1.weight"] is norm.weight
    x = (3 * torch.randn(8, 3, 8, 8) + 1).bfloat16()
    middle = toy[0](x)
    middle.retain_grad()
    out = norm(middle)
    wide = middle.detach().float().requires_grad_()
    expected = exact(wide)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=2**-8, atol=1e-3)
    torch.testing.assert_close(norm.running_var, exact.running_var)
    assert (norm.running_var == 1).all() != training
    down = torch.randn_like(out)
    torch.autograd.backward([out, expected], [down, down.float()])
    assert middle.grad is not None and middle.grad.dtype == torch.bfloat16
    torch.testing.assert_close(middle.grad.float(), wide.grad, rtol=2**-7, atol=1e-3)
    torch.testing.assert_close(norm.weight.grad, exact.weight.grad)
    masters.collect()
    assert masters.masters["1.bias"].grad is norm.bias.grad
    torch.testing.assert_close(norm.bias.grad, exact.bias.grad)


@pytest.mark.parametrize(("asked", "has", "used"), [
    ("bf16", True, torch.bfloat16), ("bf16", False, torch.float32), ("float32", True, torch.float32),
])  # fmt: skip
def test_a_cpu_that_only_imitates_bf16_computes_in_float32(
    asked: str, has: bool, used: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "runs_here", lambda: has)
    assert precision.computed_in(asked, torch.device("cpu")) is used
    assert precision.computed_in(asked, torch.device("cuda")) is (torch.bfloat16 if asked == "bf16" else torch.float32)
    assert ("this CPU has no products of bf16" in caplog.text) is (asked == "bf16" and not has)
