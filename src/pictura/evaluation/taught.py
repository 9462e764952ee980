"""Features and labels of whole sources, for evaluators that learn from some pictures and are asked about others."""

import torch
from torch import Tensor

from pictura.data.source import Source
from pictura.evaluation.embed import Embedder
from pictura.evaluation.labelled import placed, words
from pictura.evaluation.reading import What


def read_of(layer: int | None) -> What:
    """What a `layer` of a configuration asks for; None is what the model itself ends with."""
    return "features" if layer is None else layer


def labelled(embedder: Embedder, source: Source, layer: int | None, title: str) -> tuple[Tensor, Tensor]:
    """source -> unit vectors [n d] and labels [n] of its usable pictures, in order. ValueError where there are none."""
    features, labels = [], []
    for rows, batch in embedder.walk(source, read_of(layer)):
        features.append(rows)
        labels.append(batch["label"])
    if not features:
        raise ValueError(f"{title}: the data has no usable picture")
    return torch.cat(features), torch.cat(labels)


def taught(
    embedder: Embedder, train: Source, test: Source, layer: int | None, title: str
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """As `labelled` of `train`, and the classes' names, or their numbers where neither source has names."""
    x, label = labelled(embedder, train, layer, f"{title}: train")
    names = train.class_names or test.class_names
    names = words(names, len(names) or int(label.max()) + 1)
    return x, placed(label, None, len(names), f"{title}: train"), names


def solving_device(embedder: Embedder) -> torch.device:
    """Where float64 is."""
    return embedder.device if embedder.device.type == "cuda" else torch.device("cpu")
