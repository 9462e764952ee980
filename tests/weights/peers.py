"""What is asked of a CLIP that came from elsewhere: the same numbers, both ways."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from pictura.config import sized
from pictura.models.clip import CLIP, CLIPConfig
from pictura.models.clip_resnet import CLIPResNetConfig
from pictura.weights.folder import empty

PUBLISHED = {
    "ViT-B/32": (151.28, 87.85),
    "ViT-B/16": (149.62, 86.19),
    "ViT-L/14": (427.62, 303.97),
    "ViT-L/14@336": (427.94, 304.29),
}
RESNETS = {
    "RN50": (102.01, 38.32),
    "RN101": (119.69, 56.26),
    "RN50x4": (178.30, 87.14),
    "RN50x16": (290.98, 167.33),
    "RN50x64": (623.26, 420.38),
}
"""Parameters in millions: all, and those for pictures (openai/CLIP, counted from its own weights)."""


def published(size: str, depth: int | None = None) -> CLIPConfig:
    """One of our sizes, with towers of another depth; of a ResNet, each stage."""
    config = sized(CLIPConfig, size)
    if depth is None:
        return config
    resnet = isinstance(config.image, CLIPResNetConfig)
    image = replace(config.image, **{"layers": (depth,) * 4} if resnet else {"depth": depth})
    return replace(config, image=image, text=replace(config.text, depth=depth))


@contextmanager
def undrawn() -> Iterator[None]:
    """Models are built here without drawing their weights, which `stir` does."""
    names = [name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")]
    kept = {name: getattr(nn.init, name) for name in names}
    try:
        for name in names:
            setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield
    finally:
        for name, function in kept.items():
            setattr(nn.init, name, function)


@torch.no_grad()
def stir(model: nn.Module, seed: int) -> nn.Module:
    """No two tensors alike, none zero or one: with fresh weights, norms and biases could be swapped unseen."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        inputs = parameter[0].numel() if parameter.dim() == 4 else parameter.shape[-1] if parameter.dim() else 1
        parameter.normal_(std=inputs**-0.5 if parameter.dim() > 1 else 0.1, generator=generator)
        if parameter.dim() == 1 and name.endswith("weight"):  # norms
            parameter.add_(1)
        if name.endswith("bn3.weight"):  # else each block doubles what it is given, and rounding with it
            parameter.mul_(0.2)
    for name, buffer in model.named_buffers():  # what batch norm has counted
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith("num_batches_tracked"):
            buffer.fill_(seed + 10)
    return model.eval()


def examples(config: CLIPConfig) -> tuple[Tensor, Tensor]:
    """Two pictures, normalised, and three texts of 77 tokens, padded with zeros."""
    generator = torch.Generator().manual_seed(7)
    image = torch.randn(2, 3, config.image.image_size, config.image.image_size, generator=generator)
    text = torch.zeros(3, 77, dtype=torch.long)
    for row, length in zip(text, (4, 30, 17), strict=True):
        row[1 : length - 1] = torch.randint(1, 49406, (length - 2,), generator=generator)
        row[0], row[length - 1] = 49406, 49407
    return image, text


def loaded(config: CLIPConfig, state: Mapping[str, Tensor]) -> CLIP:
    model = empty(config).eval()
    model.load_state_dict(state, assign=True)
    assert isinstance(model, CLIP)
    return model


def ours(config: CLIPConfig, seed: int) -> CLIP:
    model = stir(empty(config).to_empty(device="cpu"), seed)
    assert isinstance(model, CLIP)
    return model


def alike(found: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the features' scale."""
    assert found.shape == expected.shape
    assert expected.std() > 0.01
    error = float((found - expected).abs().max() / expected.square().mean().sqrt())
    assert error < 1e-5, error


def identical(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype
