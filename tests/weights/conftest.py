"""A CLIP small enough to test with, and its tokenizer; nothing in it is as a fresh model has it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pictura.data.bpe import TrainTokenizerConfig
from pictura.data.text import Tokenizer
from pictura.layers.stems import PatchStemConfig
from pictura.models.clip import CLIP, CLIPConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return TrainTokenizerConfig(vocab_size=540, context_length=12).build(lambda: ["a red dog runs near the old house"])


@pytest.fixture
def make(tokenizer: Tokenizer) -> Callable[..., CLIP]:
    """`make(seed=0, **changes to the configuration)`."""

    def build(seed: int = 0, **changes: object) -> CLIP:
        torch.manual_seed(seed)
        image: dict[str, Any] = {"image_size": 32, "patch_size": 8, "pre_norm": True, "eps": 1e-5}
        image["stem"] = PatchStemConfig(bias=False)
        text = {"vocab_size": tokenizer.vocab_size, "context_length": 12}
        shape = {"width": 64, "depth": 2, "activation": "quick_gelu"}
        config = CLIPConfig(
            image=ViTConfig(**image | shape, heads=2),
            text=TextTransformerConfig(**text | shape, heads=4),
            embed_dim=24,
            **changes,
        )
        model = config.build()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    return build
