from functools import partial

import pytest
import torch
from timm.models.vision_transformer import Block as Peer
from torch import nn

from pictura.layers.block import Block, drop_path


def stirred(**options: object) -> Block:
    torch.manual_seed(0)
    block = Block(24, 3, **options)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


def test_against_timm_by_its_own_names() -> None:
    block = stirred(mlp_ratio=2.5, eps=1e-3)
    peer = Peer(24, 3, 2.5, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-3))
    peer.load_state_dict(block.state_dict())
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(block(x), peer(x))
    quick = stirred(mlp_ratio=2.5, activation="quick_gelu")
    assert not torch.allclose(quick(x), peer(x), atol=1e-3)


@pytest.mark.parametrize("causal", [False, True])
def test_one_place_is_what_the_whole_gives_there(causal: bool) -> None:
    block, at = stirred(causal=causal), torch.tensor([0, 3, 4])
    x = torch.randn(3, 5, 24, requires_grad=True)
    whole, one = block(x)[torch.arange(3), at].unsqueeze(1), block(x, at)
    torch.testing.assert_close(one, whole)
    wanted = [x, *block.parameters()]
    expected = torch.autograd.grad(whole.square().sum(), wanted)
    torch.testing.assert_close(torch.autograd.grad(one.square().sum(), wanted), expected, rtol=1e-5, atol=1e-5)


def test_drop_path_takes_whole_examples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.rand(4000, 2, 3) + 1
    dropped = drop_path(x, 0.25, training=True)
    kept = dropped[:, 0, 0] != 0
    torch.testing.assert_close(dropped, torch.where(kept[:, None, None], x / 0.75, 0.0))
    assert abs(float(kept.float().mean()) - 0.75) < 0.03
    assert abs(float(dropped.mean() / x.mean()) - 1) < 0.04
    assert drop_path(x, 0.25, training=False) is x
    assert drop_path(x, 0.0, training=True) is x
    assert drop_path(x.bfloat16(), 0.25, training=True).dtype == torch.bfloat16


def test_a_block_may_drop_either_branch() -> None:
    block, x = stirred(drop_path=0.5).train(), torch.randn(1, 5, 24).expand(64, 5, 24)
    rows = {tuple(row.flatten()[:4].tolist()) for row in block(x).detach()}
    assert len(rows) == 4  # neither, the first, the second, both
    assert tuple(x[0].flatten()[:4].tolist()) in rows
    assert len({tuple(row.flatten()[:4].tolist()) for row in block.eval()(x).detach().round(decimals=4)}) == 1


def test_reset_fills_everything_with_clips_scales() -> None:
    block = Block(256, 4)
    for parameter in block.parameters():
        nn.init.constant_(parameter, torch.nan)
    torch.manual_seed(0)
    block.reset_parameters(256**-0.5, 24**-0.5)
    stds = {name: float(p.detach().std()) for name, p in block.named_parameters() if p.dim() == 2}
    expected = {"attn.qkv": 256**-0.5, "attn.proj": (256 * 24) ** -0.5, "mlp.fc1": 512**-0.5}
    expected["mlp.fc2"] = (256 * 24) ** -0.5
    assert stds == pytest.approx({f"{name}.weight": std for name, std in expected.items()}, rel=0.02)
    for name, parameter in block.named_parameters():
        if parameter.dim() == 1:
            assert (parameter == (1.0 if name in ("norm1.weight", "norm2.weight") else 0.0)).all(), name


@pytest.mark.parametrize("at", [None, torch.tensor([0, 3, 4])])
def test_what_is_mixed_and_what_the_perceptron_gives_drop_units_in_training_only(at: torch.Tensor | None) -> None:
    block, x = stirred(dropout=0.5), torch.randn(3, 5, 24)
    expected = block.eval()(x, at)
    assert torch.equal(block(x, at), expected)
    block.train()
    nn.init.zeros_(block.mlp.fc2.weight)
    nn.init.zeros_(block.mlp.fc2.bias)  # so that the attention alone is seen
    kept = x if at is None else x[torch.arange(3), at].unsqueeze(1)
    zeros = float((block(x, at) == kept).float().mean())
    assert 0.3 < zeros < 0.7


def test_two_draws_mix_once_and_drop_twice() -> None:
    block = stirred(dropout=0.5).double().train()
    x = torch.randn(3, 5, 24, dtype=torch.float64, requires_grad=True)
    mixed, run = list[int](), list[int]()
    block.attn.register_forward_hook(lambda _, given, out: mixed.append(len(out)))
    block.mlp.register_forward_hook(lambda _, given, out: run.append(len(out)))
    torch.manual_seed(1)
    both = block(x, None, None, True)
    assert (mixed, run) == ([3], [6])
    torch.manual_seed(1)
    plain = block(torch.cat([x, x]))
    torch.testing.assert_close(both, plain)
    ours, theirs = (torch.autograd.grad(out.square().sum(), [x, *block.parameters()]) for out in (both, plain))
    torch.testing.assert_close(ours, theirs)
