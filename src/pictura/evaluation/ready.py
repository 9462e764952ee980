"""A model ready to use: what `pictura.load` gives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from pictura.data.decode import decode
from pictura.data.source import BadSample
from pictura.data.text import Tokenizer
from pictura.evaluation.detect import check_detects, detected, expanded
from pictura.evaluation.embed import Asked, Embedder, Picture, Pictures
from pictura.evaluation.labelled import words
from pictura.evaluation.pointing import drawn, word_maps
from pictura.evaluation.prompts import templates_of
from pictura.evaluation.questions import check_task
from pictura.evaluation.reading import check_head
from pictura.evaluation.rerank import check_matches, pair_scores
from pictura.evaluation.zeroshot import classifier
from pictura.layers.linear import runs_here
from pictura.models.vild import Detections
from pictura.models.vilt import ViLT
from pictura.weights.foreign import load_model


class Pictura:
    """A model that answers: `pictura.load("runs/demo/model")`. `tokenizer` is None where it reads no texts."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer | None, device: torch.device) -> None:
        self.model, self.tokenizer = model.to(device).eval(), tokenizer
        self.embedder = Embedder(self.model, tokenizer, device=device)

    @overload
    def embed_images(self, images: Sequence[Picture]) -> npt.NDArray[np.float32]: ...
    @overload
    def embed_images(self, images: Sequence[Picture], layers: Sequence[int]) -> dict[int, npt.NDArray[np.float32]]: ...
    def embed_images(
        self, images: Sequence[Picture], layers: Sequence[int] | None = None
    ) -> npt.NDArray[np.float32] | dict[int, npt.NDArray[np.float32]]:
        """n paths, bytes of files, PIL images, uint8 arrays [y x c] -> unit vectors [n e]; ValueError for a bad one.

        With `layers`, instead the outputs of those stages of the picture tower, {layer: [n f]}, -1 being the last: the
        class token where the tower reads one, else the mean over patches or pixels. One pass serves them all.
        """
        if layers is not None:
            found = self.embedder.layers(images, layers)
            return {layer: found[layer].numpy() for layer in layers}
        vectors: npt.NDArray[np.float32] = self.embedder.images(images).numpy()
        return vectors

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """n texts -> unit vectors [n e]."""
        vectors: npt.NDArray[np.float32] = self.embedder.texts(texts).numpy()
        return vectors

    def classify(
        self,
        images: Sequence[Picture],
        labels: Sequence[str] | None = None,
        templates: str | tuple[str, ...] = "plain",
    ) -> list[dict[str, float]]:
        """For each picture, the probability of each label, by zero-shot classification (Radford et al. 2021, 3.1).

        `templates`: a set's name (plain, photo, simple, imagenet, scene), or sentences with {} where the label goes.
        Without labels, a classifier's own head answers, with the names of its classes, or their numbers.
        """
        if labels is None:
            check_head(self.model)
            config = self.embedder.model.config
            labels = words(config.class_names, config.classes)
            scores = self.embedder.images(images, "scores")
        else:
            if len(set(labels)) != len(labels) or len(labels) < 2:
                raise ValueError(f"labels: at least two different ones are needed, got {', '.join(labels) or 'none'}")
            if self.tokenizer is None:
                raise ValueError("labels: this model reads no texts; leave them out, and its own head answers")
            classes = classifier(self.embedder, labels, templates_of(templates))
            scores = self.embedder.scale * self.embedder.images(images) @ classes
        return [dict(zip(labels, row, strict=True)) for row in scores.softmax(1).tolist()]

    def ask(self, images: Sequence[Picture], questions: Sequence[str]) -> list[dict[str, float]]:
        """n pictures and n questions -> for each, every answer that the model knows with how sure it is of it, each by
        itself, from 0 to 1. ValueError for a model without answers, an empty question or one that is too long.
        """
        check_task(self.model, "answers")
        assert self.tokenizer is not None
        for question in questions:
            check_readable(question, self.tokenizer, "question")
        scores = self.embedder.answers(Asked(images, questions))
        return [dict(zip(self.embedder.model.config.answers, row, strict=True)) for row in scores.sigmoid().tolist()]

    def match(self, images: Sequence[Picture], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """n pictures, u texts -> [n u], how well each picture and each text match, for models that read both together:
        higher is better, and comparable along a row and along a column.

        It puts what a faster model has found in an order of its own: the best twenty pictures for one text are
        `np.argsort(-model.match(found, [text])[:, 0])`. ValueError for a bad picture, or a model that cannot.
        """
        check_matches(self.model)
        assert self.tokenizer is not None
        texts = [texts] if isinstance(texts, str) else texts
        for text in texts:
            check_readable(text, self.tokenizer, "text")
        if not len(images) or not len(texts):
            return np.zeros((len(images), len(texts)), np.float32)
        places, every = {i: i for i in range(len(images))}, [torch.arange(len(texts))] * len(images)
        scores = self.embedder.strictly(lambda: pair_scores(self.embedder, Pictures(images), places, texts, every))
        matrix: npt.NDArray[np.float32] = torch.stack(scores).numpy()
        return matrix

    def detect(
        self,
        images: Sequence[Picture],
        names: Sequence[str] = (),
        threshold: float = 0.1,
        most: int = 100,
        attributes: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """n pictures -> of each the things that go by these names, by default those that the detector was trained on:
        `boxes` [m 4], x0 y0 x1 y1 in pixels of the picture, `scores` [m], at least `threshold`, the best first,
        `labels` [m], places in `names`, `text_labels`, m of them, and `masks` [m y x] bool where the model has them.

        With `attributes`, such as "red" and "wooden", every name is looked for with each, and `text_labels` say which,
        "red cup". ValueError for a model that finds nothing, a bad picture, no names or attributes, the same one twice,
        and for attributes where the model reads no texts.
        """
        check_detects(self.model)
        names = tuple(names or self.embedder.model.config.class_names)
        read = detected(self.embedder, Pictures(images), names, threshold=threshold, attributes=attributes)
        texts, each = expanded(names, attributes), 1 if attributes is None else len(attributes)

        def told(found: Detections) -> dict[str, Any]:
            best = {key: value[:most].clone() for key, value in found.items()}
            said = [texts[label] for label in best["labels"].tolist()]
            return best | {"labels": best["labels"] // each, "text_labels": said}

        return self.embedder.strictly(lambda: [told(found) for found, _, _ in read])

    def point(self, image: Picture, text: str) -> Image.Image:
        """The picture, once for each word of `text`, bright where a ViLT finds that word."""
        if not isinstance(self.model, ViLT) or self.tokenizer is None:
            raise ValueError(f"this model ({self.embedder.model.config.kind}) does not read words beside patches")
        check_readable(text, self.tokenizer, "text")
        try:
            example = Pictures([image])[0]
            decoded = decode(example["image"], key=example["key"])
        except BadSample as bad:
            raise ValueError(str(bad)) from bad
        seen = self.embedder.view(decoded, np.random.default_rng(0))
        return drawn(decoded, word_maps(self.model, self.tokenizer, seen, text))


def check_readable(text: str, tokenizer: Tokenizer, what: str) -> None:
    """ValueError for words that a model cannot read whole; `what` they are."""
    tokens = tokenizer([text], context_length=64 * tokenizer.context_length).shape[1]
    if tokens <= 2:
        raise ValueError(f"{what}: it is empty")
    if tokens > tokenizer.context_length:
        raise ValueError(f"{what}: {tokens} tokens, and this model reads {tokenizer.context_length}; use fewer words")


def load(path: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Pictura:
    """Open a model by its path, a folder or a file of weights, ours or another project's, or by its name on the hub.

    `device` None takes the GPU where there is one. `dtype` None takes bf16 on a GPU, and on a CPU whose oneDNN
    multiplies it; else float32. Between the two, numbers of a unit vector and cosines differ by less than 1e-2.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype is None:
        dtype = torch.bfloat16 if device.type == "cuda" or (device.type == "cpu" and runs_here()) else torch.float32
    model, tokenizer = load_model(path, device=device, dtype=dtype)
    return Pictura(model, tokenizer, device)
