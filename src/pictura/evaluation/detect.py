"""A detector asked for names: the texts that they are, and what it finds, in pixels of the pictures as they came."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pictura.data.batches import Batch, ordered, prefetch
from pictura.data.source import Source
from pictura.evaluation.embed import Embedder, evaluating
from pictura.evaluation.zeroshot import classifier
from pictura.models.vild import By, Detections


def check_detects(model: object) -> None:
    """ValueError for a model that finds nothing."""
    if not hasattr(model, "detect"):
        kind = getattr(getattr(model, "config", None), "kind", type(model).__name__)
        raise ValueError(f"this model ({kind}) finds no things in pictures; train a vild")


def vocabulary(embedder: Embedder, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """k names -> their vectors [k e], and which of them had boxes in training, [k]. ValueError for no names, a name
    twice, and for one that a detector without texts does not know."""
    model, own = embedder.model, list(embedder.model.config.class_names)
    if not names or len(set(names)) != len(names):
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        raise ValueError("names: none given" if twice is None else f"names: {twice!r} is there twice")
    trained = torch.tensor([name in own for name in names])
    if model.text is not None:
        return classifier(embedder, names, model.config.templates).T, trained
    if not trained.all():
        strange = names[int(trained.int().argmin())]
        raise ValueError(f"names: this detector reads no texts, and was not trained on {strange!r}; it finds {own}")
    vectors: Tensor = model.classes.detach().float().cpu()[[own.index(name) for name in names]]
    return vectors, trained


def detected(
    embedder: Embedder, source: Source, names: Sequence[str], by: By | None = None
) -> Iterator[tuple[Detections, Batch, int]]:
    """What is found in each picture of `source`, on the CPU, with its batch and its row there, in order. Bad pictures
    are left out and counted in `embedder.bad`."""
    check_detects(embedder.model)
    classes, trained = vocabulary(embedder, names)
    done = 0
    view, size = embedder.view, embedder.batch_size
    batches = ordered(source, view, None, size, embedder.workers, bad=embedder.bad, placed=True)
    for batch in prefetch(batches, embedder.device):
        whole = [placement.whole for placement in batch["placement"]]
        with evaluating(embedder.model), torch.inference_mode():
            found = embedder.model.detect(batch["image"], classes, trained, by, whole)
        for row, one in enumerate(found):
            yield {key: value.cpu() for key, value in one.items()}, batch, row
        done += len(found)
        embedder.tell("pictures", done, len(source))
