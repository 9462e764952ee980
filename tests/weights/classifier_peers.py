"""What is asked of a classifier that came from elsewhere, or goes there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pictura.models.classifier import Classifier, ClassifierConfig
from pictura.weights.family import Family, Found, Written
from pictura.weights.folder import empty, unfit
from tests.weights.peers import alike, identical, stir


@torch.no_grad()
def stirred(model: nn.Module, seed: int = 1) -> nn.Module:
    """`stir`, and statistics of batches that are not those of a fresh model."""
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2, generator=generator)
        elif name.endswith("num_batches_tracked"):
            buffer.fill_(7)
    return stir(model, seed)


def ours(config: ClassifierConfig, seed: int = 2) -> Classifier:
    """A classifier of ours, stirred."""
    model = stirred(config.build(), seed)
    assert isinstance(model, Classifier)
    return model


def pictures(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(7))


def found(state: Mapping[str, Tensor], **beside: Any) -> Found:
    """As if these lay in a folder; `config=…` is its config.json."""
    return Found(
        file=Path("model.safetensors"),
        state={name: tensor.clone() for name, tensor in state.items()},
        beside={f"{name}.json": content for name, content in beside.items()},
    )


def in_folder(folder: Path) -> Found:
    """What lies there."""
    beside = {file.name: json.loads(file.read_text()) for file in folder.glob("*.json")}
    return Found(file=folder / "model.safetensors", state=load_file(folder / "model.safetensors"), beside=beside)


def store(written: Written, folder: Path) -> Path:
    """Into a new folder, which is returned."""
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in written.state.items()}, folder / written.file)
    for name, content in written.beside.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def read(family: Family, what: Found) -> tuple[ClassifierConfig, dict[str, Tensor]]:
    """What the family makes of it, which fits a model of ours."""
    assert family.knows(what)
    config, state = family.read(what)
    assert isinstance(config, ClassifierConfig)
    assert not unfit(state, empty(config).state_dict())
    return config, state


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def loaded(config: ClassifierConfig, state: Mapping[str, Tensor]) -> Classifier:
    model = empty(config).eval()
    model.load_state_dict(state, assign=True)
    assert isinstance(model, Classifier)
    return model


@torch.inference_mode()
def read_alike(family: Family, what: Found, peer: nn.Module) -> ClassifierConfig:
    """A peer's model, read: the same numbers, and its own tensors when it is written again."""
    config, state = read(family, what)
    model, image = loaded(config, state), pictures(config.tower.image_size)
    alike(model.classify(image) if config.classes else model.encode_image(image), peer(image))
    identical(family.write(config, state).state, what.state)
    return config


def read_again(family: Family, config: ClassifierConfig, state: Mapping[str, Tensor]) -> None:
    """What we wrote is what we read: the same configuration, the same tensors."""
    written = family.write(config, state)
    again, tensors = read(family, Found(file=Path(written.file), state=written.state, beside=written.beside))
    assert again == config
    identical(tensors, state)
