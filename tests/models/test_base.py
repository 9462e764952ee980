"""What every model must be able to do: a new file in `models/` is tested here by being there."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pictura.config import Config, kinds, load, to_dict, to_yaml
from pictura.models.base import ImageTowerConfig, ModelConfig, TextTowerConfig, check_heads

SMALL = {"image_size": 16, "patch_size": 8, "width": 24, "depth": 2, "heads": 3, "embed_dim": 10}
SMALL |= {"vocab_size": 50, "context_length": 12}
BASES = (ImageTowerConfig, TextTowerConfig, ModelConfig)
ALL = [pytest.param(base, kind, id=f"{base.__name__}-{kind}") for base in BASES for kind in kinds(base)]
IMAGE = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
TEXT = torch.tensor([[48, 3, 4, 49], [48, 5, 49, 0], [48, 7, 6, 49]])


def small(config: Any) -> Any:
    """The same, with every size that it has made small, towers too."""
    changes: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in SMALL:
            changes[field.name] = SMALL[field.name]
        elif isinstance(value, Config):
            changes[field.name] = small(value)
    return replace(config, **changes)


def toy(base: type, kind: str) -> Any:
    return small(load(base, {"kind": kind}))


def built(config: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = config.build()
    return model


def features(base: type, model: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """All that the model makes of three pictures and three texts."""
    image = IMAGE.to(dtype)
    if base is ImageTowerConfig:
        return model(image)
    if base is TextTowerConfig:
        return model(TEXT)
    return torch.stack([model.encode_image(image), model.encode_text(TEXT)])


@pytest.mark.parametrize(("base", "kind"), ALL)
def test_forward_and_backward(base: type, kind: str) -> None:
    config = toy(base, kind)
    model = built(config).train()
    out = features(base, model)
    assert out.shape[-2:] == (3, config.embed_dim if base is ModelConfig else config.width)
    out.square().sum().backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("logit_"):  # the objective's
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(("base", "kind"), ALL)
def test_the_seed_decides(base: type, kind: str) -> None:
    config = toy(base, kind)
    one, two = built(config).eval(), built(config).eval()
    assert torch.equal(features(base, one), features(base, two))


@pytest.mark.parametrize(("base", "kind"), ALL)
def test_each_example_is_seen_alone(base: type, kind: str) -> None:
    """What gradient caching and several processes rely on."""
    model = built(toy(base, kind)).eval()
    calls = [(model, TEXT if base is TextTowerConfig else IMAGE)]
    if base is ModelConfig:
        calls = [(model.encode_image, IMAGE), (model.encode_text, TEXT)]
    for call, given in calls:
        torch.testing.assert_close(torch.cat([call(row[None]) for row in given]), call(given))


@pytest.mark.parametrize(("base", "kind"), ALL)
def test_weights_and_configuration_are_all_there_is(base: type, kind: str, tmp_path: Path) -> None:
    config = toy(base, kind)
    model = built(config).eval()
    torch.save(model.state_dict(), tmp_path / "weights")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load(base, to_dict(config)) == config
    again = load(base, tmp_path / "config.yaml").build().eval()
    again.load_state_dict(torch.load(tmp_path / "weights", weights_only=True))
    assert torch.equal(features(base, again), features(base, model))


@pytest.mark.parametrize(("base", "kind"), ALL)
def test_bf16(base: type, kind: str) -> None:
    model = built(toy(base, kind)).eval()
    expected = features(base, model)
    found = features(base, model.bfloat16(), torch.bfloat16)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize(("base", "kind"), ALL)
def test_compile_takes_it_whole(base: type, kind: str) -> None:
    """In one graph; the code that a compiler makes of the graph is not what is tested."""
    model = built(toy(base, kind)).eval()
    torch.compiler.reset()
    compiled = torch.compile(lambda: features(base, model), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(), features(base, model))


@pytest.mark.parametrize(("width", "given", "fit"), [(12, 5, 4), (500, 12, 10), (7, 8, 7), (12, 0, 1), (12, -3, 1)])
def test_heads_that_do_not_divide(width: int, given: int, fit: int) -> None:
    with pytest.raises(ValueError, match=rf"^heads: {given} does not divide width {width}; try {fit}$"):
        check_heads(given, width)
