import math

import pytest
import torch
from torch import nn

from pictura.layers.mlp import ACTIVATIONS, MLP, Activation, QuickGELU


def test_activations_at_some_points() -> None:
    x = torch.linspace(-4, 4, 33)
    quick = torch.tensor([v / (1 + math.exp(-1.702 * v)) for v in x.tolist()])
    exact = torch.tensor([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()])
    torch.testing.assert_close(QuickGELU()(x), quick)
    torch.testing.assert_close(ACTIVATIONS["gelu"]()(x), exact)
    assert (quick - exact).abs().max() > 0.01, "the two would be interchangeable"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_quick_gelu_is_what_autograd_makes_of_its_formula(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (4 * torch.randn(50, 7)).to(dtype).requires_grad_()
    other = x.detach().double().requires_grad_()
    weight = torch.randn(50, 7).to(dtype)
    found, expected = QuickGELU()(x), other * torch.sigmoid(1.702 * other)
    found.backward(weight)
    expected.backward(weight.double())
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-6}[dtype]
    assert found.dtype == x.grad.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(x.grad.double(), other.grad, rtol=tolerance, atol=tolerance)


def test_quick_gelu_by_finite_differences() -> None:
    x = torch.randn(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(QuickGELU(), x)


def test_quick_gelu_keeps_its_input_alone_and_leaves_it_as_it_was() -> None:
    x = torch.randn(5, 3)
    before, kept = x.clone(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        QuickGELU()(x.requires_grad_()).sum()
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]
    with torch.inference_mode():
        QuickGELU()(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu"])
def test_against_its_formula(activation: Activation) -> None:
    torch.manual_seed(0)
    mlp, x = MLP(6, 10, activation), torch.randn(2, 3, 6)
    hidden = ACTIVATIONS[activation]()(x @ mlp.fc1.weight.T + mlp.fc1.bias)
    torch.testing.assert_close(mlp(x), hidden @ mlp.fc2.weight.T + mlp.fc2.bias)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), hidden @ mlp.fc2.weight.T + mlp.fc2.bias)


def test_dropout_only_when_training() -> None:
    mlp, x = MLP(6, 10, dropout=0.5), torch.randn(50, 6)
    assert 0.3 < float((mlp.train()(x) == 0).float().mean()) < 0.7
    assert torch.equal(mlp.eval()(x), mlp(x))


def test_dropout_reaches_the_hidden_units() -> None:
    mlp = MLP(6, 4000, dropout=0.5).train()
    nn.init.zeros_(mlp.fc1.weight)
    nn.init.constant_(mlp.fc1.bias, 3.0)
    nn.init.ones_(mlp.fc2.weight)
    sums = mlp(torch.zeros(40, 6))
    assert len(sums[sums != 0].unique()) > 10, "every hidden unit was kept"
