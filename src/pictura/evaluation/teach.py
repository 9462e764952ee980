"""The teacher's side of ViLD (Gu et al. 2022, section 3.2): a detector's proposals, cut out and embedded by a CLIP,
once for all who learn from them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pictura.data.decode import decode
from pictura.data.region_store import RegionStore
from pictura.data.source import BadSample, Source
from pictura.data.views import as_tensor
from pictura.evaluation.crops import TIMES, embedded
from pictura.evaluation.detect import check_detects
from pictura.evaluation.embed import Embedder, evaluating
from pictura.evaluation.reading import check_reads_pictures

TOGETHER = 64  # pictures that are looked at, and then written down, at a time


def fingerprint(model: nn.Module) -> str:
    """Of its weights, to the precision of bf16: another model, or one that was trained further, has another, and the
    same one in float32 has not."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        value = value.bfloat16() if value.is_floating_point() else value
        found.update(f"{name} {list(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:32]


def teach(teacher: Embedder, proposer: Embedder, source: Source, folder: Path, *, regions: int = 64) -> RegionStore:
    """The best `regions` proposals of each picture with the teacher's vectors, in a store in `folder`; one that was not
    written to its end is now. A picture that cannot be read has none, and is counted in `proposer.bad`.

    ValueError for models that cannot do it, or a folder that other models, or another number of regions, have written.
    """
    check_reads_pictures(teacher.model)
    check_detects(proposer.model)
    if regions < 1:
        raise ValueError(f"regions: {regions} is below 1; try 64")
    about = {"teacher": fingerprint(teacher.model), "proposer": fingerprint(proposer.model), "crops": list(TIMES)}
    width = teacher.model.config.embed_dim
    store = RegionStore.create(folder, about, examples=len(source), regions=regions, width=width)
    missing, done = store.missing.tolist(), len(source) - len(store.missing)
    for begin in range(0, len(missing), TOGETHER):
        members = missing[begin : begin + TOGETHER]
        pictures, keys = looked_at(proposer, source, members)
        boxes = proposed(proposer, [pictures[index] for index in pictures])
        boxes = [own[:regions] for own in boxes]
        whole = ((as_tensor(pictures[index]), own) for index, own in zip(pictures, boxes, strict=True))
        for index, own, vectors in zip(pictures, boxes, embedded(teacher, whole), strict=True):
            store.write(index, keys[index], own.numpy(), vectors.numpy())
        for index in set(members) - set(pictures):
            store.write(index, keys[index], np.zeros((0, 4)), np.zeros((0, width)))
        store.flush()
        done += len(members)
        teacher.tell("pictures", done, len(source))
    return store


def looked_at(
    proposer: Embedder, source: Source, indices: Sequence[int]
) -> tuple[dict[int, Image.Image], dict[int, str]]:
    """The pictures, whole, by their index, without bad ones; and the keys of all."""
    found, keys = dict[int, Image.Image](), dict[int, str]()
    for index in indices:
        try:
            example = source[index]
            keys[index] = example["key"]
            found[index] = decode(example["image"], key=example["key"])
        except BadSample as bad:
            keys.setdefault(index, bad.key)
            proposer.bad.add(bad.key, bad.reason)
    return found, keys


def proposed(proposer: Embedder, pictures: Sequence[Image.Image]) -> list[Tensor]:
    """Pictures -> of each [n 4], where there may be a thing, in its own pixels, the likeliest first."""
    view, nothing = proposer.view, np.random.default_rng(0)
    seen, whole = [view(picture, nothing) for picture in pictures], [(one.height, one.width) for one in pictures]
    with evaluating(proposer.model), torch.inference_mode():
        return [one["boxes"].cpu() for one in proposer.model.propose(seen, whole)]
