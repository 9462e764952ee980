"""A detector asked for names: the texts that they are, and what it finds, in pixels of the pictures as they came."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pictura.data.batches import Batch, ordered, prefetch
from pictura.data.source import Source
from pictura.evaluation.crops import embedded
from pictura.evaluation.embed import Embedder, evaluating
from pictura.evaluation.prompts import spoken, templates_of
from pictura.evaluation.zeroshot import classifier
from pictura.models.vild import By, Detections, Teacher

ATTRIBUTE = ("something {}", "{article} {} thing", "{article} {} object")  # what the texts of an attribute are


def check_detects(model: object) -> None:
    """ValueError for a model that finds nothing."""
    if not hasattr(model, "detect"):
        kind = getattr(getattr(model, "config", None), "kind", type(model).__name__)
        raise ValueError(f"this model ({kind}) finds no things in pictures; train a vild")


def vocabulary(embedder: Embedder, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """k names -> their vectors [k e], and which of them had boxes in training, [k]. ValueError for no names, a name
    twice, and for one that a detector without texts does not know."""
    model, own = embedder.model, {name: row for row, name in enumerate(embedder.model.config.class_names)}
    check_words("names", names)
    trained = torch.tensor([name in own for name in names])
    new = [name for name in names if name not in own]
    if new and model.text is None:
        raise ValueError(
            f"names: this detector reads no texts, and was not trained on {new[0]!r}; it finds {', '.join(own)}"
        )
    known = model.classes.detach().float().cpu()
    templates = templates_of(model.config.templates)
    texts = classifier(embedder, [spoken(name) for name in new], templates).T if new else known[:0]
    rows = iter(texts)
    return torch.stack([known[own[name]] if name in own else next(rows) for name in names]), trained


def qualities(embedder: Embedder, attributes: Sequence[str]) -> Tensor:
    """q attributes, such as "red" -> their vectors [q e]. ValueError for none, one twice, and a detector without
    texts."""
    check_words("attributes", attributes)
    if embedder.model.text is None:
        raise ValueError("attributes: this detector reads no texts; leave them out")
    return classifier(embedder, [spoken(one) for one in attributes], ATTRIBUTE).T


def expanded(names: Sequence[str], attributes: Sequence[str] | None) -> tuple[str, ...]:
    """What the labels of `ViLD.detect` say: the names, each with every attribute where there are any."""
    return tuple(names if attributes is None else (f"{one} {name}" for name in names for one in attributes))


def check_words(what: str, words: Sequence[str]) -> None:
    """ValueError for none of `what`, and for one twice."""
    if not words:
        raise ValueError(f"{what}: none given")
    if (twice := next((word for i, word in enumerate(words) if word in words[:i]), None)) is not None:
        raise ValueError(f"{what}: {twice!r} is there twice")


def looking(teacher: Embedder | None) -> Teacher | None:
    """A CLIP as `ViLD.detect` asks it: every region is cut out and embedded."""
    if teacher is None:
        return None
    return lambda image, regions: torch.cat([*embedded(teacher, zip(image, regions, strict=True))])


def detected(
    embedder: Embedder,
    source: Source,
    names: Sequence[str],
    by: By | None = None,
    threshold: float = 0.0,
    teacher: Embedder | None = None,
    objectness: bool = False,
    attributes: Sequence[str] | None = None,
) -> Iterator[tuple[Detections, Batch, int]]:
    """What is found in each picture of `source`, on the CPU, with its batch and its row there, in order. Bad pictures
    are left out and counted in `embedder.bad`. Labels are places in `expanded(names, attributes)`."""
    check_detects(embedder.model)
    classes, trained = vocabulary(embedder, names)
    vectors = None if attributes is None else qualities(embedder, attributes)

    def find(batch: Batch, whole: list[tuple[int, int]]) -> list[Detections]:
        found: list[Detections] = embedder.model.detect(
            batch["image"], classes, trained, by, whole, threshold, looking(teacher), objectness, vectors
        )
        return found

    yield from _walk(embedder, source, find)


def proposed(embedder: Embedder, source: Source) -> Iterator[tuple[Detections, Batch, int]]:
    """As `detected`: where there may be a thing, of any class."""
    check_detects(embedder.model)
    yield from _walk(embedder, source, lambda batch, whole: embedder.model.propose(batch["image"], whole))


def _walk(
    embedder: Embedder, source: Source, find: Callable[[Batch, list[tuple[int, int]]], list[Detections]]
) -> Iterator[tuple[Detections, Batch, int]]:
    """What `find` makes of each batch and the sizes of its pictures, (y, x), before they were resized."""
    done, view, size = 0, embedder.view, embedder.batch_size
    batches = ordered(source, view, None, size, embedder.workers, bad=embedder.bad, placed=True)
    for batch in prefetch(batches, embedder.device):
        with evaluating(embedder.model), torch.inference_mode():
            found = find(batch, [placement.whole for placement in batch["placement"]])
        for row, one in enumerate(found):
            yield {key: value.cpu() for key, value in one.items()}, batch, row
        done += len(found)
        embedder.tell("pictures", done, len(source))
