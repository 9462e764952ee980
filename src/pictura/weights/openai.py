"""CLIP as OpenAI published it: TorchScript archives, their matrices in half precision (openai/CLIP, clip/clip.py)."""

from typing import ClassVar

import torch
from torch import Tensor

from pictura.models.pictures import PictureModelConfig
from pictura.weights.family import Family, Found, State, Written
from pictura.weights.open_clip import NUMBERS, config_from, to_pictura

TOWERS = frozenset({"visual.conv1.weight", "token_embedding.weight"})


class OpenAI(Family):
    """The names of tensors are open_clip's, which took them over; the activation is always OpenAI's own.

    Weights of two types, as in the archives themselves, are read in float32, which changes none of them.
    """

    name: ClassVar[str] = "openai"
    writes: ClassVar[bool] = False

    def knows(self, found: Found) -> bool:
        return found.state.keys() >= NUMBERS | TOWERS

    def read(self, found: Found) -> tuple[PictureModelConfig, dict[str, Tensor]]:
        config = config_from(found.state, activation="quick_gelu")
        told = {name: _number(found.state[name], name) for name in sorted(NUMBERS)}
        shown = {
            "context_length": config.text.context_length,
            "input_resolution": config.tower.image_size,
            "vocab_size": config.text.vocab_size,
        }
        if told != shown:
            raise ValueError(f"its numbers are {told}, but its tensors are those of {shown}")
        state = to_pictura(found.state)
        floating = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
        if len(floating) > 1:  # matrices were halved, embeddings and norms were not: no model computes with both
            state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        return config, state

    def write(self, config: PictureModelConfig, state: State) -> Written:
        raise ValueError("openai's archives hold code; `--to open_clip` writes the same names, which open_clip reads")


def _number(tensor: Tensor, name: str) -> int:
    if tensor.numel() != 1 or not torch.isfinite(tensor).all():
        raise ValueError(f"{name}: one number was expected, not {list(tensor.shape)}")
    return int(tensor)
