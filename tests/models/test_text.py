from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pictura.config import load
from pictura.models.base import TextTowerConfig
from pictura.models.text import TextTransformer, TextTransformerConfig

TINY = TextTransformerConfig(vocab_size=50, context_length=12, width=24, depth=3, heads=3, end_token=49)


def stirred(config: TextTransformerConfig) -> TextTransformer:
    torch.manual_seed(0)
    model = config.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


MODEL = stirred(TINY)
LENGTHS = st.lists(st.integers(2, 12), min_size=1, max_size=4)


def texts(lengths: list[int], width: int, fill: int = 0) -> Tensor:
    """Start 48, different words below 48, end 49, then `fill`."""
    torch.manual_seed(1)
    out = torch.full((len(lengths), width), fill)
    for row, length in zip(out, lengths, strict=True):
        row[:length] = torch.cat([torch.tensor([48]), torch.randperm(47)[: length - 2] + 1, torch.tensor([49])])
    return out


@settings(deadline=None, max_examples=20)
@given(lengths=LENGTHS)
def test_what_is_read_is_the_end_token_of_the_whole_computation(lengths: list[int]) -> None:
    """Every block for every position, one text at a time; then the norm, read at the end."""
    text = texts(lengths, 12)
    for row, length, found in zip(text, lengths, MODEL(text), strict=True):
        x = MODEL.token_embedding.weight[row[:length]][None] + MODEL.pos_embed[:length]
        for block in MODEL.blocks:
            x = block(x)
        torch.testing.assert_close(found, MODEL.norm(x)[0, -1])


@settings(deadline=None, max_examples=20)
@given(lengths=LENGTHS)
def test_cropping_to_the_longest_is_exact(lengths: list[int]) -> None:
    text = texts(lengths, 12)
    torch.testing.assert_close(MODEL(text[:, : max(lengths)]), MODEL(text))


def test_nothing_after_the_end_matters() -> None:
    torch.testing.assert_close(MODEL(texts([3, 7], 12, fill=31)), MODEL(texts([3, 7], 12)))
    torch.testing.assert_close(MODEL(texts([3, 7], 12, fill=49)), MODEL(texts([3, 7], 12)), msg="the first end is read")


def test_everything_before_the_end_matters() -> None:
    text = texts([8], 8)
    for i in range(7):
        other = text.clone()
        other[0, i] = (text[0, i] + 1) % 48
        assert not torch.allclose(MODEL(other), MODEL(text), atol=1e-3), i
    swapped = text[:, [0, 2, 1, 3, 4, 5, 6, 7]]
    assert not torch.allclose(MODEL(swapped), MODEL(text), atol=1e-3)


def test_without_an_end_token_the_highest_id_is_read() -> None:
    highest = stirred(replace(TINY, end_token=None))
    torch.testing.assert_close(highest(texts([3, 7], 12)), MODEL(texts([3, 7], 12)))
    other = stirred(replace(TINY, end_token=5))
    text = torch.tensor([[48, 7, 5, 9, 49, 0]])
    torch.testing.assert_close(other(text), other(text[:, :3]))
    torch.testing.assert_close(highest(text), highest(text[:, :5]))
    assert not torch.allclose(other(text), highest(text), atol=1e-3)


def test_longer_texts_are_refused() -> None:
    assert MODEL(texts([12], 12)).shape == (1, 24)
    with pytest.raises(ValueError, match="text of 13 tokens: this model reads at most 12"):
        MODEL(texts([12], 13))


def test_every_parameter_is_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    given_ = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: given_(*a, **k).fill_(torch.nan))
    for name, parameter in TINY.build().named_parameters():
        assert parameter.isfinite().all(), name


def test_every_parameter_gets_a_gradient() -> None:
    model = stirred(TINY).train()
    model(texts([12, 5], 12)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_scales_of_fresh_weights() -> None:
    torch.manual_seed(0)
    model = TextTransformerConfig(vocab_size=1000, context_length=64, width=256, depth=8, heads=4).build()
    stds = {name: float(p.detach().std()) for name, p in model.named_parameters()}
    assert stds["token_embedding.weight"] == pytest.approx(0.02, rel=0.02)
    assert stds["pos_embed"] == pytest.approx(0.01, rel=0.02)
    assert stds["blocks.7.attn.qkv.weight"] == pytest.approx(256**-0.5, rel=0.02)
    assert stds["blocks.0.attn.proj.weight"] == pytest.approx((256 * 16) ** -0.5, rel=0.02)
    assert stds["blocks.0.mlp.fc1.weight"] == pytest.approx(512**-0.5, rel=0.02)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"vocab_size": 0}, "^vocab_size: 0 must be above zero$"),
        ({"context_length": -1}, "^context_length: -1 must be above zero$"),
        ({"width": 0}, "^width: 0 must be above zero$"),
        ({"depth": 0}, "^depth: 0 must be above zero$"),
        ({"mlp_ratio": -2.0}, "^mlp_ratio: -2.0 must be above zero$"),
        ({"eps": 0.0}, "^eps: 0.0 must be above zero$"),
        ({"dropout": -0.5}, "^dropout: -0.5 must be at least 0 and below 1$"),
        ({"heads": 7}, "^heads: 7 does not divide width 512; try 4$"),
    ],
)
def test_mistakes_are_named(change: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(TextTowerConfig, {"kind": "transformer"} | change)


def test_where_nothing_is_learnt_a_shared_beginning_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = torch.tensor([[48, 7, 9, 49, 0, 0], [48, 7, 9, 11, 49, 0], [48, 7, 9, 11, 49, 0], [48, 3, 9, 49, 0, 0]])
    wanted, given_ = MODEL(text), list[int]()
    block = MODEL.blocks[0]
    monkeypatch.setattr(block, "forward", lambda x, *rest, own=block.forward: given_.append(len(x)) or own(x, *rest))
    with torch.no_grad():
        torch.testing.assert_close(MODEL(text), wanted)
    MODEL(text)
    assert given_ == [4 + 2 + 0 + 3, 4 + 5 + 5 + 4]
