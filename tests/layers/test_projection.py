import pytest
import torch
from torch import nn

from pictura.layers.projection import Projection


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_it_is_linear_layers_each_with_batch_norm_and_relu_between(layers: int) -> None:
    torch.manual_seed(0)
    ours = Projection(10, layers, 6, 4)
    parts: list[nn.Module] = []
    for i, (linear, norm) in enumerate(zip(ours.linears, ours.norms, strict=True)):
        parts += [linear, nn.BatchNorm1d(norm.num_features), *([nn.ReLU()] if i < layers - 1 else [])]
    x = torch.randn(12, 10)
    torch.testing.assert_close(ours(x), nn.Sequential(*parts)(x))
    shapes = {1: [(4, 10)], 2: [(6, 10), (4, 6)], 3: [(6, 10), (6, 6), (4, 6)]}[layers]
    assert [tuple(linear.weight.shape) for linear in ours.linears] == shapes
    assert not any(name.startswith("linears") and name.endswith("bias") for name, _ in ours.named_parameters())
    assert ours.norms[-1].bias is None and all(norm.bias is not None for norm in ours.norms[:-1])


def test_none_gives_the_features_back() -> None:
    x = torch.randn(3, 5)
    head = Projection(5, 0)
    assert torch.equal(head(x), x) and not list(head.parameters())


def test_every_weight_is_set_by_reset_parameters() -> None:
    head = Projection(5, 3, 7, 4)
    with torch.no_grad():
        for tensor in (*head.parameters(), *(b for b in head.buffers() if b.is_floating_point())):
            tensor.fill_(float("nan"))
    head.reset_parameters()
    assert all(tensor.isfinite().all() for tensor in (*head.parameters(), *head.buffers()))


def test_hidden_layers_are_as_wide_as_the_features_unless_said() -> None:
    assert [linear.out_features for linear in Projection(9, 3).linears] == [9, 9, 128]
