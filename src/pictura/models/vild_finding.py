"""What a ViLD finds, whatever it is asked for: pictures of any size in; boxes, scores, labels and masks out.

Pictures of one size are looked at together, a few at a time; nothing of the others has an influence.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from pictura.losses.regions import named

if TYPE_CHECKING:
    from pictura.models.vild import Seen, ViLD

PIXELS = 8 * 800 * 1333  # looked at at a time, where nothing is learnt
By = Literal["words", "picture", "ensemble"]
Detections = dict[str, Tensor]
Teacher = Callable[[Tensor, list[Tensor]], Tensor]  # pictures [b 3 y x] and regions in them, b of [n 4] -> [n e]
Pictures = Tensor | Sequence[Tensor]  # [3 y x] each


@dataclass(frozen=True)
class Query:
    """What a detector looks for. classes: [k e], by default those of its `class_names`; trained: [k], which of them had
    boxes in training; others: [j e], classes that nobody asks for, but that a thing may be as well.

    by: `words`, the `picture` head, or the `ensemble` of both, by default what there is. teacher: a CLIP that looks at
    every region, in place of the ensemble's second head, which takes long (section 3.2). objectness: scores are
    geometric means with how likely a region is to be a thing at all.

    attributes: [q e]; every class is looked for with each of them, and a label is class * q + attribute. Both are taken
    as independent: the class's probability times the attribute's, a softmax over the q of them (systematic expansion),
    as the words' head has it, or the picture head where that alone is query.

    threshold: the least score; most: how many of a picture at most; masks: False where nobody wants them.
    """

    classes: Tensor | None = None
    trained: Tensor | None = None
    others: Tensor | None = None
    attributes: Tensor | None = None
    by: By | None = None
    teacher: Teacher | None = None
    objectness: bool = False
    threshold: float = 0.0
    most: int | None = None
    masks: bool = True


def find(model: "ViLD", image: Pictures, query: Query) -> list[Detections]:
    """As `ViLD.detect`, in pixels of what was seen, masks [n 28 28] of each box."""
    by = query.by or ("words" if model.taught is None and query.teacher is None else "ensemble")
    if by != "words" and model.taught is None and query.teacher is None:
        raise ValueError(f"by: {by}: this detector has one head, not an ensemble; try words")
    return by_size(image, model.background.device, lambda pictures: _find(model, pictures, query, by))


def propose(model: "ViLD", image: Pictures) -> list[Detections]:
    """As `ViLD.propose`, in pixels of what was seen."""

    def proposed(pictures: Tensor) -> list[Detections]:
        return [{"boxes": boxes, "scores": scores} for boxes, scores in _proposals(model, pictures)[1]]

    return by_size(image, model.background.device, proposed)


def by_size(image: Pictures, device: torch.device, look: Callable[[Tensor], list[Detections]]) -> list[Detections]:
    """What `look` gives of pictures of one size, [b 3 y x] on the device, for pictures of any."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, one in enumerate(image):
        groups[tuple(one.shape[-2:])].append(i)
    out: list[Detections] = [{}] * len(image)
    for size, members in groups.items():
        some = max(1, PIXELS // (size[0] * size[1]))
        for begin in range(0, len(members), some):
            part = members[begin : begin + some]
            for i, one in zip(part, look(torch.stack([image[i] for i in part]).to(device)), strict=True):
                out[i] = one
    return out


def _proposals(model: "ViLD", image: Tensor) -> tuple["Seen", list[tuple[Tensor, Tensor]]]:
    """Pictures of one size -> what was seen of them, and of each its proposals and how likely these are."""
    seen = model.look(image)
    if not seen.found[0].isfinite().all():
        raise ValueError("this detector's answers are not finite; has its training diverged?")
    return seen, model.proposer.propose(seen.maps, seen.found, [(image.shape[2], image.shape[3])] * len(image))


def _find(model: "ViLD", image: Tensor, query: Query, by: By) -> list[Detections]:
    seen, proposals = _proposals(model, image)
    boxes = [own for own, _ in proposals]
    pooled = model.pool(seen, boxes)
    features, taught = model.regions(pooled), None
    if by != "words" and query.teacher is not None:
        taught = query.teacher(image, boxes).to(image.device)
    elif by != "words" and model.taught is not None:
        taught = model.taught.project(model.taught(pooled))
    vectors, moved, begin, found = model.regions.project(features), model.boxes(features).float(), 0, list[Detections]()
    for own, likely in proposals:  # one at a time: regions x classes x attributes are many
        rows = slice(begin, begin := begin + len(own))
        chance = _chances(model, vectors[rows], None if taught is None else taught[rows], query, by)
        if query.objectness:
            chance = (chance * likely[:, None]).sqrt()
        found.append(_best(model, model.coder.decode(moved[rows], [own]).view(-1, 4), chance, query, image.shape[2:]))
    if model.masks is not None and query.masks:
        drawn = model.masks(model.pool(seen, [one["boxes"] for one in found], 14)).float().sigmoid()
        for one, own in zip(found, drawn.split([len(one["boxes"]) for one in found]), strict=True):
            one["masks"] = own
    return found


def _chances(model: "ViLD", vectors: Tensor, taught: Tensor | None, query: Query, by: By) -> Tensor:
    """vectors, taught: [n e] of the two heads -> [n k], or [n k * q] with attributes."""
    device = vectors.device
    classes = (model.classes if query.classes is None else query.classes).to(device)
    k, trained = len(classes), torch.ones(len(classes), dtype=torch.bool) if query.trained is None else query.trained
    if query.others is not None:
        classes = torch.cat([classes, query.others.to(device)])
        trained = torch.cat([trained, torch.ones(len(query.others), dtype=torch.bool)])
    chance = model.name(vectors, classes, trained.to(device), by, taught)[:, :k]
    if query.attributes is None:
        return chance
    head = taught if taught is not None and by == "picture" else vectors
    said = named(head, query.attributes.to(device), model.background, model.logit_scale.exp())[:, 1:].softmax(1)
    return (chance[:, :, None] * said[:, None]).flatten(1)


def _best(model: "ViLD", boxes: Tensor, chance: Tensor, query: Query, size: Sequence[int]) -> Detections:
    """boxes: [n 4], chance: [n k] -> what is told of a picture, the best first: one of the boxes that overlap, for each
    class."""
    from torchvision.ops import batched_nms, clip_boxes_to_image

    boxes = clip_boxes_to_image(boxes, (size[0], size[1]))
    best, place = chance.flatten().topk(min(10 * model.config.detections, chance.numel()))
    region, label = place // chance.shape[1], place % chance.shape[1]
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0.01).all(1)[region] & (best >= query.threshold)
    best, region, label = best[kept], region[kept], label[kept]
    of_class = label if query.attributes is None else label // len(query.attributes)
    most = model.config.detections if query.most is None else min(query.most, model.config.detections)
    told = batched_nms(boxes[region], best, of_class, model.config.nms)[:most]
    return {"boxes": boxes[region[told]], "scores": best[told], "labels": label[told]}


def finished(
    found: Sequence[Detections], image: Pictures, whole: Sequence[tuple[int, int]] | None
) -> Iterator[Detections]:
    """Boxes in pixels of the whole pictures, (y, x) each, from which these were resized, and masks [n y x] in them; one
    picture's at a time, since the masks of many fit in no memory."""
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    for i, one in enumerate(found):
        seen = (image[i].shape[-2], image[i].shape[-1])
        y, x = seen if whole is None else whole[i]
        boxes = one["boxes"]
        if seen != (y, x):
            boxes = boxes * boxes.new_tensor([x / seen[1], y / seen[0]] * 2)
        if "masks" in one:
            masks, small, places = torch.empty(len(boxes), y, x, dtype=torch.bool), one["masks"].cpu(), boxes.cpu()
            for row, own, box in zip(masks, small, places, strict=True):  # one by one: they are float32 at first
                row[:] = paste_masks_in_image(own[None, None], box[None], (y, x))[0, 0] >= 0.5
            one = one | {"masks": masks}
        yield one | {"boxes": boxes}
