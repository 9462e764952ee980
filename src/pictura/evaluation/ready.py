"""A model ready to use: what `pictura.load` gives."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pictura.data.text import Tokenizer
from pictura.evaluation.embed import Embedder, Picture
from pictura.evaluation.prompts import templates_of
from pictura.evaluation.zeroshot import classifier
from pictura.layers.linear import runs_here
from pictura.weights.foreign import load_model


class Pictura:
    """A model that answers: `pictura.load("runs/demo/model")`."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, device: torch.device) -> None:
        self.model, self.tokenizer = model.to(device).eval(), tokenizer
        self.embedder = Embedder(self.model, tokenizer, device=device)

    def embed_images(self, images: Sequence[Picture]) -> npt.NDArray[np.float32]:
        """n paths, bytes of files, PIL images, uint8 arrays [y x c] -> unit vectors [n e]; ValueError for a bad one."""
        vectors: npt.NDArray[np.float32] = self.embedder.images(images).numpy()
        return vectors

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """n texts -> unit vectors [n e]."""
        vectors: npt.NDArray[np.float32] = self.embedder.texts(texts).numpy()
        return vectors

    def classify(
        self, images: Sequence[Picture], labels: Sequence[str], templates: str | tuple[str, ...] = "plain"
    ) -> list[dict[str, float]]:
        """For each picture, the probability of each label, by zero-shot classification (Radford et al. 2021, 3.1).

        `templates`: the name of a set (plain, photo, simple, imagenet), or sentences with {} where the label goes.
        """
        if len(set(labels)) != len(labels) or len(labels) < 2:
            raise ValueError(f"labels: at least two different ones are needed, got {', '.join(labels) or 'none'}")
        classes = classifier(self.embedder, labels, templates_of(templates))
        scores = self.embedder.scale * self.embedder.images(images) @ classes
        return [dict(zip(labels, row, strict=True)) for row in scores.softmax(1).tolist()]


def load(path: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Pictura:
    """Open a model folder: ours, open_clip's, or that of a Hugging Face CLIPModel.

    `device` None takes the GPU where there is one. `dtype` None takes bf16 on a GPU, and on a CPU whose oneDNN
    multiplies it; else float32. Between the two, numbers of a unit vector and cosines differ by less than 1e-2.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype is None:
        dtype = torch.bfloat16 if device.type == "cuda" or (device.type == "cpu" and runs_here()) else torch.float32
    model, tokenizer = load_model(path, device=device, dtype=dtype)
    return Pictura(model, tokenizer, device)
