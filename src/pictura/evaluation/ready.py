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
from pictura.weights.folder import load_folder


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


def load(path: str | Path, device: str | torch.device | None = None) -> Pictura:
    """Open a model folder. `device` None takes the GPU where there is one, and bf16 there."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model, tokenizer = load_folder(path, device=device, dtype=torch.bfloat16 if device.type == "cuda" else None)
    return Pictura(model, tokenizer, device)
