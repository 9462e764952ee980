"""Classifiers learnt from a few pictures of each class, as files: the best that `few_shot` finds, put to use.

A .safetensors file holds `weight` [k e] and `bias` [k], which take a picture's unit vector to scores, `scale`, by which
they are multiplied before a softmax, and `probe` [e], what the model says of one fixed picture, so that no other model
is asked. Its metadata say `format` and, as JSON, `names`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pictura.data.randomness import random_generator
from pictura.data.source import Source, existing
from pictura.evaluation.adapters import learnt, worded
from pictura.evaluation.base import check_reads_texts, exact_products, outranked
from pictura.evaluation.embed import Embedder
from pictura.evaluation.few_shot import draw
from pictura.evaluation.labelled import placed
from pictura.evaluation.linear_fit import Linear
from pictura.evaluation.prompts import Prompts
from pictura.evaluation.taught import labelled, solving_device
from pictura.evaluation.zeroshot import Classifier, distinct
from pictura.output.files import aside

FitMethod = Literal["prompt_logistic", "prompt_ridge", "logistic", "ridge"]
METHODS: tuple[FitMethod, ...] = get_args(FitMethod)
FORMAT = "pictura classifier 1"
FOLDS = 5  # of cross-validation, where each class has as many pictures
SAME = 0.99  # cosine of two looks of one model at the probe: bf16 and float32 differ by less than 0.01
STEPS, LEAST, MOST = 60, 1e-4, 1e6  # of the search for `scale`, and its bounds


@dataclass(frozen=True)
class Fitted:
    """k names; weight: [e k], bias: [k], scale, probe: [e]; float32."""

    names: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    scale: float
    probe: Tensor

    def probabilities(self, features: Tensor) -> Tensor:
        """features: [b e] of unit length -> [b k]."""
        with exact_products():
            return (self.scale * (features @ self.weight + self.bias)).softmax(1)

    def check(self, embedder: Embedder) -> None:
        """ValueError for another model than the one that it was fitted on."""
        seen = look(embedder)
        if len(seen) != len(self.probe):
            raise ValueError(
                f"classifier: takes vectors of {len(self.probe)} numbers, and this model's are {len(seen)}"
            )
        if not (cosine := float(seen @ self.probe)) >= SAME:
            raise ValueError(
                f"classifier: was fitted on another model, which sees one picture otherwise (cosine {cosine:.2f}); "
                "fit it anew by `pictura fit`"
            )

    def save(self, path: Path) -> None:
        """Write it whole: aside first, then renamed."""
        tensors = {"weight": self.weight.T.contiguous(), "bias": self.bias, "probe": self.probe}
        tensors["scale"] = torch.tensor(self.scale)
        with aside(path) as beside:
            beside.touch()
            mode = beside.stat().st_mode
            try:
                save_file(tensors, beside, metadata={"format": FORMAT, "names": json.dumps(self.names)})
            except SafetensorError as error:  # a full disk, for one
                raise OSError(f"{path}: cannot be written: {error}") from error
            beside.chmod(mode)  # safetensors lets only the owner read


def read_fitted(path: Path | str) -> Fitted:
    """What `Fitted.save` wrote. ValueError for any other file, or a damaged one."""
    path = existing(path, "file")
    try:
        with safe_open(path, "pt") as stored:
            about = stored.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            names = json.loads(about["names"])
            weight, bias, scale, probe = (
                stored.get_tensor(key).float() for key in ("weight", "bias", "scale", "probe")
            )
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:  # also of json, and of absurd numbers
        raise ValueError(f"{path}: no classifier, or a damaged one ({error}); fit it anew by `pictura fit`") from None
    tensors = (weight, bias, scale, probe)
    fits = weight.shape == (len(bias), len(probe)) if (bias.dim(), scale.dim(), probe.dim()) == (1, 0, 1) else False
    if not (fits and all(tensor.isfinite().all() for tensor in tensors) and float(scale) > 0):
        raise ValueError(f"{path}: a damaged classifier: its tensors do not fit together; fit it anew by `pictura fit`")
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names) and len(names) == len(bias)):
        raise ValueError(f"{path}: a damaged classifier: there are not {len(bias)} names; fit it anew by `pictura fit`")
    return Fitted(distinct(names, str(path)), weight.T.contiguous(), bias, float(scale), probe)


@dataclass(frozen=True)
class Fit:
    """A classifier; right: [n] bool, of each picture when it was not learnt from; zeroshot: [n] the same of the names
    alone, None without words."""

    fitted: Fitted
    right: Tensor
    zeroshot: Tensor | None


def fit_classifier(
    embedder: Embedder,
    source: Source,
    names: Sequence[str],
    method: FitMethod = "prompt_logistic",
    *,
    shots: int | None = None,
    l2: float = 1.0,
    prompts: Prompts | None = None,
    seed: int = 0,
) -> Fit:
    """Learn to tell k `names`, in the order of the labels, from at most `shots` pictures of each, None for all.

    `method` and `l2` are those of `few_shot`, and the pictures those of its first draw. Each of them is in one of up to
    five parts, and is asked about when only the others were learnt from. `scale` makes the answers as sure, on average,
    as they are right then (Clarté et al. 2023), by (right + 1) / (n + 2): a few pictures, all right, are no certainty.
    ValueError for a class with fewer than two pictures, for a model that does not read the words that a method needs,
    and for features that are not finite.
    """
    k, begins_at_words = len(names), worded([method])
    if shots is not None and shots < 2:
        raise ValueError(f"shots: {shots} of each class are too few; with 2, each can be asked about after the other")
    if begins_at_words:
        check_reads_texts(embedder.model)
    prompts = prompts or Prompts()
    if begins_at_words and prompts.average != "vectors":
        raise ValueError("templates: this begins at one vector of each class; take a set that averages vectors")
    x, label = labelled(embedder, source, None, "fit")
    label = placed(label, None, k, "fit")
    some = draw(label, shots or len(label), seed, 0)
    x, label = x[some], label[some]
    counts = label.bincount(minlength=k)
    if (fewest := int(counts.min())) < 2:
        raise ValueError(f"fit: {names[int(counts.argmin())]!r} has {fewest} usable pictures; each class needs two")
    own = Classifier.of(embedder, names, prompts) if begins_at_words else None
    if not x.isfinite().all() or (own is not None and not own.vectors.isfinite().all()):
        raise ValueError("fit: the model gives numbers that are not finite; its weights are broken")
    words = None if own is None else (own.vectors[0], own.scale)
    device = solving_device(embedder)
    on, of, words_on = x.to(device), label.to(device), None if words is None else (words[0].to(device), words[1])
    held, part = x.new_empty(len(x), k), parts(label, min(FOLDS, fewest))
    for fold in part.unique().tolist():
        asked = part == fold
        rest = (~asked).to(device)
        held[asked] = learnt(method, on[rest], of[rest], k, l2, words_on)(on[asked.to(device)]).cpu()
    right = ~outranked(held, label).any(1)
    linear = learnt(method, on, of, k, l2, words_on)
    assert isinstance(linear, Linear)
    scale = as_sure(held, (int(right.sum()) + 1) / (len(right) + 2))
    fitted = Fitted(tuple(names), linear.weight.float().cpu(), linear.bias.float().cpu(), scale, look(embedder))
    return Fit(fitted, right, None if own is None else ~outranked(own.scores(x), label).any(1))


def parts(label: Tensor, n: int) -> Tensor:
    """label: [m] -> [m], 0 to n - 1; of each class the same number in each part, or one less."""
    part = torch.empty_like(label)
    for c in label.unique().tolist():
        places = (label == c).nonzero()[:, 0]
        part[places] = torch.arange(len(places)) % n
    return part


def as_sure(scores: Tensor, share: float) -> float:
    """scores: [n k] -> the scale for which the highest probabilities of softmax(scale x scores) average to `share`, by
    halving: the mean rises with it."""
    wide, low, high = scores.double(), math.log(LEAST), math.log(MOST)
    for _ in range(STEPS):
        middle = (low + high) / 2
        sure = float((math.exp(middle) * wide).softmax(1).amax(1).mean())
        low, high = (middle, high) if sure < share else (low, middle)
    return math.exp((low + high) / 2)


def look(embedder: Embedder) -> Tensor:
    """[e], the unit vector of a picture that is always the same."""
    blocks = random_generator(0, 0, 0, "probe").integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return embedder.images([blocks.repeat(32, 0).repeat(32, 1)])[0]
