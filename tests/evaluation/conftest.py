"""A CLIP small enough to test with, and pictures to show it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pictura.data.bpe import TrainTokenizerConfig
from pictura.data.source import BadSample, Example, Source
from pictura.data.text import Tokenizer
from pictura.evaluation.embed import Embedder
from pictura.models.clip import CLIP, CLIPConfig
from pictura.models.text import TextTransformerConfig
from pictura.models.vit import ViTConfig

WORDS = "a red green blue dog cat house tree runs sleeps stands near the old small photo of"


class Largest(TorchDispatchMode):
    """Inside, `numbers` is how many the largest tensor has had that anything gave."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(x.numel() for x in tree_leaves(out) if isinstance(x, Tensor))])
        return out


class Made(Source):
    """Flat coloured pictures, made on the spot; `bad` positions cannot be read."""

    def __init__(
        self,
        n: int,
        captions: Sequence[list[str]] | None = None,
        labels: Sequence[int] | None = None,
        names: Sequence[str] = (),
        broken: Sequence[int] = (),
    ) -> None:
        self.n, self.given, self.labels, self.broken = n, captions, labels, frozenset(broken)
        self.class_names = tuple(names)
        self.provides = frozenset(
            {"image"} | ({"captions"} if captions is not None else set()) | ({"label"} if labels is not None else set())
        )

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Example:
        if index in self.broken:
            raise BadSample(f"made/{index}", "made to be broken")
        random = np.random.default_rng(index)
        image = np.tile(random.integers(0, 256, (1, 1, 3), dtype=np.uint8), (40, 36, 1))
        image[: 4 + index % 30, :9] = random.integers(0, 256, 3)
        example = Example(key=f"made/{index}", image=image)
        if self.given is not None:
            example["captions"] = self.given[index]
        if self.labels is not None:
            example["label"] = self.labels[index]
        return example


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return TrainTokenizerConfig(vocab_size=600).build(lambda: [WORDS] * 3)


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> CLIP:
    torch.manual_seed(0)
    config = CLIPConfig(
        image=ViTConfig(image_size=32, patch_size=16, width=32, depth=2, heads=2, dropout=0.5),
        text=TextTransformerConfig(
            vocab_size=tokenizer.vocab_size, context_length=16, width=32, depth=2, heads=2, end_token=tokenizer.end
        ),
        embed_dim=24,
    )
    return config.build()


@pytest.fixture
def embedder(model: CLIP, tokenizer: Tokenizer) -> Embedder:
    return Embedder(model, tokenizer, batch_size=4)
