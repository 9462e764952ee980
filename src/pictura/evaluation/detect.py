"""A detector asked for names: the texts that they are, and what it finds, in pixels of the pictures as they came."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pictura.data.batches import Batch, ordered, prefetch
from pictura.data.source import Source
from pictura.evaluation.crops import embedded
from pictura.evaluation.embed import Embedder, evaluating
from pictura.evaluation.prompts import spoken, templates_of
from pictura.evaluation.zeroshot import classifier
from pictura.models.vild_finding import Detections, Query, Teacher

ATTRIBUTE = ("something {}", "{article} {} thing", "{article} {} object")  # what the texts of an attribute are


def check_detects(model: object) -> None:
    """ValueError for a model that finds nothing."""
    if not hasattr(model, "detect"):
        kind = getattr(getattr(model, "config", None), "kind", type(model).__name__)
        raise ValueError(f"this model ({kind}) finds no things in pictures; train a vild")


def vocabulary(embedder: Embedder, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """k names -> their vectors [k e], and which of them had boxes in training, [k]. ValueError for no names, a name
    twice, and for one that a detector without texts does not know."""
    model, own = embedder.model, {_plain(name): row for row, name in enumerate(embedder.model.config.class_names)}
    check_words("names", names)
    rows = [own.get(_plain(name)) for name in names]
    new = [name for name, row in zip(names, rows, strict=True) if row is None]
    if new and model.text is None:
        raise ValueError(
            f"names: this detector reads no texts, and was not trained on {new[0]!r}; it finds "
            f"{', '.join(model.config.class_names)}"
        )
    known = model.classes.detach().float().cpu()
    templates = templates_of(model.config.templates)
    texts = iter(classifier(embedder, [spoken(name) for name in new], templates).T if new else known[:0])
    vectors = torch.stack([next(texts) if row is None else known[row] for row in rows])
    return vectors, torch.tensor([row is not None for row in rows])


def _plain(name: str) -> str:
    """As a person says it, whoever wrote it: aerosol_can, Aerosol can."""
    return spoken(name).lower()


def beside(embedder: Embedder, names: Sequence[str]) -> Tensor:
    """The classes that a detector was trained on and that are none of `names`, [j e]: what is one of those is none of
    these."""
    asked, own = {_plain(name) for name in names}, embedder.model.config.class_names
    rows = [row for row, name in enumerate(own) if _plain(name) not in asked]
    classes: Tensor = embedder.model.classes.detach().float().cpu()
    return classes[rows]


def qualities(embedder: Embedder, attributes: Sequence[str]) -> Tensor:
    """q attributes, such as "red" -> their vectors [q e]. ValueError for less than two, one twice, and a detector
    without texts."""
    check_words("attributes", attributes)
    if len(attributes) < 2:
        raise ValueError(
            f"attributes: {attributes[0]!r} alone is told from nothing; give others that things may have, or write it "
            "into the names"
        )
    if embedder.model.text is None:
        raise ValueError("attributes: this detector reads no texts; leave them out")
    return classifier(embedder, [spoken(one) for one in attributes], ATTRIBUTE).T


def expanded(names: Sequence[str], attributes: Sequence[str] | None) -> tuple[str, ...]:
    """What the labels of `ViLD.detect` say: the names, each with every attribute where there are any."""
    return tuple(names if attributes is None else (f"{one} {name}" for name in names for one in attributes))


def query_for(embedder: Embedder, names: Sequence[str], attributes: Sequence[str] | None = None, **how: Any) -> Query:
    """What people ask: for these names, each with every attribute, among all that the detector was trained on; `how`:
    other fields of `Query`. Labels are places in `expanded(names, attributes)`."""
    classes, trained = vocabulary(embedder, names)
    vectors = None if attributes is None else qualities(embedder, attributes)
    return Query(classes, trained, beside(embedder, names), vectors, **how)


def check_words(what: str, words: Sequence[str]) -> None:
    """ValueError for none of `what`, and for one twice."""
    if not words:
        raise ValueError(f"{what}: none given")
    if twice := [word for word, count in Counter(words).items() if count > 1]:
        raise ValueError(f"{what}: {twice[0]!r} is there twice")


def looking(embedder: Embedder, teacher: Embedder) -> Teacher:
    """A CLIP as a detector asks it: every region is cut out and embedded. ValueError for one that is not the CLIP whose
    texts the detector's classes are."""
    own, other = (one.texts(["a thing"]) for one in (embedder, teacher))
    if own.shape != other.shape or (own - other).abs().max() > 0.02:  # apart by the rounding of bf16, or not at all
        raise ValueError("teacher: is not the CLIP whose texts this detector reads")
    return lambda image, regions: torch.cat([*embedded(teacher, zip(image, regions, strict=True))])


def detected(embedder: Embedder, source: Source, query: Query) -> Iterator[tuple[Detections, Batch, int]]:
    """What is found in each picture of `source`, on the CPU, with its batch and its row there, in order. Bad pictures
    are left out and counted in `embedder.bad`."""
    check_detects(embedder.model)
    yield from _walk(embedder, source, lambda batch, whole: embedder.model.detections(batch["image"], query, whole))


def proposed(embedder: Embedder, source: Source) -> Iterator[tuple[Detections, Batch, int]]:
    """As `detected`: where there may be a thing, of any class."""
    check_detects(embedder.model)
    yield from _walk(embedder, source, lambda batch, whole: embedder.model.propose(batch["image"], whole))


def _walk(
    embedder: Embedder, source: Source, find: Callable[[Batch, list[tuple[int, int]]], Iterable[Detections]]
) -> Iterator[tuple[Detections, Batch, int]]:
    """What `find` makes of each batch and the sizes of its pictures, (y, x), before they were resized; it looks at all
    of a batch when it is called."""
    done, view, size = 0, embedder.view, embedder.batch_size
    batches = ordered(source, view, None, size, embedder.workers, bad=embedder.bad, placed=True)
    for batch in prefetch(batches, embedder.device):
        with evaluating(embedder.model), torch.inference_mode():
            found = find(batch, [placement.whole for placement in batch["placement"]])
        for row, one in enumerate(found):
            yield {key: value.cpu() for key, value in one.items()}, batch, row
        done += len(batch["image"])
        embedder.tell("pictures", done, len(source))
