"""A model ready to use: what `pictura.load` gives."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from pictura.data.decode import decode
from pictura.data.source import BadSample
from pictura.data.text import Tokenizer
from pictura.evaluation.captions import check_tells, told
from pictura.evaluation.detect import check_detects, detected, expanded, query_for
from pictura.evaluation.embed import Asked, Embedder, Picture, Pictures
from pictura.evaluation.labelled import words
from pictura.evaluation.phrases import ranked
from pictura.evaluation.pointing import drawn, word_maps
from pictura.evaluation.prompts import Prompts, prompts_of
from pictura.evaluation.questions import check_task
from pictura.evaluation.reading import check_head
from pictura.evaluation.rerank import check_matches, pair_scores
from pictura.evaluation.zeroshot import Classifier
from pictura.layers.linear import runs_here
from pictura.models.vild_finding import Query
from pictura.models.vilt import ViLT
from pictura.weights.foreign import load_model

NONE = "none of these"  # a label of what is of no class
AT_ONCE = 2**22  # probabilities that are sorted at once; bounds the memory that they take


class Pictura:
    """A model that answers: `pictura.load("runs/demo/model")`. `tokenizer` is None where it reads no texts."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer | None, device: torch.device) -> None:
        self.model, self.tokenizer = model.to(device).eval(), tokenizer
        self.embedder = Embedder(self.model, tokenizer, device=device)
        self._asked: tuple[object, object, Query] | None = None  # the latest words: a film is asked again and again

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
        templates: str | Path | tuple[str, ...] | Prompts = "plain",
        top: int | None = None,
    ) -> list[dict[str, float]]:
        """For each picture, the probability of each label, by zero-shot classification (Radford et al. 2021, 3.1).

        With `top`, of that many labels alone, the most probable first, and of equally probable ones the earlier: of
        thousands of pictures and labels, all of them are many gigabytes.

        `templates`: a set's name (plain, photo, simple, imagenet, …), sentences with {} where the label goes, or a
        .yaml file of prompts, such as `pictura prompts` writes. Where that says how `known` classes are told from
        others, the answer has "none of these", too. Without labels, a classifier's own head answers, with the names of
        its classes, or their numbers.
        """
        if top is not None and top < 1:
            raise ValueError(f"top: {top} tells nothing; give 1 or more")
        if labels is None:
            check_head(self.model)
            config = self.embedder.model.config
            scores = self.embedder.images(images, "scores")
            return answers(words(config.class_names, config.classes), scores, partial(torch.softmax, dim=1), top)
        if len(set(labels)) != len(labels) or len(labels) < 2:
            raise ValueError(f"labels: at least two different ones are needed, got {', '.join(labels) or 'none'}")
        if self.tokenizer is None:
            raise ValueError("labels: this model reads no texts; leave them out, and its own head answers")
        prompts = prompts_of(templates)
        asked, features = Classifier.of(self.embedder, labels, prompts), self.embedder.images(images)
        names = labels if prompts.known is None else [*labels, NONE]
        return answers(names, features, partial(chances, asked, prompts.known), top)

    def describe(
        self, images: Sequence[Picture], phrases: Sequence[str] | None = None, *, most: int = 3, beams: int = 5
    ) -> list[list[tuple[str, float]]]:
        """n pictures -> of each (text, score), the best first: the one caption that a captioner writes, with the mean
        log-probability of its tokens; or, with `phrases`, the `most` of them that lie nearest, with their cosines.

        ValueError for a bad picture, or a model that writes nothing and is given no phrases.
        """
        if phrases is not None:
            return ranked(self.embedder, images, phrases, most)
        check_tells(self.model)
        with self.embedder.strict():
            return [[one] for some, _ in told(self.embedder, Pictures(images), beams) for one in some]

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
        with self.embedder.strict():
            scores = pair_scores(self.embedder, Pictures(images), places, texts, every)
        matrix: npt.NDArray[np.float32] = torch.stack(scores).numpy()
        return matrix

    def detect(
        self,
        images: Sequence[Picture],
        names: Sequence[str] = (),
        threshold: float = 0.1,
        most: int | None = None,
        attributes: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """n pictures -> of each the things that go by these names, by default those that the detector was trained on:
        `boxes` [m 4], x0 y0 x1 y1 in pixels of the picture, `scores` [m], at least `threshold`, the best first,
        `labels` [m], places in `names`, `text_labels`, m of them, and `masks` [m y x] bool where the model has them.
        `most` of a picture, by default, and at most, as many as the model tells.

        What it was trained on is in question, too, whether or not its name is asked: a dog is no cat where nobody asks
        for dogs. With `attributes`, such as "red" and "wooden", every name is looked for with each, and `text_labels`
        say which, "red cup". ValueError for a model that finds nothing, a bad picture, names or attributes that are
        none or the same twice, and for words that the model does not read.
        """
        return [*self.detections(images, names, threshold, most, attributes)]

    def detections(
        self,
        images: Sequence[Picture],
        names: Sequence[str] = (),
        threshold: float = 0.1,
        most: int | None = None,
        attributes: Sequence[str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """As `detect`, one picture after the other: the masks of many fit in no memory."""
        check_detects(self.model)
        for what, given in (("images", images), ("names", names), ("attributes", attributes)):
            if isinstance(given, str | bytes | Path | Image.Image):
                raise ValueError(f"{what}: {given!r} is one alone; give a list")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: {threshold} is no score, from 0 to 1")
        if most is not None and most < 1:
            raise ValueError(f"most: {most} tells nothing; give 1 or more")
        names = tuple(names or self.embedder.model.config.class_names)
        attributes = None if attributes is None else tuple(attributes)
        if self._asked is None or self._asked[:2] != (names, attributes):
            self._asked = (names, attributes, query_for(self.embedder, names, attributes))
        query = replace(self._asked[2], threshold=threshold, most=most)
        texts, each = expanded(names, attributes), 1 if attributes is None else len(attributes)
        with self.embedder.strict():
            for found, _, _ in detected(self.embedder, Pictures(images), query):
                said = [texts[label] for label in found["labels"].tolist()]
                yield found | {"labels": found["labels"] // each, "text_labels": said}

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


def chances(asked: Classifier, known: tuple[float, float] | None, features: Tensor) -> Tensor:
    """features: [b e] of unit length -> [b k], the probability of each class, and with `known` of none of them, too."""
    shares = (asked.scale * asked.scores(features)).softmax(1)
    if known is None:
        return shares
    slope, offset = known
    some = (slope * asked.highest(features) + offset).sigmoid()[:, None]
    return torch.cat([some * shares, 1 - some], 1)


def answers(
    names: Sequence[str], rows: Tensor, probable: Callable[[Tensor], Tensor], top: int | None
) -> list[dict[str, float]]:
    """rows: [n e], of which `probable` makes probabilities of k names, [b k] -> of each {name: probability}, of all or
    of the `top` ones, some rows at a time."""
    found: list[dict[str, float]] = []
    for some in rows.split(max(1, AT_ONCE // len(names))):
        shares = probable(some)
        if top is None:
            found += [dict(zip(names, row, strict=True)) for row in shares.tolist()]
            continue
        best, places = shares.sort(dim=1, descending=True, stable=True)
        each = zip(places[:, :top].tolist(), best[:, :top].tolist(), strict=True)
        found += [{names[k]: share for k, share in zip(*row, strict=True)} for row in each]
    return found


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
